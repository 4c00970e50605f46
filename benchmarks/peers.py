"""The proxies that are compared: how each is configured and started.

All do the same work: TLS 1.3 with one certificate, the route in the cookie obeyed, the cookie set
or renewed with every response, X-Forwarded fields, an access log in the combined format,
connections to both members kept open, no limit to the requests of a connection. One process with
one thread serves the traffic, except with Apache, whose event MPM needs a thread for each request
under way. What is left alone stays at each program's default; bodies are streamed, not spooled.
"""

import os
import re
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from benchmarks.processes import BenchmarkError

_KEPT_ALIVE_SECONDS = 600
_WAITING_SECONDS = 3660
_APACHE_MODULES = (
    "mpm_event authz_core rewrite proxy proxy_http proxy_balancer lbmethod_byrequests "
    "slotmem_shm socache_shmcb ssl"
).split()
_APACHE_FOLDERS = ("/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/lib/httpd/modules")


@dataclass(frozen=True)
class Setup:
    """What a peer is started with."""

    folder: Path
    """For its configuration and logs."""
    tls_port: int
    plain_port: int
    members: tuple[int, int]
    """Ports of server1 and server2."""
    certificate: Path
    key: Path
    held: int = 0
    """Connections that will be held open at once; 0 for a run that measures CPU time."""
    waiting: int = 0
    """Requests that will wait at once, one on each held connection, or none."""

    @property
    def access_log(self) -> Path:
        """Where every peer logs to."""
        return self.folder / "access.log"

    def file(self, name: str, text: str) -> str:
        """Write a configuration file and return its name."""
        path = self.folder / name
        path.write_text(text)
        return str(path)


class Peer(ABC):
    """One proxy."""

    name: ClassVar[str]
    program: ClassVar[tuple[str, ...]]
    """Names it is installed under."""
    logs_to_output: ClassVar[bool] = False
    """Whether its standard output is its access log."""
    most_held: ClassVar[int] = 1_000_000
    """More connections than that it can't reasonably hold."""

    def executable(self) -> str | None:
        """Where it is installed, if it is."""
        # Servers are often installed in folders that are not on a user's path.
        path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
        found = (shutil.which(name, path=path) for name in self.program)
        return next(filter(None, found), None)

    @property
    def is_installed(self) -> bool:
        """Whether it can take part."""
        return self.executable() is not None

    @abstractmethod
    def version(self) -> str:
        """What will be measured, in a few words."""

    @abstractmethod
    def command(self, setup: Setup) -> list[str]:
        """Write its configuration and say how to start it in the foreground."""

    def _asked_version(self, option: str, pattern: str) -> str:
        run = subprocess.run(
            [str(self.executable()), option],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        found = re.search(pattern, run.stdout + run.stderr)
        return found[1] if found else "?"


# --- ours --------------------------------------------------------------------------------------

_BALANCEME = """\
workers: {workers}
frontends:
  - listen: 127.0.0.1:{setup.tls_port}
    tls: {{certificate: {setup.certificate}, key: {setup.key}}}
    mappings: [{{path: /, balancer: cluster}}]
    timeouts: {{keep_alive: {kept_alive}s}}
  - listen: 127.0.0.1:{setup.plain_port}
    mappings: [{{path: /, balancer: cluster}}]
    timeouts: {{keep_alive: {kept_alive}s}}
balancers:
  cluster:
    lbmethod: byrequests
    sticky_session: BALANCEME
    session_cookie: {{domain: zarafa.com, prefix: balancer, lifetime: 60m}}
    members:
      - {{url: "http://127.0.0.1:{setup.members[0]}", route: server1}}
      - {{url: "http://127.0.0.1:{setup.members[1]}", route: server2}}
access_log: {{path: {setup.access_log}, format: combined}}
"""


class Balanceme(Peer):
    """The proxy of this project, as it stands in the working tree."""

    name = "balanceme"
    program = (sys.executable,)
    workers = 1

    @property
    def is_installed(self) -> bool:
        """It has to be importable."""
        return find_spec("proxy") is not None and find_spec("proxy.__main__") is not None

    def version(self) -> str:
        """The commit, with a + when files differ from it."""
        git = ["git", "describe", "--always", "--dirty=+"]
        run = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False)
        python = sys.version.split()[0]
        return f"{run.stdout.strip() or 'uncommitted'} on CPython {python}"

    def command(self, setup: Setup) -> list[str]:
        """A supervisor and its workers."""
        text = _BALANCEME.format(setup=setup, kept_alive=_KEPT_ALIVE_SECONDS, workers=self.workers)
        file = setup.file("balanceme.yaml", text)
        socket = str(setup.folder / "control.sock")
        return [sys.executable, "-m", "proxy", "run", file, "--socket", socket]


# --- Apache ------------------------------------------------------------------------------------

_APACHE = """\
ServerRoot {setup.folder}
ServerName mail.zarafa.com
DefaultRuntimeDir {setup.folder}
PidFile {setup.folder}/apache.pid
ErrorLog {setup.folder}/error.log
{modules}
{user}
{processes}
Listen 127.0.0.1:{setup.tls_port}
Listen 127.0.0.1:{setup.plain_port}
ListenBacklog 4096
Timeout 300
ProxyTimeout {waiting}
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout {kept_alive}
LogFormat "%h %l %u %t \\"%r\\" %>s %b \\"%{{Referer}}i\\" \\"%{{User-Agent}}i\\"" combined
SSLSessionCache shmcb:{setup.folder}/sessions(512000)
SSLProtocol TLSv1.3
SSLCertificateFile {setup.certificate}
SSLCertificateKeyFile {setup.key}
<VirtualHost 127.0.0.1:{setup.tls_port}>
SSLEngine On
Include {vhost}
</VirtualHost>
<VirtualHost 127.0.0.1:{setup.plain_port}>
Include {vhost}
</VirtualHost>
"""

# The vhost that is replaced. Its own rules renew only server1's sessions, so a third pair, of the
# form of its failover include, renews server2's: all peers set the cookie with every response.
_APACHE_VHOST = """\
ServerName mail.zarafa.com
CustomLog {setup.access_log} combined
RewriteEngine On
RewriteCond %{{HTTP_COOKIE}} !BALANCEME
RewriteRule .* - [CO=BALANCEME:balancer.server1:zarafa.com:60]
RewriteCond %{{HTTP_COOKIE}} BALANCEME=(balancer.server1)
RewriteRule .* - [CO=BALANCEME:balancer.server1:zarafa.com:60]
RewriteCond %{{HTTP_COOKIE}} BALANCEME=(balancer.server2)
RewriteRule .* - [CO=BALANCEME:balancer.server2:zarafa.com:60]
ProxyPass / balancer://cluster/ lbmethod=byrequests stickysession=BALANCEME
ProxyPassReverse / balancer://cluster/
<Proxy balancer://cluster>
BalancerMember http://127.0.0.1:{setup.members[0]} route=server1
BalancerMember http://127.0.0.1:{setup.members[1]} route=server2
</Proxy>
"""

# One process while CPU time is measured: none may start or end meanwhile. The factor lets it keep
# a thousand idle connections with these threads.
_APACHE_ONE_PROCESS = """\
ServerLimit 1
StartServers 1
ThreadLimit 128
ThreadsPerChild 128
MaxRequestWorkers 128
MinSpareThreads 1
MaxSpareThreads 128
AsyncRequestWorkerFactor 100
"""

# Processes as the defaults shape them, only as many as the waiting requests need.
_APACHE_GROWING = """\
ServerLimit {servers}
ThreadsPerChild 25
MaxRequestWorkers {threads}
"""


class Apache(Peer):
    """Apache 2.4 with the event MPM and the vhost that balanceme replaces."""

    name = "apache"
    program = ("apache2", "httpd")
    most_held = 2000

    def version(self) -> str:
        """Such as 2.4.66."""
        return self._asked_version("-v", r"Apache/(\S+)")

    def command(self, setup: Setup) -> list[str]:
        """Only the modules the vhost needs."""
        vhost = setup.file("vhost.conf", _APACHE_VHOST.format(setup=setup))
        text = _APACHE.format(
            setup=setup,
            vhost=vhost,
            modules=self._modules(),
            # A server that root starts must be told to change to another user.
            user="User nobody\nGroup nogroup" if os.getuid() == 0 else "",
            processes=self._processes(setup.waiting),
            waiting=_WAITING_SECONDS,
            kept_alive=_KEPT_ALIVE_SECONDS,
        )
        return [str(self.executable()), "-f", setup.file("apache.conf", text), "-DFOREGROUND"]

    def _modules(self) -> str:
        usual = (*_APACHE_FOLDERS, os.environ.get("APACHE_MODULES", ""))
        folder = next(
            (name for name in usual if name and Path(name, "mod_proxy.so").exists()), None
        )
        if folder is None:
            raise BenchmarkError("apache: no modules found; name their folder in APACHE_MODULES")
        load = "<IfModule !mod_{0}.c>\nLoadModule {0}_module {1}/mod_{0}.so\n</IfModule>\n"
        return "".join(load.format(name, folder) for name in _APACHE_MODULES)

    def _processes(self, waiting: int) -> str:
        if not waiting:
            return _APACHE_ONE_PROCESS
        servers = waiting // 25 + 4
        return _APACHE_GROWING.format(servers=servers, threads=servers * 25)


# --- nginx -------------------------------------------------------------------------------------

_NGINX = """\
daemon off;
worker_processes 1;
{user}
pid {setup.folder}/nginx.pid;
worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
http {{
    client_body_temp_path {setup.folder}/body;
    proxy_temp_path {setup.folder}/proxy;
    fastcgi_temp_path {setup.folder}/fastcgi;
    uwsgi_temp_path {setup.folder}/uwsgi;
    scgi_temp_path {setup.folder}/scgi;
    access_log {setup.access_log} combined;
    keepalive_requests 1000000000;
    keepalive_timeout {kept_alive}s;
    client_max_body_size 0;
    map $cookie_BALANCEME $chosen {{
        default cluster;
        balancer.server1 server1;
        balancer.server2 server2;
    }}
    map $upstream_addr $route {{
        default server1;
        127.0.0.1:{setup.members[1]} server2;
    }}
    upstream cluster {{
        server 127.0.0.1:{setup.members[0]};
        server 127.0.0.1:{setup.members[1]};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    upstream server1 {{
        server 127.0.0.1:{setup.members[0]};
        server 127.0.0.1:{setup.members[1]} backup;
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    upstream server2 {{
        server 127.0.0.1:{setup.members[1]};
        server 127.0.0.1:{setup.members[0]} backup;
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{setup.tls_port} ssl backlog=4096;
        listen 127.0.0.1:{setup.plain_port} backlog=4096;
        ssl_certificate {setup.certificate};
        ssl_certificate_key {setup.key};
        ssl_protocols TLSv1.3;
        location / {{
            proxy_pass http://$chosen;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
            proxy_read_timeout {waiting}s;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Server mail.zarafa.com;
            add_header Set-Cookie "BALANCEME=balancer.$route; path=/; domain=zarafa.com; \
max-age=3600" always;
        }}
    }}
}}
"""


class Nginx(Peer):
    """nginx: the cookie names a group of servers, the server that answered names the cookie."""

    name = "nginx"
    program = ("nginx",)

    def version(self) -> str:
        """Such as 1.22.1."""
        return self._asked_version("-v", r"nginx/(\S+)")

    def command(self, setup: Setup) -> list[str]:
        """One worker process below the parent that starts it."""
        text = _NGINX.format(
            setup=setup,
            user="user root;" if os.getuid() == 0 else "",
            files=2 * setup.held + 4096,
            waiting=_WAITING_SECONDS,
            kept_alive=_KEPT_ALIVE_SECONDS,
        )
        file = setup.file("nginx.conf", text)
        errors = str(setup.folder / "error.log")
        return [str(self.executable()), "-p", str(setup.folder), "-e", errors, "-c", file]


# --- HAProxy -----------------------------------------------------------------------------------

_HAPROXY = """\
global
    nbthread 1
    log stdout len 4096 format raw local0 info
    ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
    mode http
    log global
    timeout connect 60s
    timeout client {waiting}s
    timeout server {waiting}s
    timeout http-keep-alive {kept_alive}s
    timeout http-request 20s
frontend both
    bind 127.0.0.1:{setup.tls_port} ssl crt {pem} backlog 4096
    bind 127.0.0.1:{setup.plain_port} backlog 4096
    http-request capture req.hdr(Referer) len 256
    http-request capture req.hdr(User-Agent) len 256
    log-format '%ci - - [%trg] %{{+Q}}r %ST %B %{{+Q}}[capture.req.hdr(0)] \
%{{+Q}}[capture.req.hdr(1)]'
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Server mail.zarafa.com
    default_backend cluster
backend cluster
    balance roundrobin
    option forwardfor
    http-reuse always
    cookie BALANCEME insert domain zarafa.com maxidle 60m
    server server1 127.0.0.1:{setup.members[0]} cookie balancer.server1
    server server2 127.0.0.1:{setup.members[1]} cookie balancer.server2
"""


class Haproxy(Peer):
    """HAProxy with an inserted cookie."""

    name = "haproxy"
    program = ("haproxy",)
    logs_to_output = True

    def version(self) -> str:
        """Such as 2.6.12."""
        return self._asked_version("-v", r"[Vv]ersion ([0-9.]+)")

    def command(self, setup: Setup) -> list[str]:
        """One process, one thread."""
        pem = setup.file("haproxy.pem", setup.certificate.read_text() + setup.key.read_text())
        text = _HAPROXY.format(
            setup=setup, pem=pem, waiting=_WAITING_SECONDS, kept_alive=_KEPT_ALIVE_SECONDS
        )
        return [str(self.executable()), "-db", "-f", setup.file("haproxy.cfg", text)]


PEERS: tuple[Peer, ...] = (Balanceme(), Apache(), Nginx(), Haproxy())
