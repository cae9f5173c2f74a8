"""sd_listen_fds_with_names(3), in processes of their own: descriptors are passed by their numbers, from 3 on."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from relayd.sd.activation import Inherited, divided
from tests.passing import Passing, prefix

_SHOW = """
import json, os
from relayd.sd.activation import CannotInherit, inherited
try:
    found = [(one.name, one.fd, os.get_inheritable(one.fd)) for one in inherited()]
    again = inherited()
except CannotInherit as error:
    found, again = str(error), []
child = os.popen("env").read()
print(json.dumps([found, again, sorted(name for name in os.environ if "LISTEN" in name), "LISTEN" in child]))
"""


def shown(passing: Sequence[Passing] = (), environment: Mapping[str, str] | None = None) -> list[object]:
    """What such a process finds: names, numbers, and whether a child would inherit them; what it finds when it asks
    again; the variables that are left, and whether a child has them."""
    done = subprocess.run(
        [*prefix(passing), sys.executable, "-c", _SHOW],
        stdout=subprocess.PIPE,
        pass_fds=[file.fileno() for _, file in passing],
        env={**os.environ, **(environment or {})},
        check=True,
    )
    found: list[object] = json.loads(done.stdout)
    return found


def test_what_systemd_passes_is_found_once_and_nobody_inherits_it() -> None:
    with socket.socket() as one, socket.socket() as other:
        found = shown([("web", one), ("a b", other), ("web", other)])
    assert found == [[["web", 3, False], ["a b", 4, False], ["web", 5, False]], [], [], False]


def test_nothing_is_passed() -> None:
    assert shown() == [[], [], [], False]


def test_what_is_for_another_process_is_not_taken_and_not_handed_on() -> None:
    assert shown(environment={"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == [[], [], [], False]


def test_what_makes_no_sense_is_told() -> None:
    with socket.socket() as one:
        (said, *rest) = shown([("web:more", one)])  # two names for one descriptor
    assert isinstance(said, str)
    assert said.startswith("cannot take the sockets that systemd has passed (LISTEN_PID='")
    assert said.endswith("LISTEN_FDS='1', LISTEN_FDNAMES='web:more'): Invalid argument")
    assert rest == [[], [], False]


def test_the_services_own_store_is_told_from_the_sockets() -> None:
    own = [Inherited("relayd-manifest-1", 4), Inherited("relayd-", 6)]
    activating = [Inherited("web", 3), Inherited("relayd.socket", 5), Inherited("", 7)]
    assert divided(sorted(own + activating, key=lambda one: one.fd)) == (own, activating)
    assert divided([]) == ([], [])
