"""Values of a health_check, made of what other relays send and expect. Pure."""

from collections.abc import Callable

from relayd.imports.draft import Value


def text_or_hex(data: bytes) -> Value:
    """`data` as a health_check has it: as text where it is some."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"hex": data.hex()}
    readable = all(character.isprintable() or character in "\r\n\t" for character in text)
    return text if readable else {"hex": data.hex()}


def takes(check: Callable[[object], object], value: object) -> bool:
    """True where relayd's own loader, of which `check` is a part, would take `value`."""
    try:
        check(value)
    except ValueError:
        return False
    return True
