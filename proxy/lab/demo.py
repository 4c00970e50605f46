"""A demonstration on one machine: everything around the proxy, but not the proxy itself.

Two members, a certificate from a throw-away authority, the configuration for a proxy between,
and the lines to try it with. The caller starts the proxy:

    with Demo() as demo:
        print(demo.welcome())
        ...  # run the proxy with demo.config_path

Everything is on the loopback, in one folder that others can't read, and gone at the end.
"""

import json
import os
import shlex
import shutil
import socket
import stat
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from proxy.lab import demo_activesync, websocket_client
from proxy.lab.demo_members import HOST, DemoError, DemoMembers, port_error

__all__ = ["Demo", "DemoError"]

_CONFIGURATION = """\
# Written by `balanceme demo`.
frontends:
  - listen: {host}:{https_port}
    server_name: localhost
    tls:
      certificate: {certificate}
    mappings:
      - path: /
        balancer: cluster
        upgrade: [websocket]
  - listen: {host}:{http_port}
    server_name: localhost
    redirect_to_https: true
balancers:
  cluster:
    sticky_session: BALANCEME
    session_cookie:
      prefix: balancer
      lifetime: 60m
    members:
"""
_MEMBER = """\
      - url: {address}
        route: {name}
        retry_after: 5s
"""

# Pasted lines meet shells that take comments only in scripts: no quotation marks in a comment.
_WELCOME = """\
# balanceme on {url}, in front of {members}.
# Paste these lines into another terminal. Ctrl-C in this one ends the demo.

# In a browser (it warns, since the certificate was made for this run): {url}/webaccess/
# A session: the counter goes up, the member stays the same.
{curl} {cookies} {url}/webaccess/
{curl} {cookies} {url}/webaccess/
# Its cookies: the proxy set BALANCEME with the route, the member set ZARAFA_WEBACCESS.
grep localhost {jar}
# What the member is told about a request.
{curl} {url}/headers
# A download of 20 MB, sent back as an upload of unknown length.
{curl} '{url}/download?size=20m' | {curl} -T - {url}/upload
# A redirect to the own address of a member becomes one to ours. Plain HTTP is sent to HTTPS.
{curl} -o /dev/null -w '%{{http_code}} %{{redirect_url}}\\n' '{url}/redirect?absolute=1'
curl -sS -o /dev/null -w '%{{http_code}} %{{redirect_url}}\\n' http://localhost:{http_port}/webaccess/
# A WebSocket, echoed by the member.
{websocket} wss://localhost:{https_port}/websocket --ca {ca} hello
# ActiveSync: what the member offers, and a Ping that says nothing for five seconds.
{curl} -i -X OPTIONS {url}{activesync}
{curl} -d '' '{url}{activesync}?Cmd=Ping&User=erika&DeviceId=demo1&DeviceType=Phone&wait=5'
# Stop the member that has the session: the next request moves it, with a new cookie.
curl -sS -X POST "{control}/$(sed -n 's/.*balancer\\.//p' {jar})/stop"
{curl} {cookies} {url}/webaccess/
grep localhost {jar}
# Start it again: the session stays where it is now.
curl -sS -X POST {control}/start
{curl} {cookies} {url}/webaccess/
"""


class Demo:
    """The surroundings of a demonstration; they exist inside its ``with`` block."""

    def __init__(
        self,
        https_port: int = 8443,
        http_port: int = 8080,
        member_ports: tuple[int, int] = (8001, 8002),
        control_port: int = 8009,
    ) -> None:
        self.https_port = https_port
        self.http_port = http_port
        self._members = DemoMembers(member_ports, control_port)
        # Known before the start and the same each time, so that a pasted line keeps working.
        self.folder = Path(tempfile.gettempdir()) / f"balanceme-demo-{https_port}"
        self.ca_path = self.folder / "ca.pem"
        self.config_path = self.folder / "balanceme.yaml"
        self._certificate_path = self.folder / "localhost.pem"

    def __enter__(self) -> Self:
        for port, option in ((self.https_port, "--port"), (self.http_port, "--http-port")):
            _check_free(port, option)
        self._make_folder()
        try:
            self._write_certificates()
            self._members.start()
            self.config_path.write_text(self._configuration(), encoding="utf-8")
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clean_up()

    def welcome(self) -> str:
        """What to try: comments and commands, as one shell script."""
        ca, jar = shlex.quote(str(self.ca_path)), shlex.quote(str(self.folder / "cookies"))
        return _WELCOME.format(
            url=f"https://localhost:{self.https_port}",
            https_port=self.https_port,
            http_port=self.http_port,
            control=f"http://{HOST}:{self._members.control_port}",
            members=" and ".join(f"{each.name} ({each.address})" for each in self._members.members),
            curl=f"curl -sS --cacert {ca}",
            cookies=f"-b {jar} -c {jar}",
            jar=jar,
            ca=ca,
            # By its path: that works from any folder, whether the package is installed or not.
            websocket=shlex.join([sys.executable, str(Path(websocket_client.__file__))]),
            activesync=demo_activesync.PATH,
        )

    def _make_folder(self) -> None:
        """Our own folder, empty; what a demo that was killed left there is removed."""
        try:
            self.folder.mkdir(mode=0o700)
        except FileExistsError:
            found = self.folder.lstat()
            # In a folder where all may write, somebody else may have been there first.
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise DemoError(
                    f"{self.folder} is not ours: remove it, or set TMPDIR to another folder"
                ) from None
            shutil.rmtree(self.folder)
            self.folder.mkdir(mode=0o700)

    def _write_certificates(self) -> None:
        try:
            import trustme
        except ImportError as error:
            raise DemoError(
                "the demo makes its certificate with trustme, which isn't installed:"
                " pip install 'balanceme[demo]'"
            ) from error
        authority = trustme.CA(organization_name="balanceme demo")
        certificate = authority.issue_cert("localhost", "127.0.0.1", "::1")
        authority.cert_pem.write_to_path(self.ca_path)
        self._certificate_path.touch(mode=0o600)
        certificate.private_key_and_cert_chain_pem.write_to_path(self._certificate_path)

    def _configuration(self) -> str:
        head = _CONFIGURATION.format(
            host=HOST,
            https_port=self.https_port,
            http_port=self.http_port,
            certificate=json.dumps(str(self._certificate_path)),  # JSON is YAML
        )
        members = (
            _MEMBER.format(address=member.address, name=member.name)
            for member in self._members.members
        )
        return head + "".join(members)

    def _clean_up(self) -> None:
        self._members.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _check_free(port: int, option: str) -> None:
    """Ask early for a port that the proxy will need, while it is easy to say what to do."""
    with socket.socket() as probe:
        # As every server does: what a former connection left behind doesn't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise port_error(port, option, error) from error
