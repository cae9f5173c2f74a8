"""What `relayd check` says about a configuration that loads, for people and as JSON. Pure."""

from collections.abc import Sequence
from typing import Any

from relayd.address import SystemdAddress
from relayd.config import Problem
from relayd.config.ports import target_text
from relayd.spec import Listener, Spec
from relayd.spec.budget import Budget, ControlBudget, budget_of, control_budget, shortages


def table(spec: Spec) -> str:
    """One line for each listener: name, types, binds -> targets; columns aligned."""
    rows = [(one.name, "+".join(_types(one)), _binds(one), _targets(one)) for one in spec.listeners]
    names, types = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    return "".join(
        f"{row[0]:<{names}}  {row[1]:<{types}}  {', '.join(row[2])} -> {', '.join(row[3])}\n" for row in rows
    )


def passed_line(spec: Spec) -> str:
    """What is to be said of the binds that systemd makes; "" where there are none."""
    binds = [bind for listener in spec.listeners for bind in listener.binds if isinstance(bind.address, SystemdAddress)]
    names = ", ".join(dict.fromkeys(map(str, binds)))
    what = "systemd makes the sockets, and passes them at the start; counted as one of each type"
    return f"{names}: {what}\n" if names else ""


def budget_lines(spec: Spec, nofile: int) -> str:
    """What a limit of `nofile` open files in each process is spent on, and how many workers there will be."""
    workers = f"{spec.workers} worker{'s' if spec.workers != 1 else ''}"
    return f"{workers}; {budget_of(spec, nofile)}\n{control_budget(nofile, spec)}\n"


def too_few_descriptors(file: str, spec: Spec, nofile: int) -> list[Problem]:
    """The errors of a machine whose limit on open files is too low for `spec`."""
    help_text = "help: raise the hard limit (LimitNOFILE= of the unit, ulimit -Hn in a shell), or bind fewer addresses"
    return [Problem(file, 0, 0, "", shortage, "", help_text) for shortage in shortages(nofile, spec)]


def as_json(spec: Spec | None, nofile: int, errors: Sequence[Problem], warnings: Sequence[Problem]) -> dict[str, Any]:
    """Everything that `check` found. `listeners` and `budget` are null when the configuration cannot be used."""
    return {
        "ok": not errors,
        "workers": spec.workers if spec else None,
        "listeners": [_listener_json(listener) for listener in spec.listeners] if spec else None,
        "budget": _budget_json(budget_of(spec, nofile), control_budget(nofile, spec)) if spec else None,
        "errors": [_problem_json(problem) for problem in errors],
        "warnings": [_problem_json(problem) for problem in warnings],
    }


def _budget_json(worker: Budget, control: ControlBudget) -> dict[str, int]:
    return {
        "nofile": worker.nofile,
        "listening": worker.listening,
        "pipes": worker.pipes,
        "connections_per_worker": worker.connections,
        "sessions_per_worker": worker.sessions,
        "control_needs": control.needed,
    }


def _listener_json(listener: Listener) -> dict[str, Any]:
    return {
        "name": listener.name,
        "types": _types(listener),
        "binds": _binds(listener),
        "targets": _targets(listener),
    }


def _problem_json(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.file,
        "line": problem.line or None,
        "column": problem.column or None,
        "key": problem.key,
        "message": problem.message,
        "suggestion": problem.suggestion,
    }


def _types(listener: Listener) -> list[str]:
    served = (("stream", listener.stream), ("dgram", listener.datagram))
    return [name for name, how in served if how is not None]


def _binds(listener: Listener) -> list[str]:
    return [str(bind) for bind in listener.binds]


def _targets(listener: Listener) -> list[str]:
    ports = max((bind.ports for bind in listener.binds), default=1)
    return [target_text(target, ports) for target in listener.targets]
