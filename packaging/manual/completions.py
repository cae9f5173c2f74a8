"""Completions for shells, as typer makes them: each asks relayd itself what can stand where the cursor is."""

from typer.completion import get_completion_script  # type: ignore[attr-defined]  # where typer's own commands have it

_VARIABLE = "_RELAYD_COMPLETE"


def bash() -> str:
    """The text, ending with a newline."""
    return _script("bash")


def fish() -> str:
    """As `bash`."""
    return _script("fish")


def zsh() -> str:
    """As `bash`."""
    return _script("zsh")


def _script(shell: str) -> str:
    made: str = get_completion_script(prog_name="relayd", complete_var=_VARIABLE, shell=shell)
    return f"{made.rstrip()}\n"
