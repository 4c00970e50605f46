"""``balanceme import``: from Apache's files to a configuration that is served."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.conftest import HOST, Dial, Launcher, Members, settings_of
from tests.end_to_end.reloads import ask

pytestmark = pytest.mark.slow

VHOST = """\
Listen @LISTEN@
<IfDefine SSL>
<VirtualHost *:@PORT@>
  RewriteEngine On
  RewriteCond %{HTTP_COOKIE} !BALANCEME
  RewriteRule .* - [CO=BALANCEME:balancer.server1:example.org:60]
  RewriteCond %{HTTP_COOKIE} BALANCEME=(balancer.server1)
  RewriteRule .* - [CO=BALANCEME:balancer.server1:example.org:60]
  ProxyPass / balancer://cluster/ stickysession=BALANCEME
  ProxyPassReverse / balancer://cluster/
  <Proxy balancer://cluster>
    BalancerMember @SERVER1@ route=server1
    BalancerMember @SERVER2@ route=server2
  </Proxy>
</VirtualHost>
</IfDefine>
"""


def balanceme(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    """A command that needs no running balanceme."""
    command = [sys.executable, "-m", "proxy", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_import(
    serve: Launcher,
    members: Members,
    dial: Dial,
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    """The article's vhost is imported, has no mistake, and serves as Apache did (C8, C10)."""
    both = members("server1"), members("server2")
    port = free_port()
    text = VHOST.replace("@LISTEN@", f"{HOST}:{port}").replace("@PORT@", str(port))
    for number, member in enumerate(both, 1):
        text = text.replace(f"@SERVER{number}@", settings_of(member)["url"])
    vhost, ours = tmp_path / "zarafa.conf", tmp_path / "balanceme.yaml"
    vhost.write_text(text)
    done = balanceme("import", vhost, "-D", "SSL", "-o", ours)
    assert (done.returncode, done.stdout) == (0, "")
    assert balanceme("check", ours).returncode == 0
    assert f"# {vhost}:9:" in ours.read_text()
    proxy = serve.run(yaml.safe_load(ours.read_text()))
    client = dial(proxy)
    answer = ask(client, "/")
    assert (answer.value(b"set-cookie") or b"").startswith(
        b"BALANCEME=balancer.server1; path=/; domain=example.org; expires="
    )
    assert ask(client, "/", "Cookie: BALANCEME=balancer.server2").body == b"server2"


def test_what_can_not_be_imported(tmp_path: Path) -> None:
    """Mistakes are told with their lines, nothing is written, and the exit status is 2."""
    vhost, ours = tmp_path / "zarafa.conf", tmp_path / "balanceme.yaml"
    vhost.write_text("Listen 80\nProxyPass / balancer://cluster/\nRedirect /a https://b/\n")
    done = balanceme("import", vhost, "-o", ours)
    assert done.returncode == 2
    assert f"{vhost}:3: Redirect: requests aren't redirected here" in done.stderr
    assert not ours.exists()
    assert balanceme("import", tmp_path / "gone.conf").returncode == 2
    vhost.write_text("Listen 80\nProxyPass / http://127.0.0.1/\nTimeout 5\n")
    done = balanceme("import", vhost, "-o", tmp_path / "no" / "folder")
    assert (done.returncode, "can't be written" in done.stderr) == (1, True)
