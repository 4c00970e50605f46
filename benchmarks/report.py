"""Result files to tables: ``python -m benchmarks.report RESULT [EARLIER]``.

Ratios are taken within each round, where the proxies took turns, and their median is shown: what
slows the whole machine for a while changes a figure but hardly a ratio.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.scenarios import GOALS, SCENARIOS, Driver, Goal, Load, Unit

OURS = "balanceme"
# Of the proxy's core; the kernel's own work and the readings take a few per cent.
_SHARED = 0.15


@dataclass
class Row:
    """What one proxy cost in one scenario, a figure a round; None where it was not valid."""

    costs: list[float | None] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    """Requests, or MB, a second."""
    busy: list[float] = field(default_factory=list)
    """Share of a core that the proxy used."""
    others: list[float] = field(default_factory=list)
    """Share of the proxy's core that others used meanwhile."""
    faults: list[str] = field(default_factory=list)

    @property
    def valid(self) -> list[float]:
        """The figures that count."""
        return [cost for cost in self.costs if cost is not None]

    @property
    def cost(self) -> float | None:
        """The median; None when any round was not valid."""
        return median(self.valid) if self.valid and not self.faults else None


@dataclass
class Result:
    """One run."""

    started: str
    machine: dict[str, str]
    versions: dict[str, str]
    options: dict[str, float]
    notes: list[str] = field(default_factory=list)
    rows: dict[str, dict[str, Row]] = field(default_factory=dict)
    """By scenario and proxy."""

    def row(self, scenario: str, peer: str) -> Row:
        """The row to fill or read, empty at first."""
        return self.rows.setdefault(scenario, {}).setdefault(peer, Row())

    def cost(self, scenario: str, peer: str) -> float | None:
        """A valid row's median."""
        row = self.rows.get(scenario, {}).get(peer)
        return row.cost if row else None

    def ratio(self, scenario: str, of_peer: str) -> float | None:
        """Our cost as a share of a peer's: the median over the rounds."""
        peers = self.rows.get(scenario, {})
        if self.cost(scenario, OURS) is None or self.cost(scenario, of_peer) is None:
            return None
        pairs = zip(peers[OURS].costs, peers[of_peer].costs, strict=False)
        ratios = [mine / theirs for mine, theirs in pairs if mine is not None and theirs]
        return median(ratios) if ratios else None

    @property
    def measured(self) -> list[str]:
        """The proxies that have figures."""
        return [peer for peer in self.versions if any(peer in row for row in self.rows.values())]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Result":
        """Read what ``save`` wrote."""
        saved: dict[str, Any] = json.loads(path.read_text())
        rows = saved.pop("rows")
        result = cls(**saved)
        for scenario, peers in rows.items():
            result.rows[scenario] = {peer: Row(**row) for peer, row in peers.items()}
        return result


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    cells = [list(head), *(list(line) for line in lines)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(head))]
    cells.insert(1, ["-" * width for width in widths])
    padded = (
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in cells
    )
    return "\n".join("| " + " | ".join(line) + " |" for line in padded)


def _number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _cell(row: Row | None, show: Callable[[Row], list[float]]) -> str:
    """Median and spread."""
    if row is None:
        return ""
    if row.cost is None:
        return "not valid"
    values = show(row)
    if not values:
        return ""
    middle = _number(median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({_number(min(values))}–{_number(max(values))})"


def _scenario_lines(
    result: Result, show: Callable[[Row], list[float]], loads_only: bool = False
) -> Iterator[list[str]]:
    for name, rows in result.rows.items():
        scenario = SCENARIOS.get(name)
        if scenario is None or (loads_only and not isinstance(scenario, Load)):
            continue
        unit = _rate_unit(scenario) if isinstance(scenario, Load) and loads_only else None
        label = unit or scenario.unit.value
        cells = [_cell(rows.get(peer), show) for peer in result.measured]
        yield [scenario.title, label, *cells]


def _rate_unit(load: Load) -> str:
    if load.unit is not Unit.REQUEST:
        return "MB/s"
    return "connections/s" if load.driver is Driver.HANDSHAKES else "requests/s"


def costs(result: Result) -> str:
    """The table of figures: medians and, in brackets, lowest and highest round."""
    head = ("work", "unit", *result.measured)
    return _table(head, _scenario_lines(result, lambda row: row.valid))


def rates(result: Result) -> str:
    """How much went through meanwhile; what is not limited by the proxy says little."""
    head = ("work", "unit", *result.measured)
    return _table(head, _scenario_lines(result, lambda row: row.rates, loads_only=True))


def ratios(result: Result) -> str:
    """Our figures as a share of the others'."""
    others = [peer for peer in result.measured if peer != OURS]
    lines = []
    for name in filter(SCENARIOS.get, result.rows):
        found = [result.ratio(name, peer) for peer in others]
        cells = ["" if ratio is None else f"{ratio:.2f}" for ratio in found]
        lines.append([SCENARIOS[name].title, *cells])
    return _table(("work", *(f"of {peer}" for peer in others)), lines)


def _goal_line(result: Result, goal: Goal) -> list[str]:
    if goal.of_peer is None:
        found = result.cost(goal.scenario, OURS)
        wanted = f"at most {goal.at_most:g} {SCENARIOS[goal.scenario].unit.value}"
    else:
        found = result.ratio(goal.scenario, goal.of_peer)
        wanted = f"at most {goal.at_most:g} of {goal.of_peer}"
    outcome = "not measured" if found is None else "met" if found <= goal.at_most else "missed"
    shown = "" if found is None else f"{found:.2f}"
    return [SCENARIOS[goal.scenario].title, wanted, shown, outcome]


def goals(result: Result) -> str:
    """Whether each goal was reached in this run."""
    lines = [_goal_line(result, goal) for goal in GOALS]
    return _table(("work", "goal", "measured", "outcome"), lines)


def faults(result: Result) -> str:
    """Everything that makes a row not valid, and what was left out."""
    lines = [f"- {note}" for note in result.notes]
    for scenario, rows in result.rows.items():
        lines += [f"- {scenario}, {peer}: {fault}" for peer in rows for fault in rows[peer].faults]
    shared = [
        share for rows in result.rows.values() for row in rows.values() for share in row.others
    ]
    if shared and max(shared) > _SHARED:
        lines.append(
            f"- the proxy's core was shared: others used {median(shared):.0%} of it in the median "
            f"turn, {max(shared):.0%} in the worst; trust the ratios more than the figures"
        )
    return "\n".join(lines)


def comparison(result: Result, earlier: Result) -> str:
    """Our figures against those of an earlier run, beside what the peers did meanwhile."""
    others = [peer for peer in result.measured if peer != OURS and peer in earlier.measured]
    lines = []
    for name in result.rows:
        now, then = result.cost(name, OURS), earlier.cost(name, OURS)
        if now is None or then is None or name not in SCENARIOS:
            continue
        line = [SCENARIOS[name].title, _number(then), _number(now), f"{now / then - 1:+.0%}"]
        for peer in others:
            share, before = result.ratio(name, peer), earlier.ratio(name, peer)
            line.append(f"{before:.2f} → {share:.2f}" if share and before else "")
        lines.append(line)
    return _table(("work", "then", "now", "change", *(f"of {peer}" for peer in others)), lines)


def text(result: Result) -> str:
    """The whole report of a run."""
    machine = ", ".join(f"{key} {value}" for key, value in result.machine.items())
    versions = ", ".join(f"{peer} {version}" for peer, version in result.versions.items())
    options = ", ".join(f"{key} {value:g}" for key, value in result.options.items())
    parts = [f"{result.started}; {options}\n{machine}\n{versions}", costs(result)]
    if OURS in result.measured:
        parts += [ratios(result), goals(result)]
    parts.append(rates(result))
    if found := faults(result):
        parts.append(found)
    return "\n\n".join(parts)


def main(arguments: list[str]) -> None:
    """Print a result file, or what changed since an earlier one."""
    if len(arguments) not in (1, 2):
        raise SystemExit("usage: python -m benchmarks.report RESULT [EARLIER]")
    result = Result.load(Path(arguments[0]))
    print(text(result))
    if len(arguments) == 2:
        print("\n" + comparison(result, Result.load(Path(arguments[1]))))


if __name__ == "__main__":
    main(sys.argv[1:])
