"""What comes back from the thread that asks."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from relayd.address import Address, NameAddress, UnixAddress
from relayd.cli.client import Place
from relayd.cli.top.poller import Answer, Poller
from tests.fake_admin import FakeAdmin, serving

DEADLINE_S = 20.0


class Asker:
    """A poller, and the wait for its answers."""

    def __init__(self, where: Address) -> None:
        self._woken = threading.Semaphore(0)
        self.poller = Poller(Place((where,)), self._woken.release)

    def answer(self) -> Answer:
        """The next one."""
        assert self._woken.acquire(timeout=DEADLINE_S), "the thread has not answered"
        (answer,) = self.poller.answers()
        return answer


@pytest.fixture
def admin() -> FakeAdmin:
    return FakeAdmin()


@pytest.fixture
def asker(admin: FakeAdmin) -> Iterator[Asker]:
    with ExitStack() as stack:
        yield Asker(stack.enter_context(serving(admin)))


def test_a_look(admin: FakeAdmin, asker: Asker) -> None:
    asker.poller.look("/v1/status", "/v1/connections")
    answer = asker.answer()
    assert answer.found is not None
    assert (answer.found[0], answer.found[1]["total"]) == (admin.status, 3)
    assert (answer.error, answer.asked_for, answer.killed) == ("", "", False)


def test_a_filter_that_is_none_is_refused_and_the_status_is_there(admin: FakeAdmin, asker: Asker) -> None:
    asker.poller.look("/v1/status", "/v1/connections?client=nonsense")
    answer = asker.answer()
    assert answer.found is not None
    assert (answer.found[0], answer.found[1]["connections"]) == (admin.status, [])
    assert "client is an address or a network" in answer.error


def test_a_connection_is_ended_or_not(admin: FakeAdmin, asker: Asker) -> None:
    found = []
    for number, in_time in ((1, True), (1, True), (2, False)):
        admin.complete = admin.has_time = in_time
        asker.poller.kill(f"8f76d9-0-{number}")
        answer = asker.answer()
        found.append((answer.asked_for, answer.killed, answer.error))
    assert found == [
        ("8f76d9-0-1", True, ""),
        ("8f76d9-0-1", False, "there is no such connection"),
        ("8f76d9-0-2", False, ""),
    ]


def test_nobody_is_there() -> None:
    asker = Asker(UnixAddress("@relayd-test-nobody"))
    asker.poller.look("/v1/status", "/v1/connections")
    assert asker.answer().error.startswith("no daemon listens at ")


def test_a_bug_is_an_answer_and_the_thread_goes_on() -> None:
    """A name that is none of IDNA, say: UnicodeError."""
    asker = Asker(NameAddress("a" * 64 + ".example", 9600))
    for _ in range(2):
        asker.poller.look("/v1/status", "/v1/connections")
        answer = asker.answer()
        assert (answer.found, answer.asked_for) == (None, "")
        assert answer.error.startswith("Unicode")
    asker.poller.kill("8f76d9-0-1")
    answer = asker.answer()
    assert (answer.asked_for, answer.killed) == ("8f76d9-0-1", False)
    assert answer.error.startswith("Unicode")
