from relayd.address import Family, InetAddress, UnixAddress
from relayd.spec.passed import Inventory, Passed, Unusable, listed

DNS = InetAddress(Family.INET, "0.0.0.0", 53)


def test_what_was_passed_in_one_line() -> None:
    inventory: Inventory = {
        "dns": (Passed(True, DNS), Passed(False, DNS)),
        "pg": (Passed(False, UnixAddress("/run/pg.sock")),),
        "odd": (Unusable("a FIFO"),),
    }
    assert (
        listed(inventory)
        == "dns (dgram, 0.0.0.0:53), dns (stream, 0.0.0.0:53), pg (stream, unix:/run/pg.sock), odd (a FIFO)"
    )
    assert listed({}) == "none"


def test_a_line_has_an_end() -> None:
    many: Inventory = {f"n{number}": (Unusable("a FIFO"),) for number in range(10)}
    assert listed(many).endswith("n7 (a FIFO), and 2 more")
