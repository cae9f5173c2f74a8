"""The plot: for each case, one bar for each relay and mode, with the range of its rounds. Needs matplotlib."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.cases import Case
from bench.report import relay_order, values
from bench.rounds import Sample

_COLOUR = {"quiet": "#4878a8", "logs": "#e0a458"}
_COLUMNS = 2
_SUBJECT_EDGE = "#202020"


def _draw(axes: Any, samples: Sequence[Sample], modes: Sequence[str], case: Case) -> None:
    heading = next(column.heading for column in case.columns if column.key == case.worth)
    relays = [
        relay
        for relay in relay_order(samples, modes, case.name)
        if any(values(samples, mode, case.name, relay, case.worth) for mode in modes)
    ]
    height = 0.8 / len(modes)
    for shift, mode in enumerate(modes):
        for row, relay in enumerate(relays):
            found = values(samples, mode, case.name, relay, case.worth)
            if found:
                middle = median(found)
                axes.barh(
                    row + shift * height,
                    middle,
                    height,
                    color=_COLOUR[mode],
                    edgecolor=_SUBJECT_EDGE if relay == "relayd" else "none",
                    xerr=[[middle - min(found)], [max(found) - middle]],
                    error_kw={"elinewidth": 0.8},
                    label=mode if row == 0 else None,
                )
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(relays))], relays)
    axes.invert_yaxis()
    axes.set_title(case.title, fontsize=9)
    axes.set_xlabel(heading, fontsize=8)
    axes.tick_params(labelsize=8)


def plot(samples: Sequence[Sample], modes: Sequence[str], cases: Sequence[Case], path: Path, subtitle: str) -> bool:
    """Write the plot to `path`; False, and nothing written, where matplotlib is not installed."""
    try:
        figures: Any = importlib.import_module("matplotlib.figure")
        patches: Any = importlib.import_module("matplotlib.patches")
    except ImportError:
        return False
    rows = -(-len(cases) // _COLUMNS)
    figure = figures.Figure(figsize=(11, 0.9 + 2.6 * rows), layout="constrained")
    for position, case in enumerate(cases):
        _draw(figure.add_subplot(rows, _COLUMNS, position + 1), samples, modes, case)
    said = {"quiet": "logs off", "logs": "a log line for each connection"}
    handles = [patches.Patch(color=_COLOUR[mode], label=said[mode]) for mode in modes]
    figure.legend(handles=handles, loc="outside lower right", fontsize=8, ncols=len(modes))
    figure.suptitle(f"relayd beside other relays: medians and ranges\n{subtitle}", fontsize=10)
    figure.savefig(path, dpi=130)
    return True
