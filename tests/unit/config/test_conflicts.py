"""Which binds conflict, as this kernel has it; and which listeners lead back to themselves."""

import itertools
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relayd.config import ConfigError, Loaded, Problem, load, machine

Load = Callable[[str], Loaded]
Problems = Callable[[str], tuple[Problem, ...]]

#: host, ipv6_only, interface: everything that can be told apart on one machine.
BINDS = [
    ("0.0.0.0", False, None),
    ("127.0.0.1", False, None),
    ("127.0.0.2", False, None),
    ("[::]", False, None),
    ("[::]", True, None),
    ("[::1]", False, None),
    ("[::ffff:127.0.0.1]", False, None),
    ("0.0.0.0", False, "lo"),
    ("127.0.0.1", False, "lo"),
    ("[::]", False, "lo"),
]


def listening(host: str, port: int, *, ipv6_only: bool, interface: str | None) -> socket.socket:
    """A listening socket as relayd makes them. OSError when the kernel says no."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ipv6_only)
        if interface:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        sock.bind((host.strip("[]"), port))
        sock.listen()
    except OSError:
        sock.close()
        raise
    return sock


def asked(one: tuple[str, bool, str | None], other: tuple[str, bool, str | None]) -> tuple[int, bool]:
    """A port, and whether the kernel lets both listen on it. A port that somebody else has as well tells nothing."""
    for _ in range(20):
        with listening(one[0], 0, ipv6_only=one[1], interface=one[2]) as first:
            port = first.getsockname()[1]
            try:
                listening(other[0], port, ipv6_only=other[1], interface=other[2]).close()
            except OSError:
                pass
            else:
                return port, True
        try:
            listening(other[0], port, ipv6_only=other[1], interface=other[2]).close()
        except OSError:
            continue  # it was not for `first`
        return port, False
    raise AssertionError("no port of 20 was free")


@pytest.mark.skipif(not machine.has_ipv6(), reason="needs IPv6")
@pytest.mark.parametrize(("one", "other"), list(itertools.product(BINDS, BINDS)))
def test_as_the_kernel(tmp_path: Path, one: tuple[str, bool, str | None], other: tuple[str, bool, str | None]) -> None:
    port, kernel_allows = asked(one, other)
    path = tmp_path / "relay.toml"
    path.write_text("".join(block(name, bind, port) for name, bind in (("one", one), ("other", other))))
    if kernel_allows:
        assert load(path).spec.socket_count == 2
    else:
        with pytest.raises(ConfigError, match="bound"):
            load(path)


def block(name: str, bind: tuple[str, bool, str | None], port: int) -> str:
    host, ipv6_only, interface = bind
    lines = [f"[listeners.{name}]", f'bind = "{host}:{port}"', 'targets = "192.0.2.1:1"']
    lines += ["ipv6_only = true"] if ipv6_only else []
    lines += [f'interface = "{interface}"'] if interface else []
    return "\n".join(lines) + "\n"


def test_two_interfaces_do_not_conflict(loaded: Load) -> None:
    text = block("a", ("0.0.0.0", False, "lo"), 80) + block("b", ("0.0.0.0", False, "eth7"), 80)
    assert len(loaded(text).spec.listeners) == 2


def test_port_0_never_conflicts(loaded: Load) -> None:
    text = block("a", ("0.0.0.0", False, None), 0) + block("b", ("0.0.0.0", False, None), 0)
    assert len(loaded(text).spec.listeners) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [("@a", "@a"), ("/x/a", "/x/a"), ("/x/../x/a", "/x/a"), ("//x//a", "/x/a")],
)
def test_unix_paths(problems: Problems, one: str, other: str) -> None:
    (problem,) = problems(f'[listeners.a]\nbind = ["unix:{one}", "unix:@b", "unix:{other}"]\ntargets = "unix:/t"')
    assert problem.key == "listeners.a.bind[2]"


def test_unix_path_through_a_link(problems: Problems, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    os.symlink("real", tmp_path / "link")
    binds = [f"unix:{tmp_path}/real/a", f"unix:{tmp_path}/link/a"]
    (problem,) = problems(f"[listeners.a]\nbind = {binds}\ntargets = 'unix:/t'")
    assert problem.key == "listeners.a.bind[1]"


def test_abstract_name_and_path_are_two(loaded: Load) -> None:
    assert loaded("[listeners.a]\nbind = ['unix:@a', 'unix:/a']\ntargets = 'unix:/t'").spec.socket_count == 2


@pytest.mark.parametrize(
    ("bind", "target"),
    [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("0.0.0.0:80", "127.9.9.9:80"),
        (":80", "127.0.0.1:80"),
        ("[::]:80", "[::1]:80"),
        ("[::]:80", "127.0.0.1:80"),
        ("0.0.0.0:80", "localhost:80"),
        ("127.0.0.1:80", "LOCALHOST.:80"),
        ("[::1]:80", "localhost:80"),
        ("[::1]:80", "web.localhost:80"),
        ("0.0.0.0:80", f"{socket.gethostname()}:80"),
        ("unix:/x/a", "unix:/x/../x/a"),
        ("unix:@a", "unix:@a"),
    ],
)
def test_forwards_to_itself(problems: Problems, bind: str, target: str) -> None:
    (problem,) = problems(f'[listeners.a]\nbind = "{bind}"\ntargets = ["192.0.2.1:9", "{target}"]')
    assert problem.message == f'"{target}" is this listener: it would forward to itself'
    assert (problem.line, problem.key) == (3, "listeners.a.targets[1]")


@pytest.mark.parametrize(
    ("bind", "target"),
    [
        ("127.0.0.1:80", "127.0.0.1:81"),
        ("127.0.0.1:80", "127.0.0.2:80"),
        ("0.0.0.0:80", "192.0.2.77:80"),
        ("0.0.0.0:80", "[::1]:80"),
        ("127.0.0.1:80", "example.com:80"),
        ("192.0.2.2:80", "localhost:80"),
        ("unix:@a", "unix:/a"),
        ("127.0.0.1:0", "127.0.0.1:80"),
    ],
)
def test_does_not_forward_to_itself(loaded: Load, bind: str, target: str) -> None:
    assert loaded(f'[listeners.a]\nbind = "{bind}"\ntargets = ["{target}"]').spec.listeners


def test_own_address_of_the_machine(problems: Problems, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "is_own", lambda family, host: host == "192.0.2.9")
    (problem,) = problems('[listeners.a]\nbind = "0.0.0.0:80"\ntargets = ["192.0.2.9:80", "192.0.2.8:80"]')
    assert problem.key == "listeners.a.targets[0]"


def test_a_bind_to_another_interface_is_not_reached(loaded: Load) -> None:
    assert loaded('[listeners.a]\nbind = "0.0.0.0:80"\ninterface = "eth0"\ntargets = "127.0.0.1:80"').spec


def chain(targets: dict[int, list[int]]) -> str:
    """Listeners l1, l2… on ports 1001, 1002…, each with the ports of others as its targets."""
    text = ""
    for one, others in targets.items():
        addresses = [f"127.0.0.1:{1000 + other}" for other in others]
        text += f'[listeners.l{one}]\nbind = "127.0.0.1:{1000 + one}"\ntargets = {addresses}\n'
    return text


def leads_back(problems: tuple[Problem, ...]) -> Iterator[str]:
    for problem in problems:
        yield problem.message.partition("leads back here: ")[2] or problem.message


@pytest.mark.parametrize(
    ("targets", "ways"),
    [
        ({1: [2], 2: [1]}, ["l2 → l1 → l2"]),
        ({1: [2], 2: [3], 3: [1]}, ["l3 → l1 → l2 → l3"]),
        ({1: [2], 2: [3], 3: [2]}, ["l3 → l2 → l3"]),
        ({1: [9, 2], 2: [9, 1]}, ["l2 → l1 → l2"]),
        ({1: [2], 2: [1], 3: [4], 4: [3]}, ["l2 → l1 → l2", "l4 → l3 → l4"]),
    ],
)
def test_ways_round(problems: Problems, targets: dict[int, list[int]], ways: list[str]) -> None:
    assert list(leads_back(problems(chain(targets)))) == ways


def test_a_chain_is_no_way_round(loaded: Load) -> None:
    assert len(loaded(chain({1: [2, 3], 2: [3, 4], 3: [4], 4: [9]})).spec.listeners) == 4


def test_a_way_round_of_1000(problems: Problems) -> None:
    (problem,) = problems(chain({n: [n % 1000 + 1] for n in range(1, 1001)}))
    assert problem.key == "listeners.l1000.targets[0]"
