import json

import pytest

from relayd.channel.live import Row, line

ROW = Row(
    "a-1", 2, "web", "app", "tcp", "::1", 4711, "[::1]:80", "10.0.0.1:80", "relaying", "open", None,
    1.5, 0.25, 3, 4, 0.5, None, None, None, 1, 0.125, 0, 0.25, 3,
)  # fmt: skip
#: Members that are called otherwise than their field.
NAMES = {"flow_in": "in", "flow_out": "out"}


def members(row: Row) -> dict[str, object]:
    return {NAMES.get(name, name): value for name, value in row._asdict().items()}


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        ROW._replace(type="udp", flow_in=None, datagrams_in=1, datagrams_out=2),
        ROW._replace(rtt_ms=None, retrans=None),
        ROW._replace(target_rtt_ms=None, target_retrans=None),
        ROW._replace(rtt_ms=None, retrans=None, target_rtt_ms=None, target_retrans=None),
        ROW._replace(listener='a"b\\', client="unix:/a\nb\udc80", local="unix:@\x00", target="é"),
    ],
)
def test_it_is_the_json_of_it(row: Row) -> None:
    text = line(row)
    assert json.loads(text) == members(row)
    assert "\n" not in text
    assert text.isascii()


def test_times_and_rates_have_few_digits() -> None:
    text = line(ROW._replace(age_s=1 / 3, rate_in=1 / 3, rtt_ms=1 / 3))
    assert '"age_s":0.333,' in text
    assert '"rate_in":0.3,' in text
    assert '"rtt_ms":0.333,' in text
