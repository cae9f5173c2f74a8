"""`relayd import`: files and standard input in, exit codes out."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relayd.cli import importing, verbs
from relayd.config import load
from relayd.imports import Dialect

RULE = "0.0.0.0 80 10.0.0.1 80\n"
LISTEN = "listen web\n bind 127.0.0.1:80\n server a 10.0.0.1:80 check send-proxy\n"
SERVER = "server { listen 127.0.0.1:80; proxy_pass 10.0.0.1:80; }\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "other.conf"
    path.write_text(RULE)
    return path


def run(*arguments: str, **options: object) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "relayd", "import", *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, check=False, **options)  # type: ignore[call-overload, no-any-return]  # handed on


@pytest.mark.parametrize(
    ("text", "name", "complaints"),
    [
        (RULE, "tcp-80", []),
        (
            LISTEN,
            "web",
            [
                "other.conf:3: send-proxy: relayd sends no PROXY header in this version: carried over without it; "
                "let the target expect none"
            ],
        ),
        (SERVER, "tcp-80", []),
    ],
)
def test_what_is_printed_loads(file: Path, text: str, name: str, complaints: list[str]) -> None:
    file.write_text(text)
    done = run("other.conf")
    assert (done.returncode, done.stderr.decode().splitlines()) == (0, complaints)
    result = Path("relay.toml")
    result.write_bytes(done.stdout)
    assert [listener.name for listener in load(result).spec.listeners] == [name]
    assert done.stdout.startswith(b"# From other.conf, by `relayd import`.\n")


def test_standard_input() -> None:
    done = run("-", input=RULE.encode())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"# From standard input, by")
    assert run("-", stdin=subprocess.DEVNULL).returncode == 1
    closed = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m relayd import - <&-"], capture_output=True, check=False
    )
    assert (closed.returncode, b"Traceback" in closed.stderr) == (1, False)


def test_what_it_is_can_be_said(file: Path) -> None:
    file.write_text(RULE + LISTEN)
    done = run("other.conf")
    assert (done.returncode, done.stdout) == (1, b"")
    assert (
        done.stderr
        == b"relayd: other.conf: cannot tell whose configuration it is: say so by --from rinetd, haproxy or nginx\n"
    )
    assert b"[listeners.web]" in run("--from", "haproxy", "other.conf").stdout
    assert run("--from", "nosuch", "other.conf").returncode == 2
    assert run().returncode == 2


def test_rules_of_access_are_told_loudest(file: Path) -> None:
    file.write_text("allow 10.*\n" + RULE)
    done = run("other.conf")
    assert done.returncode == 0
    assert done.stderr.decode().splitlines()[-1] == (
        "WARNING: rules about who may connect were not carried over (line 1): what was imported is open to everybody"
    )
    assert b"# OPEN TO EVERYBODY: " in done.stdout


def test_nothing_to_import(file: Path) -> None:
    file.write_text("allow 10.*\n0.0.0.0 80 0.0.0.0 80\n")
    done = run("other.conf")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().splitlines()[-1] == "relayd: other.conf: there is nothing to import (rinetd)"


@pytest.mark.parametrize("name", ["nosuch", ".", "a\0b", "", "nosuch/\udcff"])
def test_a_file_that_cannot_be_read(file: Path, name: str) -> None:
    with pytest.raises(importing.NotImported, match="cannot be read"):
        importing.import_file(name, None)


def test_exit_code_of_a_file_that_cannot_be_read(file: Path) -> None:
    done = run("nosuch")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"relayd: nosuch: cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"a" * 10_000_000, "has more than 8 MiB"),
        (b"a\nb\0c", "other.conf:2: a NUL byte"),
    ],
)
def test_what_is_no_text(file: Path, data: bytes, why: str) -> None:
    file.write_bytes(data)
    with pytest.raises(importing.NotImported, match=why):
        importing.import_file("other.conf", Dialect.RINETD)


def test_an_old_encoding_in_comments_is_no_reason_to_fail(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf# f\xfcr alle\n" + RULE.encode() + b"0 81 10.0.0.\xfc 81\n")
    found = importing.import_file("other.conf", None)
    assert found.toml
    assert found.complaints == ('other.conf:3: 0 81 10.0.0.\\udcfc 81: "10.0.0.\\udcfc" is no address',)


def test_a_path_in_an_old_encoding_is_refused(file: Path) -> None:
    file.write_bytes(b"listen a\n bind /run/\xfc.sock\n bind :80\n server a a:1\n")
    found = importing.import_file("other.conf", None)
    assert "udcfc" not in found.toml
    assert len(found.complaints) == 1


def test_services_by_name(file: Path) -> None:
    file.write_text("0.0.0.0 domain/udp 10.0.0.1 domain/udp\n0.0.0.0 nosuchservice 10.0.0.1 80\n")
    found = importing.import_file("other.conf", Dialect.RINETD)
    assert 'bind = "0.0.0.0:53"' in found.toml
    assert len(found.complaints) == 1


def test_complaints_have_an_end(file: Path) -> None:
    file.write_text(RULE + "nonsense\n" * 1500)
    found = importing.import_file("other.conf", None)
    assert len(found.complaints) == importing.LEFTOVERS_SHOWN + 1
    assert found.complaints[-1] == "relayd: other.conf: and 500 more"


def test_places_in_the_text_that_was_tried_are_not_told(file: Path) -> None:
    file.write_text("0.0.0.0 80 a 80\n10.0.0.1 80 a 80\n")
    found = importing.import_file("other.conf", None)
    assert found.complaints == (
        'other.conf:2: bind 10.0.0.1:80: "10.0.0.1:80" and "0.0.0.0:80" cannot both be bound: listeners.tcp-80',
    )


def test_within_this_process(file: Path) -> None:
    done = CliRunner().invoke(verbs.app, ["import", str(file)])
    assert done.exit_code == 0
    assert "[listeners.tcp-80]" in done.output
    file.write_text("nonsense")
    assert CliRunner().invoke(verbs.app, ["import", "--from", "rinetd", str(file)]).exit_code == 1
