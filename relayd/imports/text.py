"""Text of other relays' configurations, on its way into messages and values."""

from collections.abc import Sequence

from relayd.config.problems import printable

#: Of a line, what a message shows: enough to find it by.
SHOWN_CHARACTERS = 100


def lines(text: str) -> list[str]:
    """The lines of a file, without their ends. Not `splitlines`: that would cut at form feeds and the like, and the
    numbers of the lines would not be those of an editor.
    """
    return text.replace("\r\n", "\n").split("\n")


def shown(text: str) -> str:
    """`text` on one line, harmless to a terminal, and not too long."""
    flat = printable(" ".join(text[: 4 * SHOWN_CHARACTERS].split()))
    return flat if len(flat) <= SHOWN_CHARACTERS else flat[:SHOWN_CHARACTERS] + "…"


def joined(words: Sequence[str]) -> str:
    """Words of a line, with blanks between them."""
    return " ".join(words)


def host_and_port(host: str, port: str) -> str:
    """An address as relay.toml has it: an IPv6 address gets its brackets. No port is no colon."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    written = f"[{bare}]" if ":" in bare else bare
    return f"{written}:{port}" if port else written


def number(text: str, least: int, most: int) -> int | None:
    """`text` as a number from `least` to `most`; None when it is none."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        return None
    return int(text) if least <= int(text) <= most else None
