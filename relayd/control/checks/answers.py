"""What is said to a target, and what its answer means. Bytes in, a verdict out or none yet; pure but for the time that
a pattern may take (`patterns`).
"""

import re
from collections.abc import Callable
from typing import TypeAlias

from relayd import __version__
from relayd.address import InetAddress
from relayd.control.checks import patterns
from relayd.control.checks.subject import UP, Cause, Found, Subject
from relayd.spec import Check, CheckKind
from relayd.values import dataclass

__all__ = ["ANSWER_BYTES_MAX", "Judge", "Script", "script_of"]

#: The beginning of an answer, which is all that is looked at: banners, status lines, PONGs. A pattern is searched for
#: in all of it each time that some more has come, which makes 4 KiB enough.
ANSWER_BYTES_MAX = 4096
#: What of a wrong answer goes into a log line.
_SHOWN_BYTES = 40

#: Of what has been received so far, and why no more comes ("" where more may): what that means, None where more
#: decides.
Judge: TypeAlias = Callable[[bytes, str], "Found | None"]

_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-5][0-9][0-9])[ \r\n]")
_STATUS_START = b"HTTP/1."
#: With so many bytes the line above is there, or will never be.
_STATUS_BYTES = len("HTTP/1.1 200 ")
#: RFC 9110, 15.2: interim answers come before the one that counts. 101 is no interim one.
_INTERIM = frozenset({100, *range(102, 200)})


@dataclass(frozen=True, slots=True)
class Script:
    """What is sent, and who judges what comes back; None: a connection is answer enough. With `datagrams` each of them
    is judged on its own.
    """

    send: bytes
    judge: Judge | None
    datagrams: bool


def script_of(subject: Subject) -> Script:
    """For any kind but EXEC. Raises re.error where the pattern is none, which `config` has looked at."""
    check = subject.check
    if check.kind is CheckKind.HTTP:
        return Script(_request(subject), _status_judge(check.status), datagrams=False)
    datagrams = check.kind is CheckKind.UDP
    return Script(check.send.encode("latin-1"), _content_judge(check, datagrams=datagrams), datagrams)


def _request(subject: Subject) -> bytes:
    check, address = subject.check, subject.address
    host = check.host
    if host is None:
        host = f"{_host(address)}:{address.port}" if isinstance(address, InetAddress) else "localhost"
    return (
        f"{check.method} {check.path} HTTP/1.1\r\n"
        f"Host: {host}\r\n"
        f"User-Agent: relayd/{__version__} health check\r\n"
        "Accept: */*\r\n"
        "Connection: close\r\n\r\n"
    ).encode("latin-1")


def _host(address: InetAddress) -> str:
    """Without an interface, which means nothing to others (RFC 6874, 4)."""
    return f"[{address.host}]" if ":" in address.host else address.host


def _status_judge(ranges: tuple[tuple[int, int], ...]) -> Judge:
    def judge(received: bytes, end: str) -> Found | None:
        while (matched := _STATUS_LINE.match(received)) is not None:
            status = int(matched[1])
            if any(first <= status <= last for first, last in ranges):
                return UP
            if status not in _INTERIM:
                return Found(False, f"status {status}", Cause.STATUS)
            _, blank, received = received.partition(b"\r\n\r\n")
            if not blank:
                break
        start = received[: len(_STATUS_START)]
        if matched is None and (start != _STATUS_START[: len(start)] or len(received) >= _STATUS_BYTES):
            return _wrong(received)
        return Found(False, f"no status {end}", Cause.ANSWER) if end else None

    return judge


def _content_judge(check: Check, *, datagrams: bool) -> Judge | None:
    """None: nothing is expected, not even an answer."""
    pattern = check.expect_pattern
    if pattern is None and check.expect is None:
        return _any_answer if datagrams else None
    literal = (check.expect or "").encode("latin-1")
    expected = None if pattern is None else patterns.compiled(pattern.encode("latin-1"))

    def judge(received: bytes, end: str) -> Found | None:
        if not received and end:
            return Found(False, f"no answer {end}", Cause.ANSWER)
        there = literal in received if expected is None else expected.search(received)
        if there is None:
            return Found(False, "its pattern takes too long for this answer", Cause.ANSWER)
        if there:
            return UP
        return _wrong(received) if end or datagrams or len(received) >= ANSWER_BYTES_MAX else None

    return judge


def _any_answer(_: bytes, end: str) -> Found:
    return Found(False, f"no answer {end}", Cause.ANSWER) if end else UP


def _wrong(received: bytes) -> Found:
    shown = repr(received[:_SHOWN_BYTES]).removeprefix("b")
    return Found(False, f"wrong answer {shown}{'...' if len(received) > _SHOWN_BYTES else ''}", Cause.ANSWER)
