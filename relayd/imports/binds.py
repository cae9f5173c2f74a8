"""Which binds can stand in one `[listeners.NAME]`: options are a listener's here, and a bind's elsewhere. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import field, replace

from relayd.imports.draft import Place, Setting
from relayd.values import dataclass

STREAM, DGRAM = "stream", "dgram"


@dataclass(frozen=True, slots=True)
class BindLine:
    """One address to listen at. `options` has every key that it can have a say in; None where it is at its default."""

    place: Place
    type: str
    options: dict[str, Setting | None]


@dataclass(slots=True)
class Group:
    """Binds of one listener, and the keys that they all go with."""

    types: tuple[str, ...]
    places: list[Place] = field(default_factory=list)
    options: dict[str, Setting | None] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Setting]:
        """The keys that are not at their default."""
        return {key: setting for key, setting in self.options.items() if setting is not None}

    def goes_with(self, options: dict[str, Setting | None]) -> bool:
        """True when no key that both have a say in would have two values."""
        return all(
            _value(self.options[key]) == _value(setting) for key, setting in options.items() if key in self.options
        )


def grouped(binds: Sequence[BindLine]) -> list[Group]:
    """`binds` in as few listeners as their options allow, in their order. The same addresses for streams and for
    datagrams are one listener.
    """
    groups: list[Group] = []
    for bind in _apart(binds):
        group = next((one for one in groups if one.types == (bind.type,) and one.goes_with(bind.options)), None)
        if group is None:
            group = Group((bind.type,))
            groups.append(group)
        group.places.append(bind.place)
        group.options.update(bind.options)
    return _both_types(groups)


def _apart(binds: Sequence[BindLine]) -> Iterator[BindLine]:
    """`binds`, those of [::] without IPv4 where 0.0.0.0 has the port: there, SO_REUSEPORT lets both be bound."""
    every_ipv4 = {(bind.type, bind.place.text) for bind in binds}
    for bind in binds:
        port = bind.place.text.removeprefix("[::]:")
        if (bind.type, f"0.0.0.0:{port}") in every_ipv4 and port != bind.place.text:
            only = bind.options.get("ipv6_only") or Setting(True, bind.place.line)
            yield replace(bind, options={**bind.options, "ipv6_only": only})
        else:
            yield bind


def _both_types(groups: list[Group]) -> list[Group]:
    for streams in [group for group in groups if group.types == (STREAM,)]:
        addresses = [place.text for place in streams.places]
        for datagrams in [group for group in groups if group.types == (DGRAM,)]:
            same = [place.text for place in datagrams.places] == addresses
            if (
                same
                and not any(text.startswith("unix:/") for text in addresses)
                and streams.goes_with(datagrams.options)
            ):
                groups.remove(datagrams)
                streams.types = (STREAM, DGRAM)
                streams.options.update(datagrams.options)
                break
    return groups


def _value(setting: Setting | None) -> object:
    return None if setting is None else setting.value
