"""Every command and option of `relayd`, as its own --help has them, and every exit code."""

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

import relayd
from manual import comments
from relayd.cli.verbs import app

_PACKAGE = Path(relayd.__file__).parent
#: What click takes for "keep these lines as they are", at the beginning of a paragraph.
_AS_IT_IS = "\b\n"


@dataclass(frozen=True, slots=True)
class Option:
    """`names` with the shortest first, none for an argument; `value` is "" for a switch."""

    names: tuple[str, ...]
    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Command:
    """One verb. Paragraphs of its help; one of code has lines that begin with blanks."""

    name: str
    help: tuple[str, ...]
    options: tuple[Option, ...]


def commands() -> tuple[Command, ...]:
    """In the order of `relayd --help`."""
    group: Any = typer.main.get_command(app)
    return tuple(
        Command(name, _paragraphs(command.help), tuple(map(_option, command.params)))
        for name, command in group.commands.items()
    )


def exit_codes() -> dict[int, str]:
    """What each means, of all commands together."""
    found: dict[int, str] = {}
    for path in (_PACKAGE / "cli" / "exits.py", _PACKAGE / "control" / "main.py"):
        for code, text in comments.of_constants(path, "EXIT_").items():
            found[code] = f"{found[code]} {text}" if code in found else text
    return dict(sorted(found.items()))


def _paragraphs(text: str) -> tuple[str, ...]:
    return tuple(
        each.removeprefix(_AS_IT_IS) if each.startswith(_AS_IT_IS) else " ".join(each.split())
        for each in text.split("\n\n")
    )


def _option(option: Any) -> Option:
    is_argument = option.param_type_name == "argument"
    is_switch = not is_argument and option.is_flag
    meaning = option.help or ""
    if option.default is not None and not is_switch:
        meaning += f" Default: {option.default}."
    if option.envvar:
        meaning += f" {option.envvar} in the environment says the same."
    names = () if is_argument else tuple(sorted(option.opts, key=len))
    return Option(names, "" if is_switch else option.metavar or _choices(option), meaning)


def _choices(option: Any) -> str:
    """The values of an enum, or the option's own name."""
    kind = option.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "|".join(str(each.value) for each in kind)
    return str(option.name).upper()
