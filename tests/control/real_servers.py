"""Real servers for the probes: MariaDB, Postfix, Dovecot, Apache, each a private instance.

Each has a configuration and files of its own in a temporary folder, listens on loopback ports
alone, and is ended by its own process id. Nothing of the system's own instance is touched.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

HOST = "127.0.0.1"
NAME = "mail.example.org"
_START = 30.0

Ports = Callable[[], int]


class Issued(NamedTuple):
    """A certificate for NAME in a file with its key, and the authority that issued it, in PEM."""

    file: Path
    authority: str


def issue(folder: Path) -> Issued:
    """Make a throw-away certificate."""
    authority = trustme.CA()
    file = folder / "server.pem"
    authority.issue_cert(NAME).private_key_and_cert_chain_pem.write_to_path(file)
    return Issued(file, authority.cert_pem.bytes().decode())


def found(program: str, package: str) -> str:
    """Where a program is; the test fails, or is skipped on a developer's machine, without it."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is not None:
        return path
    missing = f"no {program} on this machine: apt-get install --no-install-recommends {package}"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


def until(true: Callable[[], object], what: str) -> None:
    """Wait until ``true()``, and fail with ``what`` if that takes too long."""
    deadline = time.monotonic() + _START
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {_START:g} s: {what}")
        time.sleep(0.01)


class Server:
    """One server's process."""

    def __init__(self, name: str, command: Sequence[str | Path], folder: Path) -> None:
        """Start it; what it says goes to a file."""
        self._name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
            )

    def wait(self, port: int) -> "Server":
        """Until it greets whoever connects; a web server, until it accepts."""
        deadline = time.monotonic() + _START
        while not _listens(port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"{self._name} does not serve:\n{self.said()[-4000:]}")
            time.sleep(0.02)
        return self

    def said(self) -> str:
        """All it said."""
        return self.log.read_text(errors="replace")

    def stop(self) -> None:
        """End it."""
        # With all it has started; nothing of theirs is worth an orderly end, which takes seconds.
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=_START):
            return True
    except OSError:
        return False


# --- MariaDB -------------------------------------------------------------------------------------

_SQL = Path("/usr/share/mysql")
_SMALL = (
    *("--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M"),
    "--innodb-flush-method=nosync",
)
# balanceme is the account that probes use unasked; checker has a password.
_ACCOUNTS = """\
create user balanceme@'%';
create user checker@'%' identified by 'a secret';
create user watcher@'%';
grant all on *.* to watcher@'%';
"""


class MariaDb(NamedTuple):
    """A running MariaDB."""

    server: Server
    port: int

    def status(self, name: str) -> int:
        """One of its counters."""
        with socket.create_connection((HOST, self.port)) as sock, sock.makefile("rwb") as stream:

            def packet() -> bytes:
                return stream.read(int.from_bytes(stream.read(4)[:3], "little"))

            def send(number: int, content: bytes) -> None:
                stream.write(len(content).to_bytes(3, "little") + bytes([number]) + content)
                stream.flush()

            packet()
            login = (0x88200).to_bytes(4, "little") + bytes(4) + b"\x21" + bytes(23)
            send(1, login + b"watcher\0\0mysql_native_password\0")
            assert packet()[0] == 0
            send(0, f"\x03show global status like '{name}'".encode())
            # how many columns, the columns, the end of them, one row
            for _ in range(int(packet()[0]) + 1):
                packet()
            row = packet()
            packet()
            send(0, b"\x01")
            return int(row[row[0] + 2 :])


def start_mariadb(folder: Path, ports: Ports) -> MariaDb:
    """A fresh instance with three accounts."""
    binary = found("mariadbd", "mariadb-server-core")
    data = folder / "data"
    data.mkdir()
    common = [binary, "--no-defaults", f"--datadir={data}", *_SMALL]
    common += ["--user=root"] if os.geteuid() == 0 else []
    first = "create database if not exists mysql;\nuse mysql;\nset @auth_root_socket=NULL;\n"
    scripts = ("mysql_system_tables", "mysql_performance_tables", "mysql_system_tables_data")
    tables = "".join((_SQL / f"{script}.sql").read_text() for script in scripts)
    # accounts for this machine's own name, which only the usual installer knows
    lines = [line for line in tables.splitlines() if "@current_hostname" not in line]
    subprocess.run(
        [*common, "--bootstrap"],
        input=first + "\n".join(lines) + "\n",
        text=True,
        check=True,
        capture_output=True,
        timeout=60,
    )
    accounts = folder / "accounts.sql"
    accounts.write_text(_ACCOUNTS)
    port = ports()
    command = [*common, f"--bind-address={HOST}", f"--port={port}", f"--init-file={accounts}"]
    command += [f"--socket={folder}/socket", f"--pid-file={folder}/pid"]
    running = MariaDb(Server("mariadb", command, folder).wait(port), port)
    # That we looked whether it listens is counted a moment later.
    until(lambda: running.status("Aborted_connects_preauth") > 0, "it counts")
    return running


# --- Postfix -------------------------------------------------------------------------------------


class Mail(NamedTuple):
    """A running mail server, with its ports by what is spoken there."""

    server: Server
    ports: dict[str, int]
    # where it writes who came and went
    log: Path

    def wait_said(self, text: str, count: int = 1) -> str:
        """What it wrote, once a text is in there so often."""
        until(lambda: self.said().count(text) >= count, f"it writes {text!r}")
        return self.said()

    def said(self) -> str:
        """What it wrote."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


_MASTER = """\
{host}:{smtp} inet n - n - - smtpd
{host}:{smtps} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
anvil unix - - n - 1 anvil
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


def start_postfix(folder: Path, ports: Ports, issued: Issued) -> Mail:
    """A fresh instance that takes connections, and would take no mail; needs root."""
    found("postfix", "postfix")
    if os.geteuid() != 0:
        pytest.skip("only root can start a Postfix of its own")
    account = pwd.getpwnam("postfix")
    # `postfix check` would make them as well, and takes two seconds
    for name in ("etc", "queue", "queue/pid", "data", "queue/private", "queue/public"):
        (folder / name).mkdir()
    for name in ("data", "queue/private", "queue/public"):
        os.chown(folder / name, account.pw_uid, account.pw_gid)
    log = folder / "mail.log"
    main = {
        "compatibility_level": "3.6",
        "queue_directory": folder / "queue",
        "data_directory": folder / "data",
        "inet_interfaces": HOST,
        "inet_protocols": "ipv4",
        "mydestination": "",
        "smtpd_error_sleep_time": "0",
        "myhostname": NAME,
        "smtpd_tls_cert_file": issued.file,
        "smtpd_tls_key_file": issued.file,
        "maillog_file": log,
        "maillog_file_prefixes": folder,
    }
    lines = [f"{key} = {value}\n" for key, value in main.items()]
    (folder / "etc/main.cf").write_text("".join(lines))
    numbers = {"smtp": ports(), "smtps": ports()}
    (folder / "etc/master.cf").write_text(_MASTER.format(host=HOST, **numbers))
    master = Path("/usr/lib/postfix/sbin/master")
    server = Server("postfix", [master, "-c", folder / "etc", "-d"], folder)
    running = Mail(server.wait(numbers["smtp"]), numbers, log)
    running.wait_said("disconnect")  # ours, from looking whether it listens
    return running


# --- Dovecot -------------------------------------------------------------------------------------

_DOVECOT = """\
protocols = imap pop3 lmtp
listen = {host}
base_dir = {folder}/run
log_path = {folder}/mail.log
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{certificate}
login_greeting = ready
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = {pop3s}
    ssl = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}/home
}}
"""


def start_dovecot(folder: Path, ports: Ports, issued: Issued) -> Mail:
    """A fresh instance that anybody could log into, and nobody does; needs root."""
    binary = found("dovecot", "dovecot-imapd dovecot-pop3d dovecot-lmtpd")
    if os.geteuid() != 0:
        pytest.skip("only root can start a Dovecot of its own")
    (folder / "run").mkdir()
    numbers = {name: ports() for name in ("imap", "imaps", "pop3", "pop3s", "lmtp")}
    config = folder / "dovecot.conf"
    words = {"host": HOST, "folder": folder, "certificate": issued.file}
    config.write_text(_DOVECOT.format(**words, **numbers))
    server = Server("dovecot", [binary, "-F", "-c", config], folder)
    return Mail(server.wait(numbers["lmtp"]), numbers, folder / "mail.log")


# --- Apache --------------------------------------------------------------------------------------

_MODULES = "mpm_event authz_core unixd dir ssl socache_shmcb alias".split()


class Web(NamedTuple):
    """A running web server."""

    server: Server
    http: int
    https: int


def start_apache(folder: Path, ports: Ports, issued: Issued) -> Web:
    """A fresh instance with a page, and places with statuses of their own."""
    binary = found("apache2", "apache2")
    modules = Path("/usr/lib/apache2/modules")
    (folder / "www").mkdir()
    (folder / "www/index.html").write_text("<title>webmail</title> all is well")
    http, https = ports(), ports()
    lines = [
        f"LoadModule {each}_module {modules}/mod_{each}.so"
        for each in _MODULES
        if (modules / f"mod_{each}.so").exists()  # some builds have unixd inside
    ]
    lines.append("DirectoryIndex index.html")
    lines += [f"ServerRoot {folder}", f"DefaultRuntimeDir {folder}", f"PidFile {folder}/pid"]
    lines += [f"ErrorLog {folder}/error.log", f"ServerName {NAME}", f"DocumentRoot {folder}/www"]
    lines += ["User www-data", "Group www-data"] if os.geteuid() == 0 else []
    lines += ["RedirectMatch 503 ^/down", "RedirectMatch 302 ^/moved(.*) /index.html"]
    lines += [f"<Directory {folder}/www>", "Require all granted", "</Directory>"]
    lines += [f"Listen {HOST}:{http}", f"Listen {HOST}:{https} https"]
    lines += [f"<VirtualHost {HOST}:{https}>", "SSLEngine On", f"SSLCertificateFile {issued.file}"]
    lines += ["</VirtualHost>", ""]
    config = folder / "httpd.conf"
    config.write_text("\n".join(lines))
    server = Server("apache", [binary, "-f", config, "-D", "FOREGROUND"], folder)
    return Web(server.wait(https), http, https)
