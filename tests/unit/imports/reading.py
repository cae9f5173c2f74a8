"""What tests of imports say about them."""

from collections.abc import Callable
from pathlib import Path

from relayd.config import ConfigError, Problem, load
from relayd.imports.draft import Draft, Imported, Leftover, Place
from relayd.imports.rendering import to_toml

Parse = Callable[[str], Imported]


def services(name: str, proto: str) -> int | None:
    """services(5), as far as tests need it."""
    return {("http", "tcp"): 80, ("domain", "udp"): 53, ("domain", "tcp"): 53}.get((name, proto))


def problems_in(directory: Path) -> Callable[[str], tuple[Problem, ...]]:
    """What the loader says of a text, which is written to `directory`."""

    def problems_of(toml: str) -> tuple[Problem, ...]:
        path = directory / "relay.toml"
        path.write_text(toml)
        try:
            load(path)
        except ConfigError as error:
            return error.problems
        return ()

    return problems_of


def only(imported: Imported) -> Draft:
    """The one listener."""
    assert len(imported.drafts) == 1, imported
    return imported.drafts[0]


def target(place: Place) -> str:
    """An address, and what there is of its share."""
    weight = f" weight {place.weight}" if place.weight != 1 else ""
    return place.text + weight + " backup" * place.backup


def keys(draft: Draft) -> dict[str, object]:
    """Everything that stands in its table."""
    found: dict[str, object] = {
        "bind": [place.text for place in draft.binds],
        "targets": [target(place) for place in draft.targets],
    }
    if draft.types != ("stream",):
        found["type"] = list(draft.types)
    return found | {key: setting.value for key, setting in draft.settings.items()}


def told(imported: Imported) -> list[tuple[int, str]]:
    """Lines and texts of what was not carried over."""
    return [(one.line, one.text) for one in imported.leftovers]


def reason(imported: Imported, text: str) -> str:
    """Why the leftover `text` is one."""
    found = [one for one in imported.leftovers if one.text == text]
    assert found, imported.leftovers
    return found[0].reason


def opening(imported: Imported) -> list[Leftover]:
    """Leftovers that kept somebody out."""
    return [one for one in imported.leftovers if one.opens]


def toml(imported: Imported, file: str = "file") -> str:
    """As it is printed."""
    return to_toml(imported, file)
