"""Results for people: a table on the terminal, and the README's in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from painn_fast.bench.results import Report, Result
from painn_fast.bench.run import SIDES

TITLES = {side.name: side.title for side in SIDES}
WHAT = {
    "forward": "energy",
    "energy_forces": "energy, forces",
    "evaluate": "evaluate()",
    "calculator": "ASE calculator",
    "training_step": "training step",
    "training_energy": "training step, energies",
    "simulator_step": "step of SchNetPack's simulator",
    "properties": "energy, forces, dipole, polarizability",
}
OURS, RIVALS = "fused", ("reference", "schnetpack")
MANY = 4

Group = dict[str, Result]
"""Results of one case and mode by side."""


def groups(report: Report) -> Iterator[Group]:
    """Results that were measured together."""
    found: dict[tuple[str, str], Group] = {}
    for result in report.results:
        found.setdefault((result.case, result.mode), {})[result.side] = result
    yield from found.values()


def speedup(group: Group, side: str, over: str) -> float | None:
    """How many times faster `side` is than `over`: median of the ratios within each round, if they shared rounds."""
    fast, slow = group.get(side), group.get(over)
    if fast is None or slow is None or not fast.times or len(fast.times) != len(slow.times):
        return None
    return statistics.median(b / a for a, b in zip(fast.times, slow.times, strict=True))


def markdown(reports: Iterable[Report]) -> str:
    """One table a machine; a cell is the median in ms."""
    return "\n".join("\n".join(_one(report)) for report in reports)


def _one(report: Report) -> Iterator[str]:
    measured = list(groups(report))
    sides = list(dict.fromkeys(result.side for result in report.results))
    rivals = [name for name in RIVALS if any(speedup(group, OURS, name) for group in measured)]
    head = ["case", "atoms", "time in ms of", *map(title, sides)]
    head += [f"{title(name)} / {title(OURS)}" for name in rivals] + [f"{title(OURS)} / floor"]
    yield machine_line(report)
    yield ""
    yield _row(head)
    yield _row(["---", "---:", "---", *(["---:"] * (len(head) - 3))])
    for group in measured:
        first = next(iter(group.values()))
        cells = [first.case, f"{first.atoms:,}", WHAT.get(first.mode, first.mode)]
        cells += [_cell(group.get(name)) for name in sides]
        cells += [_factor(speedup(group, OURS, name)) for name in rivals]
        yield _row([*cells, _factor(over_floor(group.get(OURS)))])
    yield ""


def machine_line(report: Report) -> str:
    """What ran where, in one line."""
    machine, versions = report.machine, report.versions
    place = machine.gpu or f"{machine.cpu}, {machine.threads} threads"
    commit = f" at {report.commit[:7]}{'+' * report.commit.endswith('+')}" if report.commit else ""
    others = [f"{title(name)} {versions[key]}" for name, key in PEERS.items() if versions.get(key)]
    mine = f"painn-fast {versions['painn-fast']}{commit}"
    return "; ".join([f"{place}: {mine}", f"torch {versions['torch']}", *others, report.date[:10]])


PEERS = {"schnetpack": "schnetpack", "dimenet": "torch_geometric"}
"""Side to the package that it comes from."""


def terminal(report: Report) -> Table:
    """Every result, with its spread, memory and error."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("case", "mode", "side"):
        table.add_column(name, no_wrap=True)
    for name in ("ms", "IQR", "/ floor", "reference /", "MB", "error"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in groups(report):
        for result in group.values():
            cells = [result.case, result.mode, title(result.side), _cell(result)]
            if result.times:
                worst = max((error for error in result.errors.values() if error is not None), default=None)
                cells += [milliseconds(result.iqr), _factor(over_floor(result))]
                cells += [_factor(speedup(group, result.side, "reference"))]
                cells += [
                    "" if result.memory is None else f"{result.memory / 1e6:.1f}",
                    "" if worst is None else f"{worst:.0e}",
                ]
            table.add_row(*cells)
        table.add_section()
    return table


def notes(report: Report) -> list[str]:
    """Why sides have no time, each reason once."""
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for result in report.results:
        if result.reason is not None:
            key = title(result.side), result.status, result.reason
            reasons.setdefault(key, []).append(f"{result.case} {result.mode}")
    return [
        f"{side} {status}: {reason} ({', '.join(cases) if len(cases) < MANY else f'{len(cases)} times'})"
        for (side, status, reason), cases in reasons.items()
    ]


def title(side: str) -> str:
    """A side's name for people."""
    return TITLES.get(side, side)


def over_floor(result: Result | None) -> float | None:
    """Its time relative to that of the matrix products alone."""
    if result is None or result.median is None or not result.floor:
        return None
    return result.median / result.floor


def milliseconds(seconds: float | None) -> str:
    """Three digits or so."""
    if seconds is None:
        return ""
    ms = 1e3 * seconds
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}" if ms >= 1 else f"{ms:.3f}"


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    return {"ok": milliseconds(result.median), "wrong": "wrong", "not available": "–"}[result.status]


def _factor(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
