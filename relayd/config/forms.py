"""How values are written: what the models of all tables are made of.

Each kind of value is its validator, its JSON Schema, and its form in words.
"""

from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, PlainValidator, WithJsonSchema

from relayd.config import values
from relayd.config.units import DURATION_MAX_MS, DURATION_PATTERN, format_duration

OFF = {"const": "off"}
DURATION = {"type": "string", "pattern": DURATION_PATTERN}
OR_OFF = ', or `"off"`'
LONGEST = format_duration(DURATION_MAX_MS)


def schema_of(*alternatives: dict[str, object]) -> WithJsonSchema:
    """One of `alternatives`, each a JSON Schema."""
    return WithJsonSchema(dict(alternatives[0]) if len(alternatives) == 1 else {"anyOf": list(alternatives)})


class Form(NamedTuple):
    """How people are told to write a value that its type alone does not explain. pydantic passes over it."""

    text: str


def lasting(shortest: str, longest: str, also: str = "") -> Form:
    """Durations from `shortest` to `longest`."""
    return Form(f'duration, `"{shortest}"` to `"{longest}"`{also}')


def one_or_more(what: str, most: int) -> Form:
    """A value that may stand alone."""
    return Form(f"{what}, or an array of up to {most} of them")


Duration: TypeAlias = Annotated[int, PlainValidator(values.duration), schema_of(DURATION), lasting("0s", LONGEST)]
PositiveDuration: TypeAlias = Annotated[
    int, PlainValidator(values.positive_duration), schema_of(DURATION), lasting("1ms", LONGEST)
]
Timeout: TypeAlias = Annotated[
    int | Literal["off"], PlainValidator(values.timeout), schema_of(DURATION, OFF), lasting("1ms", LONGEST, OR_OFF)
]


class Table(BaseModel):
    """A table of the file: only known keys, only the type that each key has."""

    # defer_build: `relayd version` and `relayd --help` do not wait for validators that they never use.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)
