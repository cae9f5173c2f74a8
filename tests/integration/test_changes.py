"""What a reload does to live connections (R3), in the loop that carries them."""

import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from relayd.outcomes import Outcome
from relayd.relay.departures import Departures
from relayd.spec import Listener, OnChange, StreamTimeouts
from tests.integration.relaying import Relay, Target, was_reset


def send_away(relay: Relay, policy: OnChange | None, new: Listener | None, drain_timeout_s: float) -> None:
    """In the loop: the listener of `relay` is `new` now, or gone."""
    departures = Departures(relay.loop, relay.log, lambda name: new, drain_timeout_s)
    departures.consider(relay.service.connections, replace(relay.service.spec, on_change=policy), new, datagram=False)
    departures.begin()


@pytest.mark.parametrize(("policy", "drain_s"), [(OnChange.CLOSE, 0.0), (OnChange.DRAIN, 0.3), (None, 0.3)])
def test_a_removed_listener_ends_its_connections(policy: OnChange | None, drain_s: float, tmp_path: Path) -> None:
    # R3
    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:
        pairs = [relay.pair(target) for _ in range(3)]
        began = time.monotonic()
        relay.call(lambda: send_away(relay, policy, None, 0.3))
        if drain_s:
            for client, far in pairs:
                client.sendall(b"still here")
                assert far.recv(100) == b"still here"
        for client, far in pairs:
            assert was_reset(client)
            assert was_reset(far)
        assert relay.outcomes(3) == {Outcome.REMOVED}
        assert drain_s <= time.monotonic() - began < drain_s + 1


def test_who_has_ended_before_the_drain_is_over_has_ended_normally(tmp_path: Path) -> None:
    # R3
    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:
        first, second = relay.pair(target), relay.pair(target)
        relay.call(lambda: send_away(relay, None, None, 0.3))
        for sock in first:
            sock.shutdown(socket.SHUT_WR)
        assert relay.ended().outcome is Outcome.NORMAL
        assert was_reset(second[0])
        assert relay.ended().outcome is Outcome.REMOVED


def test_only_those_whose_target_has_gone_are_sent_away(tmp_path: Path) -> None:
    # R3
    with (
        Target("inet", tmp_path) as one,
        Target("inet", tmp_path) as two,
        Relay([one.address, two.address]) as relay,
    ):
        (stays, _), (goes, _) = relay.pair(one), relay.pair(two)
        spec = relay.service.spec
        relay.call(
            lambda: send_away(relay, None, replace(spec, targets=spec.targets[:1], on_change=OnChange.CLOSE), 9.0)
        )
        assert was_reset(goes)
        assert relay.ended().outcome is Outcome.REMOVED
        assert relay.call(lambda: relay.service.counters.active) == 1
        stays.close()


def test_a_shorter_timeout_counts_for_live_connections(tmp_path: Path) -> None:
    # R3, S7
    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:
        client, _ = relay.pair(target)
        stream = replace(relay.service.stream, timeouts=StreamTimeouts(5.0, 0.2, None, None))
        relay.call(lambda: relay.service.change(replace(relay.service.spec, stream=stream), stream))
        assert was_reset(client)
        assert relay.ended().outcome is Outcome.IDLE_TIMEOUT


def test_what_waits_in_the_backlog_is_accepted_before_the_socket_goes(tmp_path: Path) -> None:
    # R2
    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:
        clients: list[socket.socket] = []

        def connect_and_finish() -> None:
            """The loop cannot accept meanwhile: this is its own turn."""
            clients.extend(relay.connect() for _ in range(50))
            relay.acceptor.finish()

        relay.call(connect_and_finish)
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
        for _ in clients:
            accepted = target.accept()
            accepted.sendall(b"answer to " + accepted.recv(10))
        assert [client.recv(100) for client in clients] == [b"answer to %d" % number for number in range(50)]
        with pytest.raises(ConnectionRefusedError):
            relay.connect()
