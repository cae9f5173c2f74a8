"""Samples as Markdown tables: medians, and the range they came from."""

from collections.abc import Sequence
from statistics import median

from bench.cases import Case, Column
from bench.rounds import NONE, Sample

_MODE = {"quiet": "logs off", "logs": "a log line for each connection"}


def values(samples: Sequence[Sample], mode: str, case: str, relay: str, key: str) -> list[float]:
    """One figure of one relay, a value for each round that gave one."""
    return [
        sample.figures[key]
        for sample in samples
        if (sample.mode, sample.case, sample.relay) == (mode, case, relay) and key in sample.figures
    ]


def relay_order(samples: Sequence[Sample], modes: Sequence[str], case: str) -> list[str]:
    """The relays that a case was run on: relayd first, the others by name, no relay last."""
    relays = {sample.relay for sample in samples if sample.mode in modes and sample.case == case}
    return sorted(relays, key=lambda name: (name == NONE, name != "relayd", name))


def _cell(found: list[float], column: Column) -> str:
    if not found:
        return ""
    middle, low, high = (f"{value:,.{column.digits}f}" for value in (median(found), min(found), max(found)))
    return middle if low == high else f"{middle} ({low}–{high})"


def table(samples: Sequence[Sample], mode: str, case: Case) -> str:
    """The table of one case in one mode: median (min–max) over the rounds, a row for each relay."""
    taken = [sample.figures for sample in samples if (sample.mode, sample.case) == (mode, case.name)]
    columns = [column for column in case.columns if any(column.key in figures for figures in taken)]
    lines = [
        f"### {case.title}, {_MODE[mode]}",
        "",
        "| relay | " + " | ".join(column.heading for column in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for relay in relay_order(samples, [mode], case.name):
        cells = [_cell(values(samples, mode, case.name, relay, column.key), column) for column in columns]
        lines.append(f"| {relay} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def tables(samples: Sequence[Sample], modes: Sequence[str], cases: Sequence[Case]) -> str:
    """All tables, and under them what failed."""
    parts = [table(samples, mode, case) for case in cases for mode in modes]
    errors = dict.fromkeys(f"- {s.relay}, {s.case}, {s.mode}: {s.error}" for s in samples if s.error is not None)
    if errors:
        parts.append("\n".join(["### Failed", "", *errors]) + "\n")
    return "\n".join(parts)


def head(machine: dict[str, str], versions: dict[str, str], settings: dict[str, object]) -> str:
    """What the tables were taken on and with."""
    lines = ["## Benchmark", "", "| | |", "|---|---|"]
    for name, value in [*machine.items(), *versions.items(), *settings.items()]:
        shown = ", ".join(str(part) for part in value) if isinstance(value, list) else value
        lines.append(f"| {name} | {shown} |")
    return "\n".join(lines) + "\n"
