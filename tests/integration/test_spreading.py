"""session = "datagram" (D7): each datagram to the next target, with batched system calls and without."""

import dataclasses
import socket
import struct
from pathlib import Path

import pytest

from relayd.address import InetAddress, NameAddress
from relayd.net.datagrams import SOL_UDP, UDP_SEGMENT
from relayd.outcomes import Drop
from relayd.spec import OnTargetError, SessionMode
from tests.integration.datagram_relaying import DatagramRelay, DatagramTarget, dead_address
from tests.specs import DATAGRAM, TRUSTING

SPREADING = dataclasses.replace(DATAGRAM, session=SessionMode.DATAGRAM)


@pytest.fixture(params=["fast", "plain"])
def fast(request: pytest.FixtureRequest) -> bool:
    """Batches by one system call, or datagrams one by one."""
    return bool(request.param == "fast")


@pytest.mark.parametrize("kind", ["inet", "unix"])
def test_datagrams_go_to_the_targets_in_turn(fast: bool, kind: str, tmp_path: Path) -> None:
    with (
        DatagramTarget(kind, tmp_path) as one,
        DatagramTarget(kind, tmp_path) as two,
        DatagramTarget(kind, tmp_path) as three,
        DatagramRelay([one.address, two.address, three.address], fast=fast, datagram=SPREADING) as relay,
    ):
        targets = (one, two, three)
        client = relay.client()
        for number in range(12):
            client.send(b"%d" % number * (number % 4))
            assert targets[number % 3].receive().data == b"%d" % number * (number % 4)
        relay.client().send(b"another client, the next target")
        assert one.receive().data.startswith(b"another")
        counters = relay.counters
        assert (counters.datagrams_in, counters.accepted, counters.active) == (13, 0, 0)
        assert counters.bytes_in == sum(len(b"%d" % number) * (number % 4) for number in range(12)) + 31


def test_joined_datagrams_are_spread_one_by_one(fast: bool, tmp_path: Path) -> None:
    # D6
    with (
        DatagramTarget("inet", tmp_path) as one,
        DatagramTarget("inet6", tmp_path) as two,
        DatagramRelay([one.address, two.address], fast=fast, datagram=SPREADING) as relay,
    ):
        client = relay.client()
        data = bytes(range(250)) * 4
        client.sendmsg([data], [(SOL_UDP, UDP_SEGMENT, struct.pack("H", 300))])
        assert [one.receive().data, one.receive().data] == [data[:300], data[600:900]]
        assert [two.receive().data, two.receive().data] == [data[300:600], data[900:]]
        assert (relay.counters.datagrams_in, relay.counters.bytes_in) == (4, 1000)


def test_answers_are_counted_and_go_nowhere(fast: bool, tmp_path: Path) -> None:
    with (
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([target.address], fast=fast, datagram=SPREADING) as relay,
    ):
        client = relay.client()
        client.send(b"x")
        received = target.receive()
        for _ in range(40):
            received.reply(b"answer")
        relay.until_dropped(Drop.NO_REPLY_PATH, 40)
        client.send(b"y")
        assert target.receive().data == b"y"


def test_what_a_dead_target_would_get_goes_to_another(fast: bool, tmp_path: Path) -> None:
    # D5
    with (
        dead_address() as dead,
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([dead, target.address], fast=fast, datagram=SPREADING, health=TRUSTING) as relay,
    ):
        client = relay.client()
        for number in range(30):
            client.send(b"%d" % number)
        assert {target.receive().data for _ in range(30)} == {b"%d" % number for number in range(30)}
        assert not target.waiting()
        assert not relay.counters.dropped
        with DatagramTarget("inet", tmp_path, address=dead) as again:
            for number in range(4):
                client.send(b"%d" % number)
            assert {again.receive().data, again.receive().data} | {target.receive().data, target.receive().data} == {
                b"%d" % number for number in range(4)
            }


def test_a_dead_target_is_passed_over_for_a_while(fast: bool, tmp_path: Path) -> None:
    with (
        dead_address() as dead,
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([dead, target.address], fast=fast, datagram=SPREADING) as relay,
    ):
        client = relay.client()
        for number in range(30):
            client.send(b"%d" % number)
        assert {target.receive().data for _ in range(30)} == {b"%d" % number for number in range(30)}
        assert relay.counters.target_errors <= 2


def test_with_every_target_dead_each_datagram_is_counted_once(fast: bool) -> None:
    # D5: and none goes round in circles
    with (
        dead_address() as one,
        dead_address() as two,
        DatagramRelay([one, two], fast=fast, datagram=SPREADING) as relay,
    ):
        client = relay.client()
        for _ in range(20):
            client.send(b"x")
        relay.until_dropped(Drop.TARGET_FAILED, 20)
        assert "no target can be reached" in relay.dropped_line()[0]


def test_close_loses_what_was_sent_to_a_dead_target(fast: bool, tmp_path: Path) -> None:
    # D5
    datagram = dataclasses.replace(SPREADING, on_target_error=OnTargetError.CLOSE)
    with (
        dead_address() as dead,
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([dead, target.address], fast=fast, datagram=datagram, health=TRUSTING) as relay,
    ):
        client = relay.client()
        for number in range(10):
            client.send(b"%d" % number)
        assert [target.receive().data for _ in range(5)] == [b"%d" % number for number in range(1, 10, 2)]
        relay.until_dropped(Drop.TARGET_FAILED, 5)


def test_a_full_unix_target_is_passed_over(fast: bool, tmp_path: Path) -> None:
    with (
        DatagramTarget("unix", tmp_path) as full,
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([full.address, target.address], fast=fast, datagram=SPREADING) as relay,
    ):
        client = relay.client()
        for number in range(100):
            client.send(b"%d" % number)
        relay.until(lambda: relay.counters.datagrams_in == 100, "100 came")
        found = full.waiting()
        found += [target.receive().data for _ in range(100 - len(found))]
        assert sorted(found) == sorted(b"%d" % number for number in range(100))
        assert not relay.counters.dropped


def test_a_unix_target_that_was_restarted_is_found_again(fast: bool, tmp_path: Path) -> None:
    with (
        DatagramTarget("unix", tmp_path) as target,
        DatagramRelay([target.address], fast=fast, datagram=SPREADING) as relay,
    ):
        client = relay.client()
        client.send(b"one")
        assert target.receive().data == b"one"
        target.close()
        client.send(b"lost")
        relay.until_dropped(Drop.TARGET_FAILED, 1)
        with DatagramTarget("unix", tmp_path, address=target.address) as again:
            client.send(b"two")
            assert again.receive().data == b"two"


def test_targets_that_are_gone_from_a_name_are_let_go(fast: bool, tmp_path: Path) -> None:
    # T3
    with DatagramTarget("inet", tmp_path) as one:
        assert isinstance(one.address, InetAddress)
        other = dataclasses.replace(one.address, host="127.0.0.2")
        name = NameAddress("app.example.com", one.address.port)
        with (
            DatagramTarget("inet", tmp_path, address=other) as two,
            DatagramRelay([name], fast=fast, datagram=SPREADING) as relay,
        ):
            client = relay.client()
            client.send(b"lost")
            relay.until_dropped(Drop.NO_TARGET, 1)
            for addresses, target in (((one.address,), one), ((other,), two)):
                relay.call(lambda addresses=addresses: relay.services.resolved(name, addresses))  # type: ignore[misc]  # now
                client.send(b"x")
                assert target.receive().data == b"x"
            watched = relay.call(lambda: len(relay.loop.selector.get_map()))
            assert watched == 3  # the relay's own wake-up, the receiving socket, and one way


def test_a_drain_passes_on_what_has_arrived(fast: bool, tmp_path: Path) -> None:
    # R6
    with (
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([target.address], fast=fast, datagram=SPREADING) as relay,
    ):
        client = relay.client()

        def send_and_drain() -> None:
            for number in range(100):
                client.send(b"%d" % number)
            relay.services.drain()

        relay.call(send_and_drain)
        assert [target.receive().data for _ in range(100)] == [b"%d" % number for number in range(100)]
        assert relay.services.active == 0


def test_an_oversized_datagram_is_counted(fast: bool, tmp_path: Path) -> None:
    # D4
    with (
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([target.address], bind="[::1]:0", fast=fast, datagram=SPREADING) as relay,
    ):
        client = relay.client()
        assert client.family == socket.AF_INET6
        client.send(bytes(65_527))
        relay.until_dropped(Drop.TOO_LARGE, 1)
        client.send(b"x")
        assert target.receive().data == b"x"
