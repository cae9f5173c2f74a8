"""Weights and backups in numbers that relayd takes."""

import pytest

from relayd.imports.draft import Place, Setting
from relayd.imports.shares import dialled, is_name, several, source_hash, weights


def members(*texts: str) -> list[Place]:
    """`5` is a weight, `5b` that of a backup."""
    return [Place("a:1", 1, int(text.removesuffix("b")), text.endswith("b")) for text in texts]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        (["1"], [1]),
        (["7"], [1]),
        (["7", "7"], [1, 1]),
        (["7", "14"], [7, 14]),
        (["1", "256"], [1, 256]),
        (["300", "300"], [1, 1]),
        (["500", "1000"], [1, 2]),
        (["300", "1000", "700"], [3, 10, 7]),
        (["999", "1000"], [256, 256]),
        (["1", "1000"], [1, 256]),
        (["2", "257", "515"], [1, 128, 256]),
        (["300", "301", "1"], [255, 256, 1]),
        (["999999999", "1"], [256, 1]),
        (["5", "6", "7b", "7b"], [5, 6, 1, 1]),
        (["5", "5", "7b", "8b"], [1, 1, 7, 8]),
        (["5", "6", "500b", "1000b"], [5, 6, 1, 2]),
        (["5", "8b"], [1, 1]),
    ],
)
def test_weights(given: list[str], expected: list[int]) -> None:
    assert weights(members(*given)) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [([], False), (["1"], False), (["1", "1b"], False), (["1", "1"], True), (["1", "1b", "1b"], True)],
)
def test_several(given: list[str], expected: bool) -> None:
    assert several(members(*given)) is expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("a.example.com", True),
        ("a.example.com:80", True),
        ("a.example.com:+80", True),
        ("1.example", True),
        ("10.0.0.1", False),
        ("10.0.0.1:80-90", False),
        ("2001:db8::1", False),
        ("fe80::1", False),
        ("[::1]:80", False),
        ("unix:/run/a.sock", False),
        ("unix:@a", False),
    ],
)
def test_is_name(address: str, expected: bool) -> None:
    assert is_name(address) is expected


@pytest.mark.parametrize(
    ("given", "attempts", "expected"),
    [
        ([], None, None),
        (["1"] * 5, None, None),
        (["1"] * 5, 1, 1),
        (["1", "1b"], None, None),
        (["1", "1", "1b", "1b"], None, None),
        (["1", "1", "1", "1b"], None, 4),
        (["1", "1b"], 1, 2),
        (["1", "1b"], 5, 5),
        (["1b"] * 2 + ["1"] * 200, None, 100),
        (["1b"] * 2 + ["1"] * 200, 100, 100),
    ],
)
def test_dialled(given: list[str], attempts: int | None, expected: int | None) -> None:
    setting = dialled(None if attempts is None else Setting(attempts, 7, "why"), members(*given))
    assert (setting.value if setting else None) == expected
    if setting:
        assert setting.line == (7 if attempts else 0)
        assert (setting.comment == "why") is (attempts == expected)


def test_source_hash() -> None:
    assert source_hash(7, "nginx's") == Setting(
        "source_hash", 7, "another hash than nginx's: clients go to other targets than they did"
    )
