"""What is written down and read again goes wrong: a connection or a session ends by its name, and nothing else does."""

import socket
from pathlib import Path

import pytest

from relayd.outcomes import Outcome
from relayd.relay.batch import Choices
from relayd.relay.datagram import handover as datagram
from relayd.relay.datagram.session import Session
from relayd.relay.stream import handover as stream
from relayd.relay.stream.connection import Connection
from tests.integration.datagram_relaying import DatagramRelay, DatagramTarget
from tests.integration.relaying import Relay, Target, was_reset


@pytest.mark.parametrize(
    ("field", "value"), [("choice", 7), ("outcome", "tired"), ("tried", [9]), ("first_fin", "x"), ("pumps", [])]
)
def test_a_connection_that_is_not_understood_ends_by_its_name(field: str, value: object, tmp_path: Path) -> None:
    # R5
    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:
        client, far = relay.pair(target)

        def restart() -> None:
            (connection,) = relay.service.connections
            assert isinstance(connection, Connection)
            choices = Choices()
            record, fds, tail = stream.freeze(connection, choices)
            copies = [socket.dup(fd) for fd in fds]
            connection.leave()
            relay.loop.close_ended()
            broken = record._replace(**{field: value})  # type: ignore[arg-type]  # wrong on purpose
            assert stream.thaw(relay.service, relay.group, broken, choices.every, copies, tail) is None

        relay.call(restart)
        assert was_reset(client)
        assert was_reset(far)
        assert relay.ended().outcome is Outcome.NOT_TAKEN_OVER


def test_a_session_whose_record_is_not_understood_ends_by_its_name(tmp_path: Path) -> None:
    # R5
    with DatagramTarget("inet", tmp_path) as target, DatagramRelay([target.address]) as relay:
        client = relay.client()
        client.send(b"question")
        target.receive()

        def restart() -> None:
            ((_, _, (session,)),) = relay.services.live()
            assert isinstance(session, Session)
            choices = Choices()
            record, fd, tail = datagram.freeze(session, choices)
            copy = socket.dup(fd)
            session.leave()
            relay.loop.close_ended()
            broken = record._replace(waiting=["x"])  # type: ignore[list-item]  # wrong on purpose
            assert datagram.thaw(session.receiver, broken, choices.every, copy, tail) is None
            assert copy not in relay.loop.selector.handlers

        relay.call(restart)
        assert relay.ended().outcome is Outcome.NOT_TAKEN_OVER
        client.send(b"again")
        target.receive().reply(b"answer")
        assert client.recv(100) == b"answer"
