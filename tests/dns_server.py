"""A name server of the test's own, at 127.0.0.1, by UDP and TCP: what it says can be changed at any time.

with DnsServer() as dns:
    dns.say("web.test", "A", "192.0.2.1", "192.0.2.2", ttl=1)
    dns.say("web.test", "AAAA", Answer.SERVFAIL)
"""

import enum
import select
import socket
import threading
from collections.abc import Callable

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

#: For a question that comes by TCP.
_PATIENCE_S = 10.0


class Answer(enum.Enum):
    """What it can say in place of records; SILENCE is nothing at all, EMPTY none of this type."""

    NXDOMAIN = "nxdomain"
    SERVFAIL = "servfail"
    REFUSED = "refused"
    SILENCE = "silence"
    EMPTY = "empty"
    GARBAGE = "garbage"


class DnsServer:
    """Owns a thread and two sockets. A name that it has nothing of does not exist; one that it has has no records of
    other types.
    """

    def __init__(self, port: int | None = None) -> None:
        self.port = port or 0
        self.truncate = False
        #: Every question, by name and type, in order, and how many came by TCP.
        self.asked: list[tuple[str, str]] = []
        self.asked_by_tcp = 0
        #: Bytes that whoever asked last takes by UDP, by EDNS; None: as many as it takes without.
        self.payload: int | None = None
        self._changed = threading.Condition()
        self._zone: dict[tuple[str, str], tuple[int, tuple[str, ...] | Answer]] = {}
        self._thread = threading.Thread(target=self._serve)
        self._end, self._ended = socket.socketpair()
        self._open()

    def _open(self) -> None:
        while True:
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                self._udp.bind(("127.0.0.1", self.port))
                self._tcp.bind(self._udp.getsockname())
            except OSError:
                self._udp.close()
                self._tcp.close()
                if self.port:
                    raise
                continue
            self._tcp.listen()
            self.port = self._udp.getsockname()[1]
            return

    def __enter__(self) -> "DnsServer":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._end.close()
        self._thread.join()
        for sock in (self._ended, self._udp, self._tcp):
            sock.close()

    def say(self, name: str, kind: str, *data: str | Answer, ttl: int = 1) -> None:
        """From now on answer so. One `Answer`, or records in the form of a zone file."""
        first = data[0]
        with self._changed:
            records = first if isinstance(first, Answer) else tuple(str(each) for each in data)
            self._zone[_plain(name), kind] = ttl, records

    def say_of_all(self, name: str, answer: Answer) -> None:
        """The same for every type."""
        for kind in ("A", "AAAA", "SRV"):
            self.say(name, kind, answer)

    def wait_for(self, condition: "Callable[[DnsServer], bool]", timeout_s: float = 20.0) -> None:
        """Until it holds, looked at after each question."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), timeout_s), self.asked

    def count(self, name: str, kind: str) -> int:
        """How often this was asked for."""
        return self.asked.count((_plain(name), kind))

    def _serve(self) -> None:
        poll = select.poll()
        for sock in (self._ended, self._udp, self._tcp):
            poll.register(sock, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._ended.fileno():
                    return
                if fd == self._udp.fileno():
                    self._answer_by_udp()
                else:
                    self._answer_by_tcp()

    def _answer_by_udp(self) -> None:
        data, peer = self._udp.recvfrom(65535)
        reply = self._reply(data, by_tcp=False)
        if reply is not None:
            self._udp.sendto(reply, peer)

    def _answer_by_tcp(self) -> None:
        client, _ = self._tcp.accept()
        with client:
            client.settimeout(_PATIENCE_S)
            size = int.from_bytes(client.recv(2, socket.MSG_WAITALL), "big")
            reply = self._reply(client.recv(size, socket.MSG_WAITALL), by_tcp=True)
            if reply is not None:
                client.sendall(len(reply).to_bytes(2, "big") + reply)

    def _reply(self, data: bytes, *, by_tcp: bool) -> bytes | None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = _plain(question.name.to_text()), dns.rdatatype.to_text(question.rdtype)
        with self._changed:
            self.asked.append((name, kind))
            self.asked_by_tcp += by_tcp
            self.payload = query.payload if query.edns >= 0 else None
            self._changed.notify_all()
            alias = self._zone.get((name, "CNAME"))
            if alias is not None and not isinstance(alias[1], Answer):
                (name,) = map(_plain, alias[1])
            ttl, records = self._zone.get((name, kind), (1, Answer.EMPTY))
            known = any(name == each for each, _ in self._zone)
        if records is Answer.SILENCE:
            return None
        if records is Answer.GARBAGE:
            return data[:2] + b"\x81\x80" + b"\xff" * 40
        reply = dns.message.make_response(query)
        if not known:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif isinstance(records, Answer):
            if records is not Answer.EMPTY:
                reply.set_rcode(dns.rcode.from_text(records.value))
        elif self.truncate and not by_tcp:
            reply.flags |= dns.flags.TC
        else:
            owner = question.name
            if alias is not None:
                reply.answer.append(dns.rrset.from_text(owner, alias[0], "IN", "CNAME", f"{name}."))
                owner = dns.name.from_text(name)
            reply.answer.append(dns.rrset.from_text(owner, ttl, "IN", kind, *records))
        return reply.to_wire()


def _plain(name: str) -> str:
    return name.lower().rstrip(".")
