"""Bytes of a terminal -> keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.cli.top.keys import Keys


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q?", ["q", "?"]),
        ("é漢".encode(), ["é", "漢"]),
        (b"\x1b[A\x1b[B\x1bOC\x1b[D", ["up", "down", "right", "left"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1bOF\x1b[1~\x1b[4~", ["page up", "page down", "home", "end", "home", "end"]),
        (b"\r\n\x7f\x08", ["enter", "enter", "backspace", "backspace"]),
        (b"\x1b", ["escape"]),
        (b"\x1b\x1b[A", ["escape", "up"]),
        (b"\x1bq", ["escape", "q"]),
        (b"\x1b[1;5A", ["up"]),  # with Ctrl
        (b"\x1b[200~ab\x1b[201~", ["a", "b"]),  # pasted
        (b"\x1b[15~\x1bOP\x1b[?1;2c\x00\x01\t", []),
        (b"\xffq", ["\ufffd", "q"]),
    ],
)
def test_what_they_are(data: bytes, keys: list[str]) -> None:
    assert Keys().feed(data) == keys


def test_what_comes_in_parts() -> None:
    keys = Keys()
    assert (keys.feed(b"a\x1b["), keys.feed(b"5"), keys.feed(b"~b")) == (["a"], [], ["page up", "b"])
    assert (keys.feed("é".encode()[:1]), keys.feed("é".encode()[1:])) == ([], ["é"])


@given(st.lists(st.binary(max_size=12)))
def test_nothing_breaks_it(parts: list[bytes]) -> None:
    keys = Keys()
    for part in parts:
        assert all((len(key) == 1 and key.isprintable()) or len(key) > 1 for key in keys.feed(part))
    assert "q" in keys.feed(b"\x1b\x1b~~q")
