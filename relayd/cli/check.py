"""What `relayd check` says about a configuration that loads, for people and as JSON. Pure."""

from typing import Any

from relayd.config import Problem
from relayd.spec import Listener, Spec
from relayd.spec.budget import Budget


def table(spec: Spec) -> str:
    """One line for each listener: name, type, binds -> targets; columns aligned."""
    rows = [(listener.name, "stream", _binds(listener), _targets(listener)) for listener in spec.listeners]
    name_width = max((len(row[0]) for row in rows), default=0)
    return "".join(f"{name:<{name_width}}  {kind}  {binds} -> {targets}\n" for name, kind, binds, targets in rows)


def budget_lines(spec: Spec, budget: Budget) -> str:
    """What the limit on open files of a worker is spent on, and how many workers there will be."""
    workers = f"{spec.workers} worker{'s' if spec.workers != 1 else ''}"
    return f"{workers}; {budget}\n"


def too_few_descriptors(file: str, budget: Budget) -> Problem:
    """The error of a machine whose limit leaves nothing for connections."""
    message = f"the limit of {budget.nofile} open files (RLIMIT_NOFILE) leaves none for connections"
    return Problem(file, 0, 0, "", message, "", "help: raise LimitNOFILE= of the unit, or ulimit -n")


def as_json(spec: Spec | None, budget: Budget | None, errors: list[Problem], warnings: list[Problem]) -> dict[str, Any]:
    """Everything that `check` found. `listeners` and `budget` are null when the configuration cannot be used."""
    return {
        "ok": not errors,
        "workers": spec.workers if spec else None,
        "listeners": [_listener_json(listener) for listener in spec.listeners] if spec else None,
        "budget": {
            "nofile": budget.nofile,
            "listening": budget.listening,
            "pipes": budget.pipes,
            "connections_per_worker": budget.connections,
        }
        if budget
        else None,
        "errors": [_problem_json(problem) for problem in errors],
        "warnings": [_problem_json(problem) for problem in warnings],
    }


def _listener_json(listener: Listener) -> dict[str, Any]:
    return {
        "name": listener.name,
        "type": "stream",
        "binds": [str(address) for address in listener.binds],
        "targets": [str(target.address) for target in listener.targets],
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


def _binds(listener: Listener) -> str:
    return ", ".join(str(address) for address in listener.binds)


def _targets(listener: Listener) -> str:
    return ", ".join(str(target.address) for target in listener.targets)
