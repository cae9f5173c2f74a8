import pytest

from relayd.control import status


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((3, 128, 2, 0), "3 listeners, 128 connections"),
        ((1, 1, 1, 0), "1 listener, 1 connection"),
        ((2, 0, 2, 1), "2 listeners, 0 connections, 1 of 2 workers restarting"),
        ((2, 0, 1, 1), "2 listeners, 0 connections, 1 of 1 worker restarting"),
    ],
)
def test_serving(numbers: tuple[int, int, int, int], text: str) -> None:
    assert status.serving(*numbers) == text


def test_stopping() -> None:
    assert status.stopping(12) == "stopping: 12 connections left"


def test_a_status_is_sent_when_it_changed_and_at_most_once_a_second() -> None:
    line = status.StatusLine()
    assert line.due("a", now=10.0)
    assert not line.due("a", now=20.0)
    assert line.due("b", now=20.0)
    assert not line.due("c", now=20.9)
    assert line.due("c", now=21.0)
