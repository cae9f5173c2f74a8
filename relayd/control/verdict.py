"""The answer to a reload, to its confirmation and to `plan`: yes or no, what changes, and why not. Pure.

The admin API sends it as JSON (`as_json`), and whoever asked makes it a `Verdict` again (`from_json`).
"""

from typing import Any

from relayd.values import dataclass

__all__ = ["NEEDS_RESTART", "Change", "Verdict"]

#: The effect of what a reload does not do.
NEEDS_RESTART = "needs a restart"
_SIGNS = ("+", "-", "~")


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that a reload does, or that only a restart can do.

    `sign` is "+" for what comes, "-" for what goes, "~" for what becomes different. `listener` None is the daemon.
    `text` says what, and may be empty for a listener that comes or goes; `effect` what that means for live traffic, or
    what else has to be done: "42 connections: drain 30s", "needs a restart", or "".
    """

    sign: str
    listener: str | None
    text: str = ""
    effect: str = ""

    def __str__(self) -> str:
        """`~ listener web: target 10.0.0.2:80 removed (42 connections: drain 30s)`, `+ listener dns`,
        `~ daemon.workers 2 -> 4: needs a restart`.
        """
        if self.listener is None:
            return f"{self.sign} {self.text}" + (f": {self.effect}" if self.effect else "")
        line = f"{self.sign} listener {self.listener}" + (f": {self.text}" if self.text else "")
        return line + (f" ({self.effect})" if self.effect else "")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ok` False: the answer is no, and nothing has changed. Errors and warnings are as `relayd check` prints them, and
    may have several lines each.
    """

    ok: bool
    changes: tuple[Change, ...] = ()
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        changes = [
            {"sign": one.sign, "listener": one.listener, "text": one.text, "effect": one.effect} for one in self.changes
        ]
        return {"ok": self.ok, "changes": changes, "errors": list(self.errors), "warnings": list(self.warnings)}

    @classmethod
    def from_json(cls, value: object) -> "Verdict":
        """`from_json(verdict.as_json()) == verdict`. Raises ValueError for what is no verdict."""
        found = _table(value)
        ok = found.get("ok")
        if not isinstance(ok, bool):
            raise ValueError("no verdict: ok is missing")
        changes = tuple(_change(_table(one)) for one in _list(found.get("changes")))
        errors, warnings = (tuple(map(_text, _list(found.get(key)))) for key in ("errors", "warnings"))
        return cls(ok, changes, errors, warnings)


def _change(found: dict[str, Any]) -> Change:
    sign, listener = found.get("sign"), found.get("listener")
    if sign not in _SIGNS:
        raise ValueError(f"no change: sign {sign!r}")
    return Change(
        sign, None if listener is None else _text(listener), _text(found.get("text")), _text(found.get("effect"))
    )


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"an object is expected, not {value!r:.80}")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"a list is expected, not {value!r:.80}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a string is expected, not {value!r:.80}")
    return value
