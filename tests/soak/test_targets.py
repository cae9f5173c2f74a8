"""Targets that die, fall silent and flap under 500 new connections a second (T2), and who gets clients meanwhile.

uv run pytest -m soak tests/soak/test_targets.py     # three minutes; prints its figures
"""

import contextlib
import itertools
import math
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests import ports
from tests.e2e.daemon import Daemon
from tests.e2e.test_balancing import connect
from tests.soak.crowd import Clients, Target

pytestmark = pytest.mark.soak

RATE, WORKERS, TARGETS = 500, 2, 3
SUCCESS = 0.999
#: Before the target goes, while it is down, and after it is back.
PHASE_S = 5.0
FLAPS, FLAP_S = 15, 1.0
#: From what is found to no new client sent there.
TOLD_S = 0.1
CHECK = 'health_check = { type = "tcp", interval = "500ms", rise = 2, fall = 3 }\n'
#: Asks the program of a target, so that it can be down for checks while clients find nothing wrong.
ASKING = 'health_check = { type = "tcp", interval = "200ms", rise = 1, fall = 1, send = "PING", expect = "PONG" }\n'
FOUND_TIMES = 10
#: Draws are not seeded in a daemon: so chance has to be one in a million before it is blamed.
SIGNIFICANCE = 1e-6
Say: TypeAlias = Callable[[str], None]


def config(targets: list[Target], more: str) -> str:
    listed = ", ".join(f'"{target.text}"' for target in targets)
    return (
        f'[daemon]\nworkers = {WORKERS}\n[log]\nformat = "json"\n'
        f'[listeners.web]\nbind = "127.0.0.1:0"\ntargets = [{listed}]\nconnect_timeout = "1s"\n{more}'
    )


@pytest.fixture
def targets() -> Iterator[list[Target]]:
    """They listen at ports that stay theirs while they do not."""
    first = ports.free_range(TARGETS, ports.OWN_HOST)
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Target(ports.OWN_HOST, first + number)) for number in range(TARGETS)]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints a line of figures."""

    def printed(text: str) -> None:
        with capsys.disabled():
            sys.stderr.write(f"\n{text}")

    return printed


def clients_of(daemon: Daemon, rate: int = RATE, sources: int = 0, count: int | None = None) -> Clients:
    host, _, port = str(daemon.address("web")).rpartition(":")
    return Clients(host, int(port), rate, sources, count)


def at(line: dict[str, Any]) -> float:
    """When a line was written, in seconds since the epoch."""
    return datetime.fromisoformat(line["time"].replace("Z", "+00:00")).timestamp()


def connections(daemon: Daemon) -> list[dict[str, Any]]:
    """In the order in which they began."""
    return sorted(daemon.events("connection"), key=lambda line: float(line["start_time"]))


def between(lines: list[dict[str, Any]], first: float, last: float) -> list[dict[str, Any]]:
    return [line for line in lines if first <= line["start_time"] < last]


def later_than(lines: list[dict[str, Any]], target: str, found: float, until: float) -> float:
    """How long after `found` the last client before `until` began that was sent to `target`. Less than 0: before it.

    A client for whom there was more than one attempt may have been sent there as well.
    """
    sent = [each["start_time"] for each in lines if each["target"] == target or each["attempts"] > 1]
    return max((began for began in sent if began < until), default=-math.inf) - found


def pass_time(seconds: float) -> None:
    """Traffic flows meanwhile: nothing is waited for."""
    time.sleep(seconds)


@pytest.mark.parametrize("way", ["killed", "silent"])
def test_a_target_that_goes_and_comes_back(way: str, targets: list[Target], tmp_path: Path, say: Say) -> None:
    gone = targets[1]
    with Daemon(config(targets, CHECK), tmp_path) as daemon:
        with clients_of(daemon) as clients:
            pass_time(PHASE_S)
            went = time.time()
            gone.kill() if way == "killed" else gone.told("hole")
            down = at(daemon.wait_for_event("target_down"))
            pass_time(PHASE_S)
            came = time.time()
            gone.start() if way == "killed" else gone.told("heal")
            up = at(daemon.wait_for_event("target_up"))
            pass_time(PHASE_S)
        daemon.wait_for_event("connection", clients.told["count"])
        lines = connections(daemon)
        late_s = later_than(lines, gone.text, down, up)
        share = Counter(line["target"] for line in between(lines, up + TOLD_S, math.inf))
        suspects = len(daemon.events("target_suspect"))
        moved = [line for line in lines if line["attempts"] > 1]
        say(f"{way}: {clients.figures()}; {len(moved)} moved on, {suspects} suspect lines")
        say(
            f"  down {down - went:.2f} s after, last client sent there {late_s * 1000:+.0f} ms after that, "
            f"up {up - came:.2f} s after; then {[share[target.text] for target in targets]}\n"
        )
        assert clients.told["rate"] >= 0.98 * RATE
        assert clients.failed <= (1 - SUCCESS) * clients.told["count"]
        assert late_s <= TOLD_S
        # Its share again: round robin is exact in each worker.
        assert abs(share[gone.text] - share.total() / TARGETS) <= 0.05 * share.total() / TARGETS
        assert len(daemon.events("target_down")) == len(daemon.events("target_up")) == 1
        assert {line["outcome"] for line in moved} == {"normal"}


@pytest.mark.parametrize(("ill", "fit"), [("shut", "open"), ("hole", "heal")], ids=["refuses", "silent"])
def test_a_target_that_flaps(ill: str, fit: str, targets: list[Target], tmp_path: Path, say: Say) -> None:
    with Daemon(config(targets, CHECK), tmp_path) as daemon:
        with clients_of(daemon) as clients:
            pass_time(FLAP_S)
            for _, word in zip(range(FLAPS), itertools.cycle((ill, fit)), strict=False):
                targets[1].told(word)
                pass_time(FLAP_S)
            targets[1].told(fit)
            pass_time(PHASE_S)
        daemon.wait_for_event("connection", clients.told["count"])
        counts = {
            event: len(daemon.events(event))
            for event in ("target_down", "target_up", "target_suspect", "target_trusted")
        }
        say(f"flaps, {ill}: {clients.figures()}; {counts}\n")
        times = -(-FLAPS // 2)
        assert clients.failed <= (1 - SUCCESS) * clients.told["count"]
        # Each time it is ill it goes down at most once, and each worker suspects it at most once.
        assert counts["target_up"] <= counts["target_down"] <= times
        assert counts["target_trusted"] <= counts["target_suspect"] <= WORKERS * times


def test_what_checks_find_is_known_to_all_workers_at_once(targets: list[Target], tmp_path: Path, say: Say) -> None:
    sick = targets[1]
    with Daemon(config(targets, ASKING), tmp_path) as daemon:
        with clients_of(daemon) as clients:
            pass_time(FLAP_S)
            for number in range(1, FOUND_TIMES + 1):
                sick.told("sick")
                daemon.wait_for_event("target_down", number)
                pass_time(FLAP_S / 2)
                sick.told("well")
                daemon.wait_for_event("target_up", number)
                pass_time(FLAP_S / 2)
        daemon.wait_for_event("connection", clients.told["count"])
        lines = connections(daemon)
        ups = [at(line) for line in daemon.events("target_up")]
        downs = [at(line) for line in daemon.events("target_down")]
        lates = [1000 * later_than(lines, sick.text, down, up) for down, up in zip(downs, ups, strict=True)]
        theirs = [line["start_time"] for line in lines if line["target"] == sick.text]
        # The end of the times is that of milliseconds: less by one may be the same.
        backs = [1000 * (min(began for began in theirs if began >= up - 0.001) - up) for up in ups]
        say(f"sick: {clients.figures()}; {len(daemon.events('target_suspect'))} suspects")
        say(f"  last client after down, ms: {[round(late) for late in lates]}")
        say(f"  first client after up, ms: {[round(back) for back in backs]}\n")
        assert clients.failed == 0
        assert {line["attempts"] for line in lines} == {1}
        assert max(lates) <= 1000 * TOLD_S
        assert max(backs) <= 1000 * TOLD_S


# shares -------------------------------------------------------------------------------------------------------------

WEIGHTS = (5, 3, 1)
CLIENTS = 3000
LIVE = 300


def weighted(targets: list[Target], balance: str) -> str:
    listed = ", ".join(
        f'{{ address = "{target.text}"{f", weight = {weight}" if balance != "first" else ""} }}'
        for target, weight in zip(targets, WEIGHTS, strict=True)
    )
    return (
        f'[daemon]\nworkers = {WORKERS}\n[log]\nformat = "json"\n[listeners.web]\nbind = "127.0.0.1:0"\n'
        f'targets = [{listed}]\nbalance = "{balance}"\n'
    )


def chance(counts: list[int]) -> float:
    """How likely it is that shares by WEIGHTS are as far off: of chi-square with two degrees of freedom."""
    unit = sum(counts) / sum(WEIGHTS)
    chi_square = sum(
        (count - unit * weight) ** 2 / (unit * weight) for count, weight in zip(counts, WEIGHTS, strict=True)
    )
    return math.exp(-chi_square / 2)


def by_target(daemon: Daemon, targets: list[Target], count: int) -> list[int]:
    daemon.wait_for_event("connection", count)
    counts = Counter(line["target"] for line in daemon.events("connection"))
    assert counts.total() == count
    return [counts[target.text] for target in targets]


@pytest.mark.parametrize("balance", ["round_robin", "random", "first"])
def test_shares_of_all_workers_together(balance: str, targets: list[Target], tmp_path: Path, say: Say) -> None:
    with Daemon(weighted(targets, balance), tmp_path) as daemon:
        for _ in range(CLIENTS):  # one after the other: of an idle set draws are by weight
            with connect(daemon) as client:
                client.shutdown(socket.SHUT_WR)
                assert client.recv(1) == b""  # it has ended for the worker too
        counts = by_target(daemon, targets, CLIENTS)
        say(f"{balance}, weights {WEIGHTS}, {WORKERS} workers: {counts}, chance {chance(counts):.2g}\n")
        exact = [CLIENTS * weight / sum(WEIGHTS) for weight in WEIGHTS]
        if balance == "first":
            assert counts == [CLIENTS, 0, 0]
        elif balance == "round_robin":  # in each worker less than two turns ahead or behind
            assert all(abs(count - share) < 2 * WORKERS for count, share in zip(counts, exact, strict=True))
        else:
            assert chance(counts) > SIGNIFICANCE


def test_connections_that_stay_are_shared_by_weight(targets: list[Target], tmp_path: Path, say: Say) -> None:
    with Daemon(weighted(targets, "least_connections"), tmp_path) as daemon, contextlib.ExitStack() as stack:
        for _ in range(LIVE):
            stack.enter_context(connect(daemon))
        stack.close()
        counts = by_target(daemon, targets, LIVE)
        say(f"least_connections, {LIVE} that stay, weights {WEIGHTS}, {WORKERS} workers: {counts}\n")
        for count, weight in zip(counts, WEIGHTS, strict=True):
            assert abs(count - LIVE * weight / sum(WEIGHTS)) < 2 * WORKERS


def test_two_daemons_agree_on_every_client(targets: list[Target], tmp_path: Path, say: Say) -> None:
    found: list[dict[str, set[str]]] = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        with Daemon(weighted(targets, "source_hash"), tmp_path / name) as daemon:
            with clients_of(daemon, sources=CLIENTS // 2, count=CLIENTS) as clients:
                pass
            assert clients.failed == 0
            by_target(daemon, targets, CLIENTS)
            of: dict[str, set[str]] = {}
            for line in daemon.events("connection"):
                of.setdefault(line["client"], set()).add(line["target"])
            found.append(of)
    counts = [sum(of == {target.text} for of in found[0].values()) for target in targets]
    say(f"source_hash, {len(found[0])} clients of two daemons: {counts}, chance {chance(counts):.2g}\n")
    assert found[0] == found[1]
    assert len(found[0]) == sum(counts) == CLIENTS // 2
    assert chance(counts) > SIGNIFICANCE
