"""What there is in a diagnosis. How it comes together is in tests/e2e/test_diagnose.py."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from relayd.address import UnixAddress
from relayd.cli.client import Place
from relayd.cli.diagnosis.parts import IN_FORCE, STATUS, Part, all_parts, config_parts
from relayd.cli.diagnosis.sources import NotThere


def part(parts: list[Part], name: str) -> Part:
    return next(one for one in parts if one.name == name)


def test_every_part_has_a_file_of_its_own_and_a_line_about_it() -> None:
    parts = [*all_parts(None, ""), *config_parts([Path("/a/x.toml"), Path("/b/x.toml")])]
    assert len({one.name for one in parts}) == len(parts)
    assert all(one.what and "\n" not in one.what for one in parts)
    assert {one.name for one in parts if one.clients} == {"daemon/connections.json", "log.txt"}


def test_each_file_of_the_configuration_is_read_for_itself(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"of {name}")
    parts = config_parts([tmp_path / "a", tmp_path / "b"])
    assert [(one.name, one.get()) for one in parts] == [("config/00-a", "of a"), ("config/01-b", "of b")]


def test_why_it_is_not_known_where_the_daemon_is_stands_for_what_it_would_say() -> None:
    with pytest.raises(NotThere, match="the admin API is off"):
        part(all_parts(None, "the admin API is off"), "daemon/metrics.txt").get()


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What is put in is answered at ./admin.sock, one for a connection, and the last one to all that follow."""
    monkeypatch.chdir(tmp_path)
    answers: list[bytes] = []
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("./admin.sock")
        listening.listen()

        def serve() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return  # shut down
                with client:
                    asked.append(client.recv(65536).partition(b"\r\n")[0])
                    client.sendall(answers[min(len(asked), len(answers)) - 1])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield answers
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def answer(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


HERE = Place((UnixAddress("./admin.sock"),))


def status(listeners: int, errors: list[str] | None = None) -> dict[str, object]:
    reload = None if errors is None else {"ok": False, "errors": errors}
    return {"config": {"last_reload": reload}, "listeners": [{"name": f"l{number}"} for number in range(listeners)]}


def test_the_status_is_without_lines_of_the_file(answering: list[bytes]) -> None:
    errors = ["f:7:1: bad\n    token = 'x'\n    ^", 'f:8:1: pools.p.health_check.path: "a?b" is not a path']
    answering.append(answer("200 OK", json.dumps(status(1, errors))))
    found = part(all_parts(HERE, ""), STATUS).get()
    seen = ["f:7:1: bad", 'f:8:1: pools.p.health_check.path: "***" is not a path']
    assert json.loads(found)["config"]["last_reload"]["errors"] == seen


def test_the_status_of_many_listeners_is_understood_and_then_cut(answering: list[bytes]) -> None:
    many = status(2500)
    many["padding"] = "x" * 3 * 1024 * 1024  # more than what is packed of a part
    answering.append(answer("200 OK", json.dumps(many)))
    found = json.loads(part(all_parts(HERE, ""), STATUS).get())
    assert found["listeners"][999:] == [{"name": "l999"}, "cut off here: 1000 of 2500"]


@pytest.mark.parametrize(("count", "history"), [(100, True), (101, False)])
def test_of_a_few_listeners_the_last_minutes_are_asked_for(answering: list[bytes], count: int, history: bool) -> None:
    with_history = status(count) | {"history": "yes"}
    answering += [answer("200 OK", json.dumps(status(count))), answer("200 OK", json.dumps(with_history))]
    found = json.loads(part(all_parts(HERE, ""), STATUS).get())
    assert ("history" in found) == history


def test_what_is_no_status_says_so(answering: list[bytes]) -> None:
    answering.append(answer("200 OK", "[]"))
    for name in (STATUS, IN_FORCE):
        with pytest.raises(NotThere, match="not one of this version"):
            part(all_parts(HERE, ""), name).get()


def test_a_daemon_that_is_busy_is_quoted(answering: list[bytes]) -> None:
    answering.append(answer("503 Service Unavailable", '{"error": "8 connections"}'))
    with pytest.raises(NotThere, match=r"the daemon answers 503: .*8 connections"):
        part(all_parts(HERE, ""), STATUS).get()


def test_of_what_is_in_force_checks_are_left_where_it_is_long(answering: list[bytes]) -> None:
    check = 'health_check = { type = "tcp", send = "x" }\n'
    answering.append(answer("200 OK", json.dumps({"toml": check})))
    assert part(all_parts(HERE, ""), IN_FORCE).get() == check
    answering.append(answer("200 OK", json.dumps({"toml": f"{check}a = 1\n" * 50_000})))
    assert part(all_parts(HERE, ""), IN_FORCE).get().splitlines()[1:] == [check.rstrip()]


def test_why_a_daemon_is_not_ready_is_an_answer(answering: list[bytes]) -> None:
    answering.append(answer("503 Service Unavailable", '{"error": "stopping"}'))
    assert part(all_parts(HERE, ""), "daemon/ready.txt").get() == '{"error": "stopping"}'


def test_a_daemon_that_does_not_know_the_question_is_quoted(answering: list[bytes]) -> None:
    answering.append(answer("404 Not Found", '{"error": "there is no /v1/connections"}'))
    with pytest.raises(NotThere, match=r"the daemon answers 404: .*there is no /v1/connections"):
        part(all_parts(HERE, ""), "daemon/connections.json").get()


def test_what_is_no_daemon_says_so(answering: list[bytes]) -> None:
    answering.append(b"220 mail.example.com ESMTP\r\n")
    with pytest.raises(NotThere, match="not the admin API of relayd"):
        part(all_parts(HERE, ""), "daemon/metrics.txt").get()
