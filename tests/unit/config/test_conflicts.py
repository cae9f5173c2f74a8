"""Which binds conflict, as this kernel has it; and which listeners lead back to themselves."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayd.config import ConfigError, Loaded, Problem, load, machine
from relayd.net.passed import describe
from relayd.spec.sockets import socket_count

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


def listening(
    host: str, port: int, *, ipv6_only: bool, interface: str | None, datagrams: bool = False
) -> socket.socket:
    """A listening socket as relayd makes them. OSError when the kernel says no."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
    try:
        if not datagrams:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ipv6_only)
        if interface:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        sock.bind((host.strip("[]"), port))
        if not datagrams:
            sock.listen()
    except OSError:
        sock.close()
        raise
    return sock


def asked(
    one: tuple[str, bool, str | None], other: tuple[str, bool, str | None], *, datagrams: bool
) -> tuple[int, bool]:
    """A port, and whether the kernel lets both listen on it. A port that somebody else has as well tells
    nothing.
    """
    for _ in range(20):
        with listening(one[0], 0, ipv6_only=one[1], interface=one[2], datagrams=datagrams) as first:
            port = first.getsockname()[1]
            try:
                listening(other[0], port, ipv6_only=other[1], interface=other[2], datagrams=datagrams).close()
            except OSError:
                pass
            else:
                return port, True
        try:
            listening(other[0], port, ipv6_only=other[1], interface=other[2], datagrams=datagrams).close()
        except OSError:
            continue  # it was not for `first`
        return port, False
    raise AssertionError("no port of 20 was free")


@pytest.mark.skipif(not machine.has_ipv6(), reason="needs IPv6")
@pytest.mark.parametrize("datagrams", [False, True])
@pytest.mark.parametrize("one", BINDS)
def test_as_the_kernel(tmp_path: Path, one: tuple[str, bool, str | None], datagrams: bool) -> None:
    for other in BINDS:
        as_the_kernel(tmp_path, one, other, datagrams=datagrams)


def as_the_kernel(
    tmp_path: Path, one: tuple[str, bool, str | None], other: tuple[str, bool, str | None], *, datagrams: bool
) -> None:
    port, kernel_allows = asked(one, other, datagrams=datagrams)
    path = tmp_path / "relay.toml"
    kind = "dgram" if datagrams else "stream"
    path.write_text("".join(block(name, bind, port, kind) for name, bind in (("one", one), ("other", other))))
    if kernel_allows:
        assert socket_count(replace(load(path).spec, workers=1)) == 2
    else:
        with pytest.raises(ConfigError, match="bound"):
            load(path)
    # The same when systemd has bound the first one.
    with listening(one[0], 0, ipv6_only=one[1], interface=one[2], datagrams=datagrams) as held:
        inventory = {"held": (describe(held.fileno()),)}
        path.write_text(block("other", other, held.getsockname()[1], kind))
        if kernel_allows:
            assert load(path, inventory).spec.listeners
        else:
            with pytest.raises(ConfigError, match="systemd has"):
                load(path, inventory)


def block(name: str, bind: tuple[str, bool, str | None], port: int, kind: str = "stream") -> str:
    host, ipv6_only, interface = bind
    lines = [f"[listeners.{name}]", f'bind = "{host}:{port}"', 'targets = "192.0.2.1:1"', f'type = "{kind}"']
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
    assert loaded("[listeners.a]\nbind = ['unix:@a', 'unix:/a']\ntargets = 'unix:/t'").spec.listeners


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


# Types and ranges.


def typed(name: str, kind: str, bind: str, target: str = "192.0.2.1:9") -> str:
    return f'[listeners.{name}]\ntype = {kind}\nbind = "{bind}"\ntargets = "{target}"\n'


STREAM, DGRAM, BOTH = '"stream"', '"dgram"', '["stream", "dgram"]'


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [(STREAM, DGRAM, False), (DGRAM, DGRAM, True), (BOTH, DGRAM, True), (STREAM, BOTH, True), (BOTH, BOTH, True)],
)
@pytest.mark.parametrize("bind", ["0.0.0.0:53", "unix:@a"])
def test_types_do_not_meet(
    load_or_problems: Callable[[str], int], one: str, other: str, conflict: bool, bind: str
) -> None:
    assert load_or_problems(typed("a", one, bind) + typed("b", other, bind)) == conflict


@pytest.mark.parametrize("kind", [STREAM, DGRAM])
def test_a_path_is_one_socket_whatever_its_type(problems: Problems, kind: str) -> None:
    (problem,) = problems(typed("a", DGRAM, "unix:/x/a") + typed("b", kind, "unix:/x/../x/a"))
    assert (problem.line, problem.key) == (7, "listeners.b.bind")


@pytest.fixture
def load_or_problems(write: Callable[[str], Path]) -> Callable[[str], int]:
    """How many problems a text has."""

    def count(text: str) -> int:
        try:
            load(write(text))
        except ConfigError as error:
            return len(error.problems)
        return 0

    return count


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("0.0.0.0:100-199", "0.0.0.0:150-249", "ports 150 to 199"),
        ("0.0.0.0:100-199", "127.0.0.1:199", "port 199"),
        ("127.0.0.1:100", "0.0.0.0:1-65535", "port 100"),
        ("[::]:100-199", "10.0.0.1:120-130", "ports 120 to 130"),
        ("10.0.0.1:120-130", ":1-125", "ports 120 to 125"),
        ("127.0.0.1:100-199", "127.0.0.1:100-200", "ports 100 to 199"),
    ],
)
@pytest.mark.parametrize("kind", [STREAM, DGRAM])
def test_ranges_that_meet(
    problems: Problems, monkeypatch: pytest.MonkeyPatch, one: str, other: str, shared: str, kind: str
) -> None:
    monkeypatch.setattr(machine, "has_ipv6", lambda: True)
    (problem,) = problems(typed("a", kind, one) + typed("b", kind, other))
    assert (problem.line, problem.column, problem.key) == (7, 8, "listeners.b.bind")
    assert "cannot both be bound: listeners.a at " in problem.message
    assert problem.message.endswith("relay.toml:3:8")
    assert problem.suggestion == f"help: both have {shared}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.0.0.0:100-199", "0.0.0.0:200-299"),
        ("0.0.0.0:100-199", "0.0.0.0:99"),
        ("127.0.0.1:100-199", "127.0.0.2:100-199"),
        ("127.0.0.1:100-199", "[::1]:100-199"),
    ],
)
def test_ranges_that_do_not(loaded: Load, one: str, other: str) -> None:
    assert loaded(typed("a", DGRAM, one) + typed("b", DGRAM, other)).spec


def test_ranges_in_two_files(write: Callable[..., Path]) -> None:
    write(typed("b", DGRAM, "0.0.0.0:150-160"), "b.toml")
    with pytest.raises(ConfigError) as caught:
        load(write('include = "b.toml"\n' + typed("a", DGRAM, "0.0.0.0:100-199")))
    (problem,) = caught.value.problems
    assert (Path(problem.file).name, problem.line, problem.column) == ("b.toml", 3, 8)
    assert problem.message.endswith("relay.toml:4:8")


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12), st.integers(0, 2), st.booleans()), max_size=12))
@settings(deadline=None)
def test_conflicts_are_those_of_every_port_by_itself(
    tmp_path_factory: pytest.TempPathFactory, binds: list[tuple[int, int, int, bool]]
) -> None:
    """Spans find what a look at every port would have found: a listener has a problem when it meets an earlier one."""
    hosts = ("0.0.0.0", "127.0.0.1", "127.0.0.2")
    held: set[tuple[str, int, str]] = set()
    text, expected = "", []
    for number, (first, more, host, datagrams) in enumerate(binds):
        kind = DGRAM if datagrams else STREAM
        text += typed(f"l{number}", kind, f"{hosts[host]}:{first}-{first + more}")
        wanted = {(kind, port, hosts[host]) for port in range(first, first + more + 1)}
        if any(
            (kind, port, other) in held
            for kind, port, mine in wanted
            for other in (hosts if mine == "0.0.0.0" else (mine, "0.0.0.0"))
        ):
            expected.append(f"listeners.l{number}.bind")
        held |= wanted
    path = tmp_path_factory.getbasetemp() / "spans.toml"
    path.write_text(text or "[log]\n")
    try:
        load(path)
        found = []
    except ConfigError as error:
        found = [problem.key for problem in error.problems if problem.key != "listeners"]
    assert found == expected


@pytest.mark.parametrize("kind", [STREAM, DGRAM, BOTH])
@pytest.mark.parametrize(
    ("bind", "target"),
    [
        ("127.0.0.1:100-199", "127.0.0.1:150-249"),
        ("127.0.0.1:100-199", "127.0.0.1:+99"),
        ("127.0.0.1:100-199", "127.0.0.1"),
        ("0.0.0.0:100-199", "localhost:+0"),
        ("0.0.0.0:100-199", "127.0.0.1:130"),
        ("127.0.0.1:53", "127.0.0.1:53"),
        ("[::]:100-199", "[::1]:+50"),
    ],
)
def test_forwards_to_itself_by_type_and_range(problems: Problems, kind: str, bind: str, target: str) -> None:
    (problem,) = problems(typed("a", kind, bind, target))
    assert problem.message == f'"{target.removesuffix(":+0")}" is this listener: it would forward to itself'
    assert (problem.line, problem.column, problem.key) == (4, 11, "listeners.a.targets")


@pytest.mark.parametrize(
    ("bind", "target"),
    [
        ("127.0.0.1:100-199", "127.0.0.1:+100"),
        ("127.0.0.1:100-199", "127.0.0.1:200-299"),
        ("0.0.0.0:9", "127.0.0.1:+1"),
    ],
)
def test_does_not_forward_to_itself_by_range(loaded: Load, bind: str, target: str) -> None:
    assert loaded(typed("a", DGRAM, bind, target)).spec


def test_a_chain_has_one_type_from_end_to_end(loaded: Load, problems: Problems) -> None:
    there, back = typed("a", DGRAM, "127.0.0.1:10-19", "127.0.0.1:+10"), "127.0.0.1:20-29"
    assert loaded(there + typed("b", STREAM, back, "127.0.0.1:10-19")).spec
    (problem,) = problems(there + typed("b", BOTH, back, "127.0.0.1:10-19"))
    assert problem.message == '"127.0.0.1:10-19" leads back here: b → a → b'


def test_a_problem_names_the_right_target_when_others_are_wrong(problems: Problems) -> None:
    found = problems('[listeners.a]\nbind = "127.0.0.1:5-9"\ntargets = ["192.0.2.1:1-2", "192.0.2.1:3-4", "127.0.0.1"]')
    assert [problem.key for problem in found] == [f"listeners.a.targets[{number}]" for number in range(3)]


def test_many_ports_and_many_listeners_are_looked_at_quickly(tmp_path: Path) -> None:
    """10,000 ports in one listener, and 1,000 listeners with ranges of 10,000 ports on addresses of their own: spans,
    and not the ten million ports in them."""
    text = typed("all", BOTH, "192.0.2.9:10000-19999", "192.0.2.8:+10000")
    for number in range(1000):
        address = f"10.0.{number // 250}.{number % 250 + 1}"
        text += typed(f"l{number}", DGRAM, f"{address}:20000-29999", f"{address}:30000-39999")
        text += typed(f"s{number}", STREAM, f"0.0.0.0:{number + 1}", f"127.0.0.1:{number + 40000}")
    path = tmp_path / "many.toml"
    path.write_text(text)
    before = time.process_time()
    spec = load(path).spec
    assert time.process_time() - before < 5.0
    assert socket_count(replace(spec, workers=2)) == 20_000 + 10_000_000 + 1000
