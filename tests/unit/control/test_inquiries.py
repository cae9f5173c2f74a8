from relayd.channel.messages import Counted, Killed, Seen
from relayd.control.inquiries import Inquiries


def test_it_is_over_when_everybody_has_answered_all() -> None:
    open_ones = Inquiries()
    inquiry = open_ones.begin({1, 2})
    assert open_ones.heard(1, Killed(inquiry.number, 3))
    assert inquiry.missing == {2}
    assert open_ones.heard(2, Killed(inquiry.number, 0))
    assert inquiry.over
    assert inquiry.complete
    assert [worker for worker, _ in inquiry.answers] == [1, 2]


def test_an_answer_of_several_messages() -> None:
    open_ones = Inquiries()
    inquiry = open_ones.begin({1})
    assert not open_ones.heard(1, Seen(inquiry.number, 2, 0, last=False))
    assert not inquiry.over
    assert open_ones.heard(1, Seen(inquiry.number, 2, 0, last=True))
    assert inquiry.complete


def test_a_worker_that_is_gone_is_not_waited_for_and_missed() -> None:
    open_ones = Inquiries()
    inquiry = open_ones.begin({1, 2})
    open_ones.heard(1, Counted(inquiry.number, ()))
    open_ones.gone(1)
    open_ones.gone(2)
    assert inquiry.over
    assert not inquiry.complete
    assert inquiry.lost == {2}


def test_what_nobody_asked_is_for_nobody() -> None:
    open_ones = Inquiries()
    first, second = open_ones.begin({1}), open_ones.begin({1})
    open_ones.end(first)
    assert not open_ones.heard(1, Killed(first.number, 1))
    assert not open_ones.heard(2, Killed(second.number, 1)), "it was not asked"
    assert open_ones.heard(1, Killed(second.number, 1))
    assert not open_ones.heard(1, Killed(second.number, 1)), "it has answered"


def test_without_workers_it_is_over_at_once() -> None:
    assert Inquiries().begin(set()).complete
