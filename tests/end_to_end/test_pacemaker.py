"""The resource agent for Pacemaker: by Debian's own tester, and what it makes of notifications."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest
import yaml

from tests.end_to_end.conftest import HOST, ROOT, until
from tests.end_to_end.processes import is_gone

FOLDER = ROOT / "config" / "pacemaker"
AGENT = FOLDER / "balanceme"
TESTER = shutil.which("ocf-tester") or "/usr/sbin/ocf-tester"
# What the agent's actions answer.
SUCCESS, FAILED, ARGUMENTS, UNKNOWN, INSTALLED, CONFIGURED, NOT_RUNNING = 0, 1, 2, 3, 5, 6, 7

pytestmark = pytest.mark.skipif(
    not Path(TESTER).exists() or shutil.which("xmllint") is None,
    reason="ocf-tester is missing: apt-get install resource-agents libxml2-utils",
)


class Case(NamedTuple):
    """A notification, and what balanceme is told for it."""

    kind: str
    active: str
    told: list[str]
    started: str = ""
    stopped: str = ""
    parameters: Mapping[str, str] = MappingProxyType({"routes": "node1=server1 node2=server2"})


class Agent:
    """The agent with its parameters, and a program that it takes for balanceme."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "balanceme.yaml"
        self.socket = folder / "control" / "control.sock"
        self.program = folder / "program"
        self.parameters = {
            "binary": str(self.program),
            "config": str(self.config),
            "socket": str(self.socket),
            "log_file": str(folder / "log"),
        }
        self.said = ""

    def write_program(self, script: str) -> None:
        """Put a script of sh in the place of balanceme."""
        self.program.write_text(f"#!/bin/sh\n{script}\n")
        self.program.chmod(0o755)

    def run(self, action: str, **meta: str) -> int:
        """What it answers to an action; what it says is in ``said``."""
        environ = {**os.environ, "HA_RSCTMP": str(self.folder), "OCF_ROOT": "/usr/lib/ocf"}
        environ["OCF_RESOURCE_INSTANCE"] = "balanceme:0"
        environ |= {f"OCF_RESKEY_{name}": value for name, value in self.parameters.items()}
        environ |= {f"OCF_RESKEY_CRM_meta_{name}": value for name, value in meta.items()}
        done = subprocess.run(
            [AGENT, action],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        self.said = done.stdout
        return done.returncode

    @property
    def pid_file(self) -> Path:
        """Where the agent keeps the process id."""
        return self.folder / "balanceme-balanceme.pid"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter: the tester asks for meta-data as nobody."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


# --- with a balanceme --------------------------------------------------------------------------


@pytest.fixture
def agent(folder: Path, free_port: Callable[[], int]) -> Agent:
    """An agent for the balanceme of this tree, with a frontend of plain HTTP."""
    made = Agent(folder)
    settings = {
        "stop_timeout": "1s",
        "frontends": [
            {
                "listen": f"{HOST}:{free_port()}",
                "mappings": [{"path": "/", "balancer": "cluster"}],
            }
        ],
        "balancers": {"cluster": {"members": [{"url": f"http://{HOST}:1", "route": "server1"}]}},
    }
    made.config.write_text(yaml.safe_dump(settings))
    made.write_program(f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m proxy "$@"')
    return made


@pytest.mark.slow
def test_by_the_tester(agent: Agent) -> None:
    """ocf-tester finds nothing to complain of, and leaves no process."""
    copy = shutil.copy(AGENT, agent.folder)
    options = [part for each in agent.parameters.items() for part in ("-o", "=".join(each))]
    done = subprocess.run(
        [TESTER, "-n", "balanceme", *options, copy],
        env={**os.environ, "HA_RSCTMP": str(agent.folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert "passed all tests" in done.stdout, done.stdout
    assert done.returncode == 0
    assert "* rc=" not in done.stdout
    log = Path(agent.parameters["log_file"]).read_text()
    assert log.count("serving on") == 2
    assert "Traceback" not in log
    assert not agent.pid_file.exists()
    assert agent.run("monitor") == NOT_RUNNING


@pytest.mark.slow
def test_mistake_in_the_configuration(agent: Agent) -> None:
    """A mistake is told with its line, and is one of this node alone."""
    agent.config.write_text(agent.config.read_text() + "workers: none\n")
    for action in ("validate-all", "start"):
        assert agent.run(action) == ARGUMENTS
        assert re.search(r'balanceme\.yaml:\d+:10: workers: found "none"', agent.said)
    assert agent.run("monitor") == NOT_RUNNING
    assert not agent.pid_file.exists()


# --- with a stand-in ---------------------------------------------------------------------------

STAND_IN = """\
printf '%s\\n' "$*" | sed 's| --socket .*||' >>"{folder}/calls"
case $1 in
run) trap '' TERM; while :; do sleep 0.1; done ;;
status) cat "{folder}/answer"; exit "$(cat "{folder}/status")" ;;
failover) [ "$2" != lost ] ;;
stop) exit 1 ;;
esac"""


@pytest.fixture
def stand_in(folder: Path) -> Agent:
    """An agent whose balanceme only notes what it is told, and isn't there."""
    made = Agent(folder)
    made.write_program(STAND_IN.format(folder=folder))
    made.config.touch()
    answers(made, 3)
    return made


def answers(agent: Agent, status: int, text: str = "") -> None:
    """Let the stand-in answer like that."""
    (agent.folder / "status").write_text(str(status))
    (agent.folder / "answer").write_text(text)


def calls(agent: Agent) -> list[str]:
    """What the stand-in was told, but for checks and questions."""
    file = agent.folder / "calls"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line for line in lines if line.split()[0] not in ("check", "status")]


@pytest.mark.parametrize(
    ("status", "expected"), [(0, SUCCESS), (1, FAILED), (2, FAILED), (3, NOT_RUNNING)]
)
def test_monitor(stand_in: Agent, status: int, expected: int) -> None:
    """Who answers runs, who doesn't isn't there, and everything else is a failure."""
    answers(stand_in, status, '{\n  "pid": 12345,\n  "phase": "serving",\n  "workers": []\n}\n')
    assert stand_in.run("monitor") == expected
    if status == 0:
        assert stand_in.pid_file.read_text() == "12345\n"


def test_monitor_without_the_program(stand_in: Agent) -> None:
    """Where nothing is installed nothing runs, and nothing can be started."""
    stand_in.program.unlink()
    assert stand_in.run("monitor", interval="0") == NOT_RUNNING
    assert stand_in.run("monitor", interval="10000") == INSTALLED
    assert stand_in.run("start") == INSTALLED
    assert stand_in.run("stop") == SUCCESS


@pytest.mark.slow
def test_process_that_hangs(stand_in: Agent) -> None:
    """A process that doesn't answer is a failure, and a stop ends it by force."""
    command = [str(stand_in.program), "run", str(stand_in.config)]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            until(lambda: calls(stand_in), "it runs")
            stand_in.pid_file.write_text(f"{process.pid}\n")
            assert stand_in.run("monitor") == FAILED
            assert f"process {process.pid} runs and doesn't answer" in stand_in.said
            assert stand_in.run("start") == FAILED
            assert stand_in.run("stop", timeout="20000") == SUCCESS
            assert is_gone(process.pid)
            assert not stand_in.pid_file.exists()
        finally:
            process.kill()


def test_process_of_somebody_else(stand_in: Agent) -> None:
    """The id of another process in the file is nothing to us."""
    stand_in.pid_file.write_text(f"{os.getpid()}\n")
    assert stand_in.run("monitor") == NOT_RUNNING
    assert stand_in.run("stop") == SUCCESS


@pytest.mark.parametrize(
    ("action", "expected", "told"),
    [
        ("reload", SUCCESS, ["reload"]),
        ("reload-agent", SUCCESS, []),
        ("notify", SUCCESS, []),
        ("validate-all", SUCCESS, []),
        ("promote", UNKNOWN, []),
    ],
)
def test_other_actions(stand_in: Agent, action: str, expected: int, told: list[str]) -> None:
    """A reload is balanceme's own; changed parameters need none."""
    assert stand_in.run(action) == expected
    assert calls(stand_in) == told


@pytest.mark.parametrize(
    "parameters", [{"routes": "node1=server1 node2"}, {"takeover": "server1"}, {"routes": "=a"}]
)
def test_unfit_parameters(stand_in: Agent, parameters: dict[str, str]) -> None:
    """A pair that is none is a mistake for the whole cluster."""
    stand_in.parameters |= parameters
    assert stand_in.run("validate-all") == CONFIGURED
    assert "allowed: NAME=ROUTE" in stand_in.said


# --- notifications -----------------------------------------------------------------------------

THREE = "node1=server1 node2=server2 node3=server3"
LEFT = "failover server2 server1 --reason pacemaker: node2 has left"
CLEAR1, CLEAR2 = "failover --clear server1", "failover --clear server2"
BOTH, ALL = "node1 node2", "node1 node2 node3"
CASES = {
    "one leaves": Case("post-stop", BOTH, [LEFT], stopped="node2"),
    "one was fenced": Case("post-stop", "node1", [LEFT], stopped="node2"),
    "one is back": Case("post-start", "node1", [CLEAR2], started="node2"),
    "is restarted": Case("post-stop", BOTH, [], started="node2", stopped="node2"),
    "will leave": Case("pre-stop", BOTH, [], stopped="node2"),
    "will come": Case("pre-start", "node1", [], started="node2"),
    "isn't told": Case("post-stop", BOTH, [], stopped="node2", parameters={"failover": "no"}),
    "we start alone": Case("post-start", "", [CLEAR1, LEFT], started="node1"),
    "both start": Case("post-start", "", [CLEAR1, CLEAR2], started=BOTH),
    "we start among others": Case("post-start", "node2", [CLEAR1, CLEAR2], started="node1"),
    "routes are short names": Case(
        "post-stop",
        "node1.example.org server2.example.org",
        ["failover server2 node1 --reason pacemaker: server2.example.org has left"],
        stopped="server2.example.org",
        parameters={},
    ),
    "one has no member": Case("post-stop", f"{BOTH} quorum", [LEFT], stopped="node2"),
    "that one leaves": Case("post-stop", f"{BOTH} quorum", [], stopped="quorum"),
    "two are left": Case("post-stop", ALL, [], stopped="node2", parameters={"routes": THREE}),
    "fixed heir": Case(
        "post-stop",
        ALL,
        [LEFT],
        stopped="node2",
        parameters={"routes": THREE, "takeover": "server2=server1 server1=server2"},
    ),
    "no heir": Case(
        "post-stop",
        ALL,
        [],
        stopped="node3",
        parameters={"routes": THREE, "takeover": "server2=server1"},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_notifications(stand_in: Agent, case: Case) -> None:
    """Each balanceme is told who has left, who took over, and who is back."""
    stand_in.parameters |= case.parameters
    when, _, operation = case.kind.partition("-")
    meta = {
        "type": when,
        "operation": operation,
        "active_uname": case.active,
        "start_uname": case.started,
        "stop_uname": case.stopped,
    }
    notify = {f"notify_{name}": value for name, value in meta.items()}
    for _ in range(2):
        assert stand_in.run("notify", on_node="node1", **notify) == SUCCESS
        assert calls(stand_in) == case.told
        (stand_in.folder / "calls").unlink(missing_ok=True)


def test_command_that_fails(stand_in: Agent) -> None:
    """A notification never fails, whatever balanceme says to it."""
    stand_in.parameters["routes"] = "node1=server1 node2=lost"
    notify = {"notify_type": "post", "notify_operation": "stop", "notify_stop_uname": "node2"}
    assert stand_in.run("notify", notify_active_uname="node1 node2", **notify) == SUCCESS
    assert calls(stand_in) == ["failover lost server1 --reason pacemaker: node2 has left"]


# --- what fits together ------------------------------------------------------------------------


def test_plain_sh() -> None:
    """The agent is for any sh, and may be run by everybody."""
    shells = [shell for shell in ("sh", "dash", "bash") if shutil.which(shell)]
    for shell in shells:
        subprocess.run([shell, "-n", AGENT], check=True)
    assert AGENT.stat().st_mode & 0o777 == 0o755


def test_meta_data(stand_in: Agent) -> None:
    """Meta-data and script have the same parameters, defaults and actions."""
    assert stand_in.run("meta-data") == SUCCESS
    tree = ET.fromstring(stand_in.said)
    script = AGENT.read_text()
    defaults = dict(re.findall(r'^: "\${OCF_RESKEY_(\w+)=(.*)}"$', script, re.MULTILINE))
    contents = {each.get("name"): each.find("content") for each in tree.iter("parameter")}
    told = {
        name: content.get("default") for name, content in contents.items() if content is not None
    }
    assert told == defaults
    *_, answered = script.partition("# --- what is asked of us")
    for action in tree.iter("action"):
        assert re.search(rf"^(\w+ \| )?{action.get('name')}( \| \w+)?\)", answered, re.MULTILINE)


def test_read_me() -> None:
    """The commands for people have the agent's parameters, and no others."""
    script = AGENT.read_text()
    text = (FOLDER / "README.md").read_text()
    named = set(re.findall(r"^\s+([a-z_]+)=\S", text, re.MULTILINE)) - {"meta"}
    assert named
    for name in named:
        assert f'<parameter name="{name}"' in script
