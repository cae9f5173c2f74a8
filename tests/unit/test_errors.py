import errno

from relayd import errors
from relayd.errors import ACCEPT_RETRY, OUT_OF_RESOURCES, REFUSED, RESET, SPLICE_UNSUPPORTED, TRANSIENT


def test_no_number_is_in_two_groups_that_one_call_asks() -> None:
    for groups in (
        (TRANSIENT, ACCEPT_RETRY, OUT_OF_RESOURCES),
        (TRANSIENT, RESET, OUT_OF_RESOURCES),
        (TRANSIENT, SPLICE_UNSUPPORTED, RESET, OUT_OF_RESOURCES),
        (TRANSIENT, REFUSED, OUT_OF_RESOURCES),
    ):
        numbers = [number for group in groups for number in group]
        assert len(numbers) == len(set(numbers))


def test_names() -> None:
    assert errors.name(errno.ECONNRESET) == "ECONNRESET"
    assert errors.name(0) == ""
    assert errors.name(9999) == "9999"
