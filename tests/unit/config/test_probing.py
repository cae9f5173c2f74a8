import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from relayd.config import probing
from relayd.config.probing import Expected


def refused(validate: object, value: object) -> str:
    with pytest.raises(PydanticCustomError) as caught:
        validate(value)  # type: ignore[operator]  # one of the functions below
    context = caught.value.context
    assert context is not None
    return f"{context['message']} | {context['suggestion']}"


@pytest.mark.parametrize(
    ("value", "type_"),
    [("tcp", "tcp"), ("stream", "tcp"), ("udp", "udp"), ("dgram", "udp"), ("http", "http"), ("exec", "exec")],
)
def test_types(value: str, type_: str) -> None:
    assert probing.check_type(value) == type_


@pytest.mark.parametrize(
    ("value", "advice"),
    [("HTTP", '"http"'), ("https", '"http"'), ("script", '"exec"'), ("datagram", '"udp"'), ("connect", '"tcp"')],
)
def test_types_that_are_meant(value: str, advice: str) -> None:
    assert refused(probing.check_type, value).endswith(f"| did you mean {advice}?")


def test_a_type_that_is_none() -> None:
    assert refused(probing.check_type, "icmp").startswith('"icmp" is not a type of check: "tcp" (or "stream")')
    assert refused(probing.check_type, 5) == 'must be "tcp", "udp", "http" or "exec", not an integer | '


def test_intervals() -> None:
    assert probing.interval("100ms") == 100
    assert refused(probing.interval, "99ms") == 'must be at least "100ms" | '
    assert refused(probing.interval, "off") == 'must be at least "100ms" | help: health_check = "off" asks nobody'
    assert "a duration is a string" in refused(probing.interval, 2)


def test_what_is_sent() -> None:
    assert probing.sent("PING\r\n") == "PING\r\n"
    assert probing.sent("é") == "\xc3\xa9"
    assert probing.sent({"hex": "00fF"}) == "\x00\xff"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "is empty"),
        ("x" * 1025, "has 1025 bytes; the limit is 1024"),
        ({"hex": "0"}, "hex is pairs of hexadecimal digits"),
        ({"hex": ""}, "hex is pairs of hexadecimal digits"),
        ({"hex": 0}, "hex is pairs of hexadecimal digits"),
        ({"regex": "a"}, 'must be a string, or {hex = "0d0a"} for bytes, not another table'),
        (["a"], "must be a string, or"),
        (5, "not an integer"),
    ],
)
def test_what_cannot_be_sent(value: object, message: str) -> None:
    assert message in refused(probing.sent, value)


def test_what_is_expected() -> None:
    assert probing.expected("+PONG") == Expected(literal="+PONG")
    assert probing.expected({"hex": "ff"}) == Expected(literal="\xff")
    assert probing.expected({"regex": "^220 |é"}) == Expected(pattern="^220 |\xc3\xa9")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"regex": "("}, '"(" is not a regular expression: missing ), unterminated subpattern at position 0'),
        ({"regex": "[[a]"}, '"[[a]" is not a regular expression: Possible nested set'),
        ({"regex": "a{9999999999999}"}, "is not a regular expression"),
        ({"regex": ""}, "is empty"),
        ({"regex": "x" * 257}, "has 257 bytes; the limit is 256"),
        ({"regex": 5}, "must be a string, a regular expression, not an integer"),
        ({"regex": "a", "hex": "00"}, "not another table"),
        ({}, "not another table"),
        (True, "not a boolean"),
        ("", "is empty"),
    ],
)
def test_what_cannot_be_expected(value: object, message: str) -> None:
    assert message in refused(probing.expected, value)


@given(st.text(max_size=20))
def test_a_pattern_that_is_taken_can_be_compiled(text: str) -> None:
    try:
        found = probing.expected({"regex": text})
    except (PydanticCustomError, UnicodeEncodeError):
        return
    assert found.pattern is not None
    re.compile(found.pattern.encode("latin-1"))


@pytest.mark.parametrize(
    ("value", "ranges"),
    [
        (204, ((204, 204),)),
        ("204", ((204, 204),)),
        ("200-399", ((200, 399),)),
        (["200", "301-302", 404], ((200, 200), (301, 302), (404, 404))),
    ],
)
def test_statuses(value: object, ranges: object) -> None:
    assert tuple(probing.status(one) for one in probing.statuses(value)) == ranges


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (99, "that is not a status"),
        (600, "that is not a status"),
        (True, "that is not a status"),
        ("2xx", '"2xx" is not a status: a number from 100 to 599, or a range such as "200-399"'),
        ("399-200", 'the range of statuses is reversed | did you mean "200-399"?'),
        ([], "is empty"),
        ([200] * 101, "the limit is 100"),
        ([[200]], "that is not a status"),
    ],
)
def test_statuses_that_are_none(value: object, message: str) -> None:
    assert message in refused(lambda given: [probing.status(one) for one in probing.statuses(given)], value)


def test_commands() -> None:
    assert probing.command(["/bin/check", "", "-x"]) == ("/bin/check", "", "-x")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("/bin/check", 'must be an array: the program, and each of its arguments | help: write ["/bin/check"]'),
        (["check"], '"check" is not an absolute path | help: a check does not look in PATH'),
        ([], "is empty"),
        ([""], "is empty"),
        (5, "must be an array of strings"),
        (["/bin/x"] * 65, "is too long"),
    ],
)
def test_commands_that_are_none(value: object, message: str) -> None:
    assert message in refused(probing.command, value)


@pytest.mark.parametrize(
    ("value", "message"), [(5, "not an integer"), ("\0", "NUL"), ("/bin/" + "x" * 1024, "is too long")]
)
def test_arguments_that_are_none(value: object, message: str) -> None:
    assert message in refused(probing.argument, value)


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("tcp", 'help: write { type = "tcp" }'),
        ("HTTPS", 'help: write { type = "http" }'),
        ("dgram", 'help: write { type = "udp", send = "..." }'),
        ("script", 'help: write { type = "exec", command = ["/path/of/a/program"] }'),
        ("maybe", ""),
    ],
)
def test_a_word_where_a_table_is_meant(value: str, advice: str) -> None:
    assert refused(probing.no_check, value).endswith(
        f': must be "off", or a table such as {{ type = "tcp" }} | {advice}'
    )
    assert probing.no_check("off") == "off"


def test_requests() -> None:
    assert probing.method("HEAD") == "HEAD"
    assert probing.path("/a?b=c") == "/a?b=c"
    assert probing.host("app.test:8080") == "app.test:8080"
    assert refused(probing.method, "get").endswith('| did you mean "GET"?')
    assert refused(probing.method, "G T").endswith("| ")
    assert refused(probing.path, "health").endswith('| did you mean "/health"?')
    assert refused(probing.path, "http://x/y").endswith("| ")
    assert "no blank" in refused(probing.path, "/a\r\nEvil: 1")
    assert "no blank" in refused(probing.path, "/" + "x" * 1024)
    assert "cannot be a Host" in refused(probing.host, "a\r\nb")
    assert "not an integer" in refused(probing.host, 5)


def test_percentages() -> None:
    assert [probing.percent(value) for value in ("0%", "50%", "100%")] == [0, 50, 100]
    assert refused(probing.percent, 50).endswith('| help: write "50%"')
    assert refused(probing.percent, "101%") == '"101%" is not a percentage: "0%" to "100%" | '
    assert "not a boolean" in refused(probing.percent, True)


@pytest.mark.parametrize("pattern", ["(a+)+$b", "^(?:[ab]*)*x", r"(\d+)*", "(?P<n>x+?)+y", "(a{2,})+", "(a+){3,}"])
def test_a_repeat_of_a_repeat_is_seen(pattern: str) -> None:
    assert probing.repeats_a_repeat(pattern)


@pytest.mark.parametrize("pattern", ["^220[ -]", "(a+)", "(ab)+", "(a{2})+", r"\(a+\)+", "(a+){3}", "(a+)?", "(a+b)+"])
def test_other_patterns_are_not_taken_for_one(pattern: str) -> None:
    assert not probing.repeats_a_repeat(pattern)
