"""`relayd.values.dataclass` makes what `dataclasses.dataclass` makes."""

import dataclasses
import inspect
import typing
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import pytest

from relayd import values

T = TypeVar("T")


class Plain:
    """With a docstring."""

    whole: int
    text: str
    many: tuple["Plain", ...] = ()
    secret: str = field(default="", repr=False)
    aside: float = field(default=0.5, compare=False)
    names: list[str] = field(default_factory=list, hash=False, compare=False)


class Nothing:
    pass


class One(Generic[T]):
    it: T


class Counted:
    begun: int
    ended: int = 0

    def __post_init__(self) -> None:
        if self.begun < self.ended:
            raise ValueError("ended before it began")

    @property
    def active(self) -> int:
        return self.begun - self.ended


def both(source: type[Any], **options: Any) -> tuple[type[Any], type[Any]]:
    """The standard library's, and ours, of a copy of `source` each: a class with slots is a new one."""

    return dataclass(slots=True, **options)(copy(source)), values.dataclass(slots=True, **options)(copy(source))


def copy(source: type[Any]) -> type[Any]:
    kept = {name: value for name, value in vars(source).items() if name not in ("__dict__", "__weakref__")}
    return type(source.__name__, source.__bases__, kept)


SOURCES = (Plain, Nothing, One, Counted)
KINDS: tuple[dict[str, bool], ...] = ({"frozen": True}, {}, {"eq": False}, {"frozen": True, "eq": False})
ARGUMENTS: dict[type, list[tuple[Any, ...]]] = {
    Plain: [(1, "a"), (1, "b"), (1, "a", (), "hidden", 2.0, ["x"]), (1, "a", ("deep", 1), "", 0.5), (2, "a")],
    Nothing: [()],
    One: [(1,), ("one",), ((1,),)],
    Counted: [(1,), (1, 1), (3, 1)],
}


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_values_are_made_shown_compared_and_hashed_alike(source: type[Any], options: dict[str, bool]) -> None:
    theirs, ours = both(source, **options)
    made = [(theirs(*each), ours(*each)) for each in ARGUMENTS[source]]
    again = [(theirs(*each), ours(*each)) for each in ARGUMENTS[source]]
    for number, (their, our) in enumerate(made):
        assert repr(our) == repr(their)
        assert dataclasses.asdict(our) == dataclasses.asdict(their)
        assert not hasattr(our, "__dict__")
        assert our != their
        for other_number in range(len(made)):
            their_other, our_other = again[other_number]
            assert (our == our_other) == (their == their_other), (number, other_number)
            if theirs.__hash__ is not None and their == their_other:
                assert hash(our) == hash(our_other)
    assert (ours.__hash__ is None) == (theirs.__hash__ is None)


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_classes_have_the_same_fields_and_signature(source: type[Any], options: dict[str, bool]) -> None:
    theirs, ours = both(source, **options)
    assert [(each.name, each.type, each.default) for each in dataclasses.fields(ours)] == [
        (each.name, each.type, each.default) for each in dataclasses.fields(theirs)
    ]
    assert (ours.__slots__, ours.__match_args__) == (theirs.__slots__, theirs.__match_args__)
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    assert typing.get_type_hints(ours.__init__) == typing.get_type_hints(theirs.__init__)
    assert ours.__init__.__qualname__ == theirs.__init__.__qualname__
    assert (source.__doc__ is None) or ours.__doc__ == source.__doc__


def test_by_name_replaced_and_matched() -> None:
    _, ours = both(Plain, frozen=True)
    value = ours(text="a", whole=1, aside=2.0)
    assert dataclasses.replace(value, text="b") == ours(1, "b")
    assert dataclasses.replace(value, text="b").aside == 2.0
    match value:
        case ours(whole, text):
            assert (whole, text) == (1, "a")
        case _:
            pytest.fail("did not match")
    assert ours(1, "a").names is not ours(1, "a").names
    with pytest.raises(TypeError, match=r"Plain\.__init__\(\) missing 1 required positional argument: 'text'"):
        ours(1)


def test_frozen_ones_refuse_as_the_others_do() -> None:
    for cls in both(Plain, frozen=True):
        value = cls(1, "a")
        with pytest.raises(dataclasses.FrozenInstanceError, match=r"^cannot assign to field 'whole'$"):
            value.whole = 2
        with pytest.raises(dataclasses.FrozenInstanceError, match=r"^cannot delete field 'whole'$"):
            del value.whole
        assert value.whole == 1


def test_others_can_be_changed_and_have_no_hash() -> None:
    for cls in both(Plain):
        value = cls(1, "a")
        value.whole = 2
        assert value == cls(2, "a")
        with pytest.raises(TypeError, match="unhashable"):
            hash(value)


def test_what_follows_the_constructor_may_refuse() -> None:
    for cls in both(Counted, frozen=True):
        assert cls(3, 1).active == 2
        with pytest.raises(ValueError, match="before it began"):
            cls(1, 2)


class WithClassVar:
    shared: typing.ClassVar[int] = 0
    own: int = 1


class WithInitVar:
    given: dataclasses.InitVar[int]
    own: int = 1


class OutOfConstructor:
    own: int = field(default=1, init=False)


class ByNameOnly:
    own: int = field(default=1, kw_only=True)


class NotHashed:
    own: int = field(default=1, hash=False)


class Shown:
    own: int = 1

    def __repr__(self) -> str:
        return "***"


class Changeable:
    own: int = 1

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


class Derived(values.dataclass(frozen=True, slots=True)(copy(One))):  # type: ignore[misc]  # mypy cannot know the base
    own: int = 1


@pytest.mark.parametrize(
    "source", [WithClassVar, WithInitVar, OutOfConstructor, ByNameOnly, NotHashed, Shown, Changeable, Derived]
)
def test_what_it_cannot_do_it_refuses(source: type) -> None:
    make: Any = values.dataclass
    with pytest.raises(TypeError, match=f"^{source.__name__}: use the dataclass of the standard library$"):
        make(slots=True)(copy(source))


def test_slots_have_to_be() -> None:
    make: Any = values.dataclass
    with pytest.raises(TypeError, match=r"^slots=True is all there is$"):
        make(slots=False)
