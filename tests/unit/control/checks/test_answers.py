import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd import __version__
from relayd.address import Family, InetAddress, UnixAddress
from relayd.control.checks.answers import ANSWER_BYTES_MAX, Judge, script_of
from relayd.control.checks.subject import UP, Cause, Found, Subject
from relayd.spec import Check, CheckKind

HERE = InetAddress(Family.INET, "10.0.0.11", 8080)


def subject(kind: CheckKind, address: InetAddress | UnixAddress = HERE, **keys: object) -> Subject:
    check = Check(kind, 2.0, 2.0, 1.0, 2, 3, **keys)  # type: ignore[arg-type]  # any of them
    return Subject("app", str(address), address, check, None)


def judge(kind: CheckKind, **keys: object) -> Judge:
    found = script_of(subject(kind, HERE, **keys)).judge
    assert found is not None
    return found


def test_a_connection_is_answer_enough() -> None:
    script = script_of(subject(CheckKind.TCP))
    assert (script.send, script.judge, script.datagrams) == (b"", None, False)


def test_bytes_are_sent_as_they_are() -> None:
    assert script_of(subject(CheckKind.UDP, send="\x00\xff")).send == b"\x00\xff"


def test_what_is_expected_may_come_in_pieces() -> None:
    judged = judge(CheckKind.TCP, send="PING\r\n", expect="+PONG")
    assert [judged(b"+PO", ""), judged(b"+PONG\r\n", "")] == [None, UP]


def test_literal_text_is_no_pattern() -> None:
    judged = judge(CheckKind.TCP, expect="a.c")
    assert judged(b"abc", "") is None
    assert judged(b"xa.c", "") == UP


def test_a_pattern() -> None:
    judged = judge(CheckKind.TCP, expect_pattern=r"^220[ -]\xff?")
    assert judged(b"220 mail", "") == UP
    assert judged(b"x220", "before it closed") == Found(False, "wrong answer 'x220'", Cause.ANSWER)


def test_no_answer_and_a_wrong_one() -> None:
    judged = judge(CheckKind.TCP, expect="OK")
    assert judged(b"", "within 1s") == Found(False, "no answer within 1s", Cause.ANSWER)
    assert judged(b"NO\n", "within 1s") == Found(False, "wrong answer 'NO\\n'", Cause.ANSWER)
    assert judged(b"\x81\xff", "within 1s") == Found(False, "wrong answer '\\x81\\xff'", Cause.ANSWER)
    assert judged(b"N" * ANSWER_BYTES_MAX, "") == Found(False, f"wrong answer '{'N' * 40}'...", Cause.ANSWER)


def test_a_datagram_is_judged_on_its_own() -> None:
    assert judge(CheckKind.UDP, send="?", expect="OK")(b"NO", "") == Found(False, "wrong answer 'NO'", Cause.ANSWER)
    assert judge(CheckKind.UDP, send="?")(b"", "") == UP
    assert judge(CheckKind.UDP, send="?")(b"", "within 1s") == Found(False, "no answer within 1s", Cause.ANSWER)


def test_the_request() -> None:
    script = script_of(subject(CheckKind.HTTP, method="HEAD", path="/health?full=1"))
    assert script.send == (
        b"HEAD /health?full=1 HTTP/1.1\r\nHost: 10.0.0.11:8080\r\n"
        b"User-Agent: relayd/" + __version__.encode() + b" health check\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("address", "host", "line"),
    [
        (InetAddress(Family.INET6, "fe80::1", 80, "eth0"), None, b"\r\nHost: [fe80::1]:80\r\n"),
        (UnixAddress("/run/app.sock"), None, b"\r\nHost: localhost\r\n"),
        (HERE, "app.test", b"\r\nHost: app.test\r\n"),
    ],
)
def test_the_host(address: InetAddress | UnixAddress, host: str | None, line: bytes) -> None:
    assert line in script_of(subject(CheckKind.HTTP, address, host=host)).send


@pytest.mark.parametrize(
    ("received", "found"),
    [
        (b"HTTP/1.1 200 OK\r\n", UP),
        (b"HTTP/1.0 302 Found\r\nLoc", UP),
        (b"HTTP/1.1 204\r\n", UP),
        (b"HTTP/1.0 200\n", UP),
        (b"HTTP/1.1 404 Not Found\r\n", Found(False, "status 404", Cause.STATUS)),
        (b"HTTP/1.1 503 ", Found(False, "status 503", Cause.STATUS)),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n", UP),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Oh\r\n", Found(False, "status 500", Cause.STATUS)),
        (b"HTTP/1.1 101 Switching\r\n\r\n", Found(False, "status 101", Cause.STATUS)),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n", None),
        (b"HTTP/1.1 20", None),
        (b"HTT", None),
        (b"SSH-2.0-x\r\n", Found(False, "wrong answer 'SSH-2.0-x\\r\\n'", Cause.ANSWER)),
        (b"HTTP/1.1 2000 OK\r\n", Found(False, "wrong answer 'HTTP/1.1 2000 OK\\r\\n'", Cause.ANSWER)),
        (b"HTTP/2 200\r\n1234", Found(False, "wrong answer 'HTTP/2 200\\r\\n1234'", Cause.ANSWER)),
    ],
)
def test_status_lines(received: bytes, found: Found | None) -> None:
    assert judge(CheckKind.HTTP)(received, "") == found


def test_no_status_line() -> None:
    assert judge(CheckKind.HTTP)(b"HTTP/1.1 2", "before it closed") == Found(
        False, "no status before it closed", Cause.ANSWER
    )
    assert judge(CheckKind.HTTP)(b"", "within 1s") == Found(False, "no status within 1s", Cause.ANSWER)


def test_which_statuses_are_up() -> None:
    judged = judge(CheckKind.HTTP, status=((200, 200), (301, 302), (103, 103)))
    assert [judged(b"HTTP/1.1 %d \r\n" % status, "") == UP for status in (200, 201, 302, 303, 103)] == [
        True,
        False,
        True,
        False,
        True,
    ]


@given(st.binary(max_size=300))
def test_a_status_is_found_byte_by_byte_as_in_one_piece(rest: bytes) -> None:
    judged = judge(CheckKind.HTTP)
    for whole in (rest, b"HTTP/1.1 " + rest, b"HTTP/1.1 103 x\r\n" + rest):
        pieces = [judged(whole[:size], "") for size in range(1, len(whole) + 1)]
        first = next((found for found in pieces if found is not None), None)
        assert (first is None) == (judged(whole, "") is None)
        if first is not None and first.up:
            assert judged(whole, "") == UP
