"""What the records of a batch refer to by numbers."""

from relayd.address import Family, InetAddress
from relayd.choosing.group import Choice, choice_of
from relayd.relay.batch import Choices
from relayd.spec import Target


def choice(port: int) -> Choice:
    address = InetAddress(Family.INET, "192.0.2.1", port)
    return choice_of(address, Target(address))


def test_each_choice_is_there_once_whoever_has_it() -> None:
    choices = Choices()
    one, same, other = choice(1), choice(1), choice(2)
    assert one is not same
    assert [choices.number(each) for each in (one, other, same, other, one, same)] == [0, 1, 0, 1, 0, 0]
    assert choices.every == [one, other]
