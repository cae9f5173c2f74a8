"""`systemd:NAME`, where it is known what systemd has passed, and where it is not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.address import Family, InetAddress, SocketAddress, SystemdAddress, UnixAddress
from relayd.config import ConfigError, Loaded, Problem, load
from relayd.spec import Bind
from relayd.spec.passed import Inventory, Passed, Unusable

Load = Callable[[str], Loaded]
Problems = Callable[[str], tuple[Problem, ...]]


def inet(host: str, port: int) -> InetAddress:
    return InetAddress(Family.INET6 if ":" in host else Family.INET, host, port)


DNS = Passed(True, inet("0.0.0.0", 53))
WEB = Passed(False, inet("0.0.0.0", 80))
WEB6 = Passed(False, inet("::", 80), ipv6_only=True)
INVENTORY: Inventory = {
    "dns": (DNS,),
    "web": (WEB, WEB6),
    "both": (Passed(False, UnixAddress("@both")), Passed(True, UnixAddress("@both"))),
    "connection": (Unusable("a connection: the unit has Accept=yes"),),
}
LISTED = (
    "systemd passed: dns (dgram, 0.0.0.0:53), web (stream, 0.0.0.0:80), web (stream, [::]:80), "
    "both (stream, unix:@both), both (dgram, unix:@both), connection (a connection: the unit has Accept=yes)"
)


def listener(name: str, bind: str, more: str = "") -> str:
    return f'[listeners.{name}]\nbind = {bind}\ntargets = "192.0.2.1:1"\n{more}\n'


def wrong(path: Path, text: str, inventory: Inventory) -> Problem:
    """The one thing that is wrong with `text`."""
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, inventory)
    (problem,) = caught.value.problems
    return problem


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "relay.toml"


@pytest.mark.parametrize(
    ("name", "more", "passed"),
    [
        ("dns", 'type = "dgram"', (DNS,)),
        ("web", "", (WEB, WEB6)),
        ("both", 'type = ["stream", "dgram"]\nfamily = "unix"', INVENTORY["both"]),
        ("both", "", INVENTORY["both"]),
        ("dns", 'type = "dgram"\nfamily = "inet"', (DNS,)),
    ],
)
def test_what_was_passed_is_in_the_spec(file: Path, name: str, more: str, passed: tuple[Passed, ...]) -> None:
    file.write_text(listener("a", f'"systemd:{name}"', more))
    (found,) = load(file, INVENTORY).spec.listeners
    assert found.binds == (Bind(SystemdAddress(name), passed=passed),)


def test_where_nothing_is_known_any_name_will_do(loaded: Load) -> None:
    (found,) = loaded(listener("a", '"systemd:anything"', 'family = "inet6"')).spec.listeners
    assert found.binds == (Bind(SystemdAddress("anything")),)


def test_a_name_that_was_not_passed(file: Path) -> None:
    problem = wrong(file, listener("a", '["127.0.0.1:81", "systemd:wep"]'), INVENTORY)
    assert str(problem) == (
        f'{file}:2:25: listeners.a.bind[1]: "systemd:wep": there is no socket of this name; {LISTED}\n'
        '    bind = ["127.0.0.1:81", "systemd:wep"]\n'
        "                            ^\n"
        '    did you mean "systemd:web"?'
    )


def test_nothing_was_passed(file: Path) -> None:
    problem = wrong(file, listener("a", '"systemd:web"'), {})
    assert problem.message == '"systemd:web": there is no socket of this name; systemd passed: none'
    assert problem.suggestion == (
        "help: FileDescriptorName=web in the .socket unit, and a restart: systemd passes sockets at the start"
    )


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("dns", "", "there is no stream socket of this name"),
        ("web", 'type = "dgram"', "there is no dgram socket of this name"),
        ("web", 'type = ["dgram", "stream"]', "there is no dgram socket of this name"),
        ("web", 'family = "inet"', '[::]:80 is inet6, but family is "inet"'),
        ("web", 'family = "inet6"', '0.0.0.0:80 is inet, but family is "inet6"'),
        ("both", 'family = "inet6"', 'unix:@both is unix, but family is "inet6"'),
        ("connection", "", "relayd cannot listen on what has this name"),
    ],
)
def test_a_socket_that_will_not_do(file: Path, name: str, more: str, message: str) -> None:
    problem = wrong(file, listener("a", f'"systemd:{name}"', more), INVENTORY)
    assert (problem.line, problem.column, problem.key) == (2, 8, "listeners.a.bind")
    assert problem.message == f'"systemd:{name}": {message}; {LISTED}'


def test_a_wrong_type_is_the_only_error_about_it(file: Path) -> None:
    problem = wrong(file, listener("a", '"systemd:dns"', 'type = "stram"'), INVENTORY)
    assert problem.key == "listeners.a.type"


# Keys.


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('interface = "lo"', "BindToDevice"),
        ("ipv6_only = true", "BindIPv6Only"),
        ("freebind = true", "FreeBind"),
        ('mode = "0600"', "SocketMode"),
        ('user = "0"', "SocketUser"),
        ('group = "0"', "SocketGroup"),
    ],
)
@pytest.mark.parametrize("inventory", [None, INVENTORY])
def test_what_belongs_in_the_unit(file: Path, inventory: Inventory | None, line: str, name: str) -> None:
    file.write_text(listener("a", '"systemd:web"', line))
    with pytest.raises(ConfigError) as caught:
        load(file, inventory)
    (problem,) = caught.value.problems
    key = line.partition(" ")[0]
    assert (problem.line, problem.column, problem.key) == (4, 1, f"listeners.a.{key}")
    assert problem.message == f"belongs in the .socket unit, as {name}=: systemd makes the sockets of this listener"
    # A default has no effect.
    file.write_text(f"[defaults]\n{line}\n" + listener("a", '"systemd:web"'))
    plain = file.with_name("plain.toml")
    plain.write_text(listener("a", '"systemd:web"'))
    assert load(file, inventory).spec.listeners == load(plain, inventory).spec.listeners


@pytest.mark.parametrize("inventory", [None, INVENTORY])
@pytest.mark.parametrize("target", ["192.0.2.1:1", "unix:@to"])
def test_what_can_be_set_on_a_socket_that_is_bound(file: Path, inventory: Inventory | None, target: str) -> None:
    """Whatever its family, which nobody knows who checks the file."""
    keys = 'fast_open = true\ndefer_accept = "1s"\nnodelay = false\nbacklog = 5\nkeepalive = false\n'
    file.write_text(f'[listeners.a]\nbind = "systemd:both"\ntargets = "{target}"\n{keys}')
    (found,) = load(file, inventory).spec.listeners
    assert (found.binding.fast_open, found.binding.defer_accept_s, found.binding.backlog) == (True, 1, 5)
    assert found.stream is not None
    assert (found.stream.options.nodelay, found.stream.options.keepalive) == (False, None)


def test_beside_a_bind_of_its_own_a_key_is_about_that_one(file: Path, problems: Problems) -> None:
    file.write_text(listener("a", '["systemd:web", "[::1]:81"]', 'ipv6_only = true\ninterface = "lo"'))
    assert load(file, INVENTORY).spec.listeners[0].binding.ipv6_only
    file.write_text(listener("a", '["systemd:web", "unix:/nonexistent/a"]', 'mode = "0600"\nfast_open = true'))
    assert load(file, INVENTORY).spec.listeners[0].binding.mode == 0o600
    (problem,) = problems(listener("a", '["systemd:web", "unix:/nonexistent/a"]', "freebind = true"))
    assert problem.message == "belongs to inet and inet6 binds; this listener has Unix ones"
    (problem,) = problems(listener("a", '["systemd:web", "127.0.0.1:81"]', 'mode = "0600"'))
    assert problem.message == "belongs to the file of a unix:/path bind; there is none"


@pytest.mark.parametrize("inventory", [None, INVENTORY])
@pytest.mark.parametrize(
    ("target", "message", "suggestion"),
    [
        ("10.0.0.9", "the port follows that of", 'did you mean "10.0.0.9:80"?'),
        ("10.0.0.9:+5", "the port follows that of", ""),
        ("10.0.0.9:1-5", "a range of ports needs a bind of as many, and which port", ""),
    ],
)
def test_no_port_follows_one_that_is_systemds_to_say(
    file: Path, inventory: Inventory | None, target: str, message: str, suggestion: str
) -> None:
    file.write_text(f'[listeners.a]\nbind = "systemd:web"\ntargets = "{target}"\n')
    with pytest.raises(ConfigError) as caught:
        load(file, inventory)
    (problem,) = caught.value.problems
    assert problem.message.startswith(f'"{target}": {message}')
    assert problem.suggestion == suggestion


# Between listeners.


@pytest.mark.parametrize("inventory", [None, INVENTORY])
def test_a_socket_is_one_listeners(file: Path, inventory: Inventory | None) -> None:
    file.write_text(listener("a", '"systemd:web"') + listener("b", '"systemd:web"'))
    with pytest.raises(ConfigError) as caught:
        load(file, inventory)
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (6, "listeners.b.bind")
    assert problem.message == f'"systemd:web" is taken already: listeners.a at {file}:2:8'
    # One name may have sockets for two listeners of different types.
    file.write_text(listener("a", '"systemd:both"') + listener("b", '"systemd:both"', 'type = "dgram"'))
    assert len(load(file, inventory).spec.listeners) == 2


@pytest.mark.parametrize(
    ("bind", "more", "held", "suggestion"),
    [
        ("0.0.0.0:80", "", "0.0.0.0:80, and passes it as web", 'did you mean "systemd:web"?'),
        ("127.0.0.1:80", "", "0.0.0.0:80, and passes it as web", 'did you mean "systemd:web"?'),
        ("[::1]:80", "", "[::]:80, and passes it as web", 'did you mean "systemd:web"?'),
        ("127.0.0.1:79-85", "", "0.0.0.0:80, and passes it as web", ""),
        (
            "127.0.0.1:53",
            'type = ["stream", "dgram"]',
            "0.0.0.0:53, and passes it as dns",
            'did you mean "systemd:dns"?',
        ),
        ("unix:@both", "", "unix:@both, and passes it as both", 'did you mean "systemd:both"?'),
    ],
)
@pytest.mark.parametrize("used", [False, True])
def test_nothing_is_bound_beside_what_systemd_has(
    file: Path, used: bool, bind: str, more: str, held: str, suggestion: str
) -> None:
    others = 'type = "dgram"\n' if "dns" in held else ""
    name = held.rpartition(" ")[2]
    text = (listener("used", f'"systemd:{name}"', others) if used else "") + listener("a", f'"{bind}"', more)
    problem = wrong(file, text, INVENTORY)
    assert problem.key == "listeners.a.bind"
    assert problem.message == f'"{bind}" cannot be bound: systemd has {held}'
    assert problem.suggestion == suggestion


@pytest.mark.parametrize(
    ("bind", "more"),
    [
        ("127.0.0.1:53", ""),  # systemd has it for datagrams
        ("127.0.0.1:81", ""),
        ("127.0.0.1:80", 'type = "dgram"'),
        ("unix:@other", ""),
    ],
)
def test_what_can_be_bound_beside_it(file: Path, bind: str, more: str) -> None:
    file.write_text(listener("a", f'"{bind}"', more) + listener("b", '"systemd:web"'))
    assert len(load(file, INVENTORY).spec.listeners) == 2


def test_what_systemd_has_on_one_interface_or_of_one_family_alone(file: Path) -> None:
    inventory: Inventory = {"web": (Passed(False, inet("0.0.0.0", 80), interface="eth7"), WEB6)}
    file.write_text(listener("a", '"0.0.0.0:80"', 'interface = "lo"') + listener("b", '"systemd:web"'))
    assert len(load(file, inventory).spec.listeners) == 2
    file.write_text(listener("a", '"0.0.0.0:80"') + listener("b", '"systemd:web"'))
    with pytest.raises(ConfigError, match=r"systemd has 0\.0\.0\.0:80"):
        load(file, inventory)
    dual: Inventory = {"web": (Passed(False, inet("::", 80)),)}
    with pytest.raises(ConfigError, match=r"systemd has \[::\]:80"):
        load(file, dual)
    only_six: Inventory = {"web": (WEB6,)}
    assert len(load(file, only_six).spec.listeners) == 2


def test_sockets_that_systemd_has_bound_beside_each_other_do_not_conflict(file: Path) -> None:
    """ReusePort=yes."""
    file.write_text(listener("a", '"systemd:one"') + listener("b", '"systemd:other"'))
    assert len(load(file, {"one": (WEB, WEB), "other": (WEB,)}).spec.listeners) == 2


@pytest.mark.parametrize("used", ["", listener("a", '"systemd:web"')])
def test_the_admin_api_is_not_beside_it_either(file: Path, used: str) -> None:
    text = '[admin]\nlisten = "127.0.0.1:80"\n' + (used or listener("a", '"127.0.0.1:81"'))
    problem = wrong(file, text, INVENTORY)
    assert problem.key == "admin.listen"
    beside = f"listeners.a at {file}:4:8" if used else "systemd:web, which is 0.0.0.0:80"
    assert problem.message == f'"127.0.0.1:80" cannot be bound beside {beside}'


@pytest.mark.parametrize(
    ("address", "target"),
    [
        (inet("0.0.0.0", 80), "127.0.0.1:80"),
        (inet("::", 80), "localhost:80"),
        (UnixAddress("@web"), "unix:@web"),
    ],
)
def test_a_listener_that_would_forward_to_itself(file: Path, address: SocketAddress, target: str) -> None:
    inventory: Inventory = {"web": (Passed(False, address), Passed(True, inet("127.0.0.1", 81)))}
    text = f'[listeners.a]\nbind = "systemd:web"\ntargets = "{target}"\n'
    problem = wrong(file, text, inventory)
    assert problem.message == f'"{target}" is this listener: it would forward to itself'
    file.write_text(text)
    assert load(file).spec.listeners  # where it is not known what the name stands for
    file.write_text('[listeners.a]\nbind = "systemd:web"\ntargets = "127.0.0.1:81"\n')
    assert load(file, inventory).spec.listeners  # that is for datagrams
