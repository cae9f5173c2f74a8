"""`dataclass` for classes that a start waits for: as the standard library's, and made in a quarter of the time.

The standard library compiles each method of each class while its module is imported: six of them, 0.4 ms a frozen
class. For the hundred classes that a process of this package has, that was more than a third of its start, and after a
restart clients wait for three processes. Here one method is compiled, the constructor, which is a third quicker to call
as well. The others are functions over an `attrgetter`: to compare or to hash a value takes a tenth of a microsecond
more, to show it twice as long.
"""

import dataclasses
import sys
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

__all__ = ["dataclass"]

_Class = TypeVar("_Class", bound=type[Any])
_MADE = frozenset({"__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__"})


def _dataclass(*, slots: bool, frozen: bool = False, eq: bool = True) -> Callable[[_Class], _Class]:
    """As `dataclasses.dataclass` with these arguments: the class has the same fields, constructor, methods and errors,
    and goes with `fields`, `replace`, `asdict` and `match`.

    Only what this package uses. Raises TypeError without slots; for a class that is built on another dataclass, or has
    one of the methods itself; for ClassVar and InitVar; for fields that the constructor does not take, or takes by name
    alone, or that are hashed and not compared, or the reverse. Frozen ones can be neither pickled nor copied, nor be
    inside a set that `asdict` copies.
    """
    if not slots:
        raise TypeError("slots=True is all there is")

    def made(cls: _Class) -> _Class:
        if cls.__doc__ is None:  # `dataclasses` would have `inspect` make one
            cls.__doc__ = cls.__name__
        if hasattr(cls, "__dataclass_fields__") or not _MADE.isdisjoint(vars(cls)):
            raise _unusual(cls)
        new: Any = dataclasses.dataclass(slots=True, init=False, repr=False, eq=False)(cls)
        fields = dataclasses.fields(new)
        if len(fields) < len(new.__dataclass_fields__) or not all(map(_usual, fields)):
            raise _unusual(cls)
        new.__init__ = _constructor(new, fields, frozen=frozen)
        new.__repr__ = _representation([each.name for each in fields if each.repr])
        if eq:
            key = _key([each.name for each in fields if each.compare])
            new.__eq__, new.__hash__ = _equality(key), _hash(key) if frozen else None
        if frozen:
            new.__setattr__, new.__delattr__ = _refuse_to_set, _refuse_to_delete
        same: _Class = new  # but for its slots
        return same

    return made


def _usual(field: Any) -> bool:
    return field.init and not field.kw_only and field.hash in (None, field.compare)


def _unusual(cls: type[Any]) -> TypeError:
    return TypeError(f"{cls.__qualname__}: use the dataclass of the standard library")


def _constructor(cls: type[Any], fields: tuple[Any, ...], *, frozen: bool) -> Callable[..., None]:
    """`__init__`. It sets the fields of a frozen class by way of their slots, which know nothing of that."""
    given: dict[str, Any] = {}
    parameters, lines = ["self"], []
    for field in fields:
        name = value = field.name
        if field.default is not dataclasses.MISSING:
            given[f"_default_{name}"] = field.default
            parameters.append(f"{name}=_default_{name}")
        elif field.default_factory is not dataclasses.MISSING:
            given[f"_make_{name}"], given["_missing"] = field.default_factory, dataclasses.MISSING
            parameters.append(f"{name}=_missing")
            value = f"_make_{name}() if {name} is _missing else {name}"
        else:
            parameters.append(name)
        if frozen:
            given[f"_set_{name}"] = getattr(cls, name).__set__
            lines.append(f"_set_{name}(self, {value})")
        else:
            lines.append(f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    body = "; ".join(lines) or "pass"
    source = f"def _({', '.join(given)}):\n def __init__({', '.join(parameters)}): {body}\n return __init__"
    scope: dict[str, Any] = {}
    exec(source, vars(sys.modules[cls.__module__]), scope)  # noqa: S102  # names of our own fields; as `dataclasses` does
    init: Callable[..., None] = scope["_"](**given)
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = {**{field.name: field.type for field in fields}, "return": None}
    return init


def _key(names: list[str]) -> Callable[[Any], Any]:
    """A function of a value that returns what it is compared and hashed by."""
    return attrgetter(*names) if names else lambda _: ()


def _equality(key: Callable[[Any], Any]) -> Callable[[Any, object], Any]:
    def equal(self: Any, other: object) -> Any:
        return key(self) == key(other) if other.__class__ is self.__class__ else NotImplemented

    return equal


def _hash(key: Callable[[Any], Any]) -> Callable[[Any], int]:
    def hashed(self: Any) -> int:
        return hash(key(self))

    return hashed


def _representation(names: list[str]) -> Callable[[Any], str]:
    def shown(self: Any) -> str:
        return f"{self.__class__.__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return shown


def _refuse_to_set(_self: object, name: str, _value: object) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_self: object, name: str) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


if TYPE_CHECKING:
    from dataclasses import dataclass  # whose fields, `replace` and frozen values type checkers know
else:
    dataclass = _dataclass
