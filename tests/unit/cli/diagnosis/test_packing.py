"""All parts at once, and one archive of them."""

import io
import tarfile
import threading

from relayd.cli.diagnosis.packing import Found, gather, listing, pack, readme
from relayd.cli.diagnosis.parts import Part
from relayd.cli.diagnosis.sources import NotThere


def says(text: str) -> Part:
    return Part(f"{text}.txt", f"what {text} is", lambda: text)


def fails(error: Exception) -> Part:
    def get() -> str:
        raise error

    return Part("broken.txt", "what is broken", get)


def test_each_part_or_why_not_in_their_order() -> None:
    found = gather([says("b"), fails(NotThere("it is\nnot there")), says("a")])
    assert [(one.text, one.problem) for one in found] == [("b", ""), ("", "it is\nnot there"), ("a", "")]


def test_a_bug_in_one_part_leaves_the_others() -> None:
    found = gather([fails(KeyError("x")), says("a")])
    assert found[0].problem == "a bug in relayd diagnose: KeyError: 'x'"
    assert found[1].text == "a"


def test_a_part_that_hangs_does_not_hold_up_the_others() -> None:
    hold = threading.Event()
    stuck = Part("stuck.txt", "", lambda: "late" if hold.wait(30) else "")
    try:
        found = gather([stuck, says("a")], within_s=0.3)
    finally:
        hold.set()
    assert [(one.text, one.problem) for one in found] == [("", "it took more than 0.3 s"), ("a", "")]


FOUND = [Found(says("a"), "ä\udcff\n"), Found(says("longer"), problem="it is\nnot there"), Found(says("empty"))]


def test_the_list_says_how_much_there_is_or_why_not() -> None:
    assert listing(FOUND).splitlines() == [
        "a.txt             9 B  what a is",
        "longer.txt  missing: it is not there",
        "empty.txt         0 B  what empty is",
    ]


def test_the_text_says_what_is_masked() -> None:
    masked = readme(FOUND, (), host="h", when="2026-11-28T17:00:00Z", version="1.2.3", with_clients=False)
    assert masked.startswith("relayd diagnose on h, 2026-11-28T17:00:00Z, by relayd 1.2.3\n")
    assert "address-1" in masked
    assert masked.endswith(listing(FOUND))
    left = readme(FOUND, (), host="h", when="", version="", with_clients=True)
    assert "address-1" not in left
    assert "Clients' addresses are in it" in left


def test_what_is_not_as_expected_comes_first() -> None:
    text = readme(FOUND, ("NOT KNOWN is " + 30 * "which ", "b"), host="h", when="", version="", with_clients=False)
    lines = text.splitlines()
    assert lines[2].startswith("!!! NOT KNOWN is which")
    assert "!!! b" in lines[:7]
    assert max(map(len, lines)) <= 120


def test_the_archive() -> None:
    with tarfile.open(fileobj=io.BytesIO(pack("folder", "read me\n", FOUND, 5)), mode="r:gz") as archive:
        members = archive.getmembers()
        texts = {one.name: archive.extractfile(one).read() for one in members}  # type: ignore[union-attr]  # all files
    assert texts == {
        "folder/README.txt": b"read me\n",
        "folder/a.txt": "ä\\udcff\n".encode(),
        "folder/longer.txt": b"missing: it is\nnot there\n",
        "folder/empty.txt": b"",
    }
    assert {(one.mode, one.mtime, one.uid) for one in members} == {(0o600, 5, 0)}
