"""`bench/run`, `python -m bench`: argv to one interleaved run, its tables, files and, with --check, its verdict."""

import argparse
import json
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench import report
from bench.budget import judge
from bench.cases import CASES
from bench.machine import describe
from bench.machine import versions as describe_versions
from bench.plot import plot
from bench.relays import OBSERVED, RELAYS, Relay
from bench.rounds import MODES, Plan, Sample, run

_RESULTS = Path(__file__).parent / "results"
_ROUNDS, _SECONDS = 5, 2.0
_QUICK_ROUNDS, _QUICK_SECONDS = 3, 1.0


def _names(known: Sequence[str]) -> "type[list[str]]":
    class Names(list[str]):
        def __init__(self, text: str) -> None:
            super().__init__(text.split(","))
            if unknown := [name for name in self if name not in known]:
                raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(known)}")

    return Names


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """`argv` None: of this process. Ends it where they are wrong."""
    parser = argparse.ArgumentParser(prog="bench/run", description="Run relayd beside other relays and compare.")
    relays, cases = [relay.name for relay in RELAYS], [case.name for case in CASES]
    known = [*relays, *(relay.name for relay in OBSERVED)]
    parser.add_argument("--relays", type=_names(known), default=relays, help=f"of {','.join(known)}")
    parser.add_argument("--cases", type=_names(cases), default=cases, help=f"of {','.join(cases)}")
    parser.add_argument("--modes", type=_names(MODES), default=list(MODES), help=f"of {','.join(MODES)}")
    parser.add_argument("--rounds", type=int, help=f"interleaved rounds (default {_ROUNDS})")
    parser.add_argument("--seconds", type=float, help=f"of load for each sample (default {_SECONDS:g})")
    quick = f"{_QUICK_ROUNDS} rounds of {_QUICK_SECONDS:g} s, unless --rounds and --seconds say otherwise"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--check", action="store_true", help="compare with the budgets; exit 1 when one is not held")
    return parser.parse_args(argv)


def _installed(names: Sequence[str]) -> list[tuple[Relay, str]]:
    found: list[tuple[Relay, str]] = []
    for relay in (*RELAYS, *OBSERVED):
        if relay.name not in names:
            continue
        path = relay.path()
        if path is None:
            way = f"apt-get install {relay.package}" if relay.package else "uv sync"
            print(f"left out: {relay.name} is not installed ({way})", file=sys.stderr)
        else:
            found.append((relay, path))
    return found


def _progress(sample: Sample) -> None:
    said = sample.error or "  ".join(f"{key} {value:.4g}" for key, value in sample.figures.items())
    print(f"round {sample.round + 1}  {sample.mode:5}  {sample.case:12}  {sample.relay:14} {said}", file=sys.stderr)


def _save(samples: list[Sample], plan: Plan, settings: dict[str, object], machine: dict[str, str]) -> str:
    """Write results/TIME.{json,md,png}; the Markdown."""
    versions = describe_versions(plan.relays)
    text = report.head(machine, versions, settings) + "\n" + report.tables(samples, plan.modes, plan.cases)
    _RESULTS.mkdir(exist_ok=True)
    stem = _RESULTS / time.strftime("%Y%m%d-%H%M%S")
    raw = {
        "machine": machine,
        "versions": versions,
        "settings": settings,
        "samples": [asdict(sample) for sample in samples],
    }
    stem.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text)
    subtitle = f"{machine['cpu']}, {machine['usable cores']} cores, {machine['kernel'].split()[1]}"
    plotted = plot(samples, plan.modes, plan.cases, stem.with_suffix(".png"), subtitle)
    written = "json,md,png" if plotted else "json,md"
    print(f"written: {stem}.{{{written}}}", file=sys.stderr)
    if not plotted:
        print("no plot: matplotlib is not installed (uv sync --group bench)", file=sys.stderr)
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 when every sample was taken and, with --check, every budget held, else 1."""
    options = arguments(argv)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))  # so that every `with` ends its process
    cases = [case for case in CASES if case.name in options.cases]
    modes = [mode for mode in MODES if mode in options.modes]
    seconds = options.seconds or (_QUICK_SECONDS if options.quick else _SECONDS)
    rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    plan = Plan(_installed(options.relays), cases, modes, rounds, seconds)
    machine = describe()
    samples: list[Sample] = []
    try:
        for sample in run(plan):
            _progress(sample)
            samples.append(sample)
    except KeyboardInterrupt:
        print("interrupted: nothing written", file=sys.stderr)
        return 130
    settings: dict[str, object] = {"rounds": rounds, "seconds": seconds, "modes": modes, "cases": options.cases}
    print(_save(samples, plan, settings, machine))
    failed = any(sample.error for sample in samples)
    if options.check:
        verdicts = judge(samples, modes, options.cases, options.relays)
        print("\n".join(["## Budgets", "", *(str(verdict) for verdict in verdicts)]))
        failed = failed or not all(verdict.held for verdict in verdicts)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
