import pytest

from relayd.control import status
from relayd.control.status import Active


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((3, Active(128, None), 2, 0), "3 listeners, 128 connections"),
        ((1, Active(1, None), 1, 0), "1 listener, 1 connection"),
        ((2, Active(0, None), 2, 1), "2 listeners, 0 connections, 1 of 2 workers restarting"),
        ((2, Active(0, None), 1, 1), "2 listeners, 0 connections, 1 of 1 worker restarting"),
        ((2, Active(2, 1), 1, 0), "2 listeners, 2 connections, 1 session"),
        ((1, Active(None, 70), 1, 0), "1 listener, 70 sessions"),
    ],
)
def test_serving(numbers: tuple[int, Active, int, int], text: str) -> None:
    assert status.serving(*numbers) == text


def test_stopping() -> None:
    assert status.stopping(Active(12, None)) == "stopping: 12 connections left"
    assert status.stopping(Active(0, 1)) == "stopping: 0 connections, 1 session left"


def test_a_status_is_sent_when_it_changed_and_at_most_once_a_second() -> None:
    line = status.StatusLine()
    assert line.due("a", now=10.0)
    assert not line.due("a", now=20.0)
    assert line.due("b", now=20.0)
    assert not line.due("c", now=20.9)
    assert line.due("c", now=21.0)
