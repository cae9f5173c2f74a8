"""Reading a file: what is no file, what is no text, what is no TOML. Nothing blocks, nothing is read without bound."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.config.document import DIGITS_MAX, FILE_BYTES_MAX, UnreadableError, meaning, read


def problem_of(path: Path) -> tuple[int, int, str]:
    with pytest.raises(UnreadableError) as caught:
        read(path)
    problem = caught.value.problem
    assert problem.file == str(path)
    return problem.line, problem.column, problem.message


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[bytes], tuple[int, int, str]]:
    """Line, column and message of what is wrong with a file of these bytes."""

    def refused_bytes(data: bytes) -> tuple[int, int, str]:
        path = tmp_path / "relay.toml"
        path.write_bytes(data)
        return problem_of(path)

    return refused_bytes


def test_what_is_not_a_file(tmp_path: Path) -> None:
    fifo, directory, link, loop = (tmp_path / name for name in ("fifo", "directory", "link", "loop"))
    os.mkfifo(fifo)
    directory.mkdir()
    link.symlink_to(fifo)
    loop.symlink_to(loop)
    assert problem_of(fifo) == (0, 0, "is a named pipe, not a file")
    assert problem_of(link) == (0, 0, "is a named pipe, not a file")
    assert problem_of(directory) == (0, 0, "is a directory, not a file")
    assert problem_of(Path("/dev/zero")) == (0, 0, "is a device, not a file")
    assert problem_of(tmp_path / "nope") == (0, 0, "cannot be read: No such file or directory")
    assert problem_of(loop)[2].startswith("cannot be read: Too many levels")
    assert "embedded null" in problem_of(Path("a\0b"))[2]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        assert problem_of(tmp_path / "socket") == (0, 0, "is a socket, not a file")


def test_a_link_to_a_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("a = 1")
    (tmp_path / "link").symlink_to("real")
    assert read(tmp_path / "link").data == {"a": 1}


def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("a = 1")
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # nobody: for root, permissions do not count
    try:
        assert problem_of(path) == (0, 0, "cannot be read: Permission denied")
    finally:
        os.seteuid(user)


def test_size(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_bytes(b"a=1\n" + b"#" * (FILE_BYTES_MAX - 4))
    assert read(path).data == {"a": 1}
    path.write_bytes(b"#" * 10_000_000)
    assert problem_of(path)[2] == "has more than 8 MiB; split it with include"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a = 1\n# \xc3\xa9 \xff", (2, 5, "byte 0xff is not UTF-8 text")),
        (b"\xef\xbb\xbf# \xff", (1, 3, "byte 0xff is not UTF-8 text")),
        (b"a\x001\x000\x00", (1, 2, "a NUL byte: this is not a text file")),
        (b"\xff\xfea\x00", (1, 1, "byte 0xff is not UTF-8 text")),
        (b"a = 'x\r", (1, 7, "the string is not closed")),
        (b"bind = 0.0.0.0:80\n", (1, 8, "a string stands in quotes")),
        (b"a = yes", (1, 5, "a string stands in quotes")),
        (b"a = ", (1, 4, "the value is missing or incomplete")),
        (b"\n\na", (3, 2, "a key is followed by = and its value")),
        (b"a = 1 b = 2", (1, 7, "one key to a line: something follows the value")),
        (b"a = [1 2]", (1, 8, "the array is not closed, or a comma is missing")),
        (b'a = "x', (1, 7, "the string is not closed")),
        (b"\x01", (1, 1, "neither a key, a [table] nor a comment")),
        (b"[listeners.web]\na = 1\n  [listeners.web] # again\n", (3, 3, "[listeners.web] stands twice")),
        (b"a = 1\n a = 2\nb = 3", (2, 2, "a stands twice")),
        (b"a = 1\na = 2", (2, 1, "a stands twice")),
        (b"a = 0000-00-00", None),
        (b"a = 2026-02-30", None),
        (b"a = " + b"9" * (DIGITS_MAX + 1), (1, 5, "a number of more than 4300 digits")),
    ],
)
def test_what_is_no_toml(
    refused: Callable[[bytes], tuple[int, int, str]], data: bytes, expected: tuple[int, int, str] | None
) -> None:
    found = refused(data)
    assert found[2]
    if expected:
        assert found == expected


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "{b = " * 100_000, "a" + ".a" * 100_000 + " = 1"])
def test_deep_nesting(refused: Callable[[bytes], tuple[int, int, str]], text: str) -> None:
    assert refused(text.encode())[2] == "arrays or tables are nested too deeply"


def test_hexadecimal_numbers_of_any_length(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text("a = 0x" + "f" * 100_000)
    assert read(path).data["a"].bit_length() == 400_000
    assert sys.getsizeof(read(path).data["a"]) > 50_000


def test_where_the_first_table_is(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text("\n[a]\nb = 1\n[a]\n")
    with pytest.raises(UnreadableError) as caught:
        read(path)
    assert caught.value.problem.suggestion == "help: the first is in line 2"


def test_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\r\nb = 2\r\n")
    document = read(path)
    assert document.data == {"a": 1, "b": 2}
    problem = document.problem(("b",), "wrong")
    assert (problem.line, problem.column, problem.source_line) == (2, 5, "b = 2")


def test_what_some_toml_means() -> None:
    assert meaning('x="a\\u0062"') == {"x": "ab"}
    for text in ("x", f"x={'1' * 100_000}", f"x={'[' * 100_000}", "x=0000-01-01"):
        assert meaning(text) is None
