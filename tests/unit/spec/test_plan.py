"""What has to be done from one spec to another, and what becomes of live connections."""

from collections.abc import Hashable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.address import Family, InetAddress, NameAddress, SystemdAddress, UnixAddress
from relayd.spec import (
    Admin,
    Bind,
    Listener,
    ListenerLog,
    Log,
    OnChange,
    Passed,
    SocketOptions,
    Spec,
    Stream,
    StreamTimeouts,
    Target,
)
from relayd.spec.plan import Adjust, Close, Open, Plan, Postpone, Serve, effect, plan
from relayd.spec.sockets import endpoints
from tests.specs import BINDING, DATAGRAM

STREAM = Stream(3, SocketOptions(True, None, None, None), StreamTimeouts(5.0, None, None, None))
WEB = Bind(InetAddress(Family.INET, "127.0.0.1", 80))
WEB6 = Bind(InetAddress(Family.INET6, "::1", 80))
RANGE = Bind(InetAddress(Family.INET, "127.0.0.1", 5000), 3)
UNIX = Bind(UnixAddress("/run/a.sock"))
ONE, TWO = (Target(InetAddress(Family.INET, f"10.0.0.{number}", 80)) for number in (1, 2))
LISTENER = Listener("web", (WEB,), BINDING, (ONE, TWO), None, STREAM, None)


def spec(*listeners: Listener, workers: int = 2) -> Spec:
    return Spec(workers, 30.0, Log("info", "auto", access=True), listeners)


bindings = st.builds(
    replace,
    st.just(BINDING),
    backlog=st.sampled_from([16, 64]),
    ipv6_only=st.booleans(),
    interface=st.sampled_from([None, "lo"]),
    mode=st.sampled_from([0o600, 0o660]),
)
streams = st.sampled_from([STREAM, replace(STREAM, options=replace(STREAM.options, nodelay=False)), None])


def listeners_named(names: list[str]) -> st.SearchStrategy[tuple[Listener, ...]]:
    """Listeners of these names whose binds do not meet: each has hosts and paths of its own, or those of another."""
    hosts = st.permutations([f"127.0.0.{number}" for number in range(1, len(names) + 1)])

    def with_hosts(order: list[str]) -> st.SearchStrategy[tuple[Listener, ...]]:
        return st.tuples(*(_listener(name, host) for name, host in zip(names, order, strict=True)))

    return hosts.flatmap(with_hosts)


def _listener(name: str, host: str) -> st.SearchStrategy[Listener]:
    binds = st.lists(
        st.sampled_from(
            [
                Bind(InetAddress(Family.INET, host, 80)),
                Bind(InetAddress(Family.INET, host, 5000), 3),
                Bind(InetAddress(Family.INET, host, 0)),
                Bind(UnixAddress(f"/run/{host}.sock")),
            ]
        ),
        min_size=1,
        unique=True,
    ).map(tuple)
    return st.builds(
        Listener,
        st.just(name),
        binds,
        bindings,
        st.lists(st.sampled_from([ONE, TWO]), min_size=1, unique=True).map(tuple),
        st.none(),
        streams,
        st.just(DATAGRAM),
        st.sampled_from([None, *OnChange]),
    )


specs = st.lists(st.sampled_from(["a", "b", "c"]), unique=True, max_size=3).flatmap(
    lambda names: st.builds(
        Spec,
        st.integers(1, 3),
        st.sampled_from([10.0, 30.0]),
        st.builds(Log, st.sampled_from(["info", "debug"]), st.sampled_from(["auto", "json"]), st.booleans()),
        listeners_named(names),
    )
)


@given(specs)
def test_nothing_is_to_be_done_where_nothing_has_changed(one: Spec) -> None:
    assert plan(one, one).steps == ()
    assert plan(one, one).spec == one


@given(st.none() | specs, st.none() | specs)
def test_the_steps_lead_from_one_to_the_other(old: Spec | None, new: Spec | None) -> None:
    """Applied to what is open for `old` they give exactly what is open for `new`, and nothing is opened twice."""
    change = plan(old, new)
    opened = {endpoint.key: endpoint for endpoint in endpoints(old)} if old is not None else {}
    served = old
    phases: list[int] = []
    for step in change.steps:
        if isinstance(step, Open):
            assert step.endpoint.key not in opened
            opened[step.endpoint.key] = step.endpoint
        elif isinstance(step, Adjust):
            assert opened[step.new.key] == step.old
            opened[step.new.key] = step.new
        elif isinstance(step, Serve):
            served = step.spec
        elif isinstance(step, Close):
            del opened[step.endpoint.key]
        phases.append({Open: 0, Adjust: 0, Serve: 1, Close: 2, Postpone: 2}[type(step)])
    assert served == change.spec
    wanted = {endpoint.key for endpoint in endpoints(change.spec)} if change.spec is not None else set[Hashable]()
    assert set(opened) == wanted
    assert phases == sorted(phases)


@given(specs, specs)
def test_what_is_in_force_is_what_was_asked_for_but_for_what_is_postponed(old: Spec, new: Spec) -> None:
    change = plan(old, new)
    if not any(isinstance(step, Postpone) for step in change.steps):
        assert change.spec == new
    assert change.spec is not None
    again = plan(change.spec, new)
    assert {step for step in again.steps if not isinstance(step, Postpone)} == set()
    assert set(again.steps) == {step for step in change.steps if isinstance(step, Postpone)}


def test_a_listener_of_another_name_takes_the_socket_over() -> None:
    change = plan(spec(LISTENER), spec(replace(LISTENER, name="other")))
    assert [type(step) for step in change.steps] == [Serve]


def test_a_range_changes_by_its_difference() -> None:
    old = replace(LISTENER, binds=(RANGE,))
    new = replace(LISTENER, binds=(Bind(replace_port(RANGE, 5001), 4),))
    steps = plan(spec(old), spec(new)).steps
    assert [str(step.endpoint.address) for step in steps if isinstance(step, Open)] == [
        "127.0.0.1:5003",
        "127.0.0.1:5004",
    ]
    assert [str(step.endpoint.address) for step in steps if isinstance(step, Close)] == ["127.0.0.1:5000"]


def replace_port(bind: Bind, port: int) -> InetAddress:
    assert isinstance(bind.address, InetAddress)
    return replace(bind.address, port=port)


def test_what_a_bound_socket_cannot_change_waits_for_a_restart() -> None:
    old = replace(LISTENER, binds=(WEB, WEB6))
    new = replace(old, binding=replace(BINDING, ipv6_only=True, interface="lo", backlog=1))
    change = plan(spec(old), replace(spec(new, workers=5), log=Log("info", "json", access=True)))
    assert {step for step in change.steps if isinstance(step, Postpone)} == {
        Postpone(None, "daemon.workers"),
        Postpone(None, "log.format"),
        Postpone("web", "interface"),
        Postpone("web", "ipv6_only"),
    }
    assert change.spec == spec(replace(old, binding=replace(BINDING, backlog=1)))
    moved = replace(new, binds=(Bind(InetAddress(Family.INET, "127.0.0.9", 80)),))
    assert not any(isinstance(step, Postpone) for step in plan(spec(old), spec(moved)).steps)


KEEP, DRAIN, CLOSE = OnChange.KEEP, OnChange.DRAIN, OnChange.CLOSE
SLOWER = replace(LISTENER, stream=replace(STREAM, dial_attempts=1))
WITHOUT_ONE = replace(LISTENER, targets=(TWO,))
WITH_MORE = replace(LISTENER, targets=(ONE, TWO, Target(NameAddress("c.example", 80))))


@pytest.mark.parametrize(
    ("new", "target", "unset", "keep", "drain", "close"),
    [
        (LISTENER, ONE, KEEP, KEEP, KEEP, KEEP),
        (WITH_MORE, ONE, KEEP, KEEP, KEEP, KEEP),
        (WITHOUT_ONE, TWO, KEEP, KEEP, KEEP, KEEP),
        (WITHOUT_ONE, ONE, DRAIN, KEEP, DRAIN, CLOSE),
        (replace(LISTENER, log=ListenerLog(False, "debug", True, 60.0)), ONE, KEEP, KEEP, KEEP, KEEP),
        (SLOWER, ONE, KEEP, KEEP, DRAIN, CLOSE),
        (SLOWER, None, KEEP, KEEP, DRAIN, CLOSE),
        (None, ONE, DRAIN, KEEP, DRAIN, CLOSE),
        (None, None, DRAIN, KEEP, DRAIN, CLOSE),
    ],
)
def test_what_becomes_of_a_connection(
    new: Listener | None, target: Target | None, unset: OnChange, keep: OnChange, drain: OnChange, close: OnChange
) -> None:
    # R3
    for policy, expected in ((None, unset), (KEEP, keep), (DRAIN, drain), (CLOSE, close)):
        old = replace(LISTENER, on_change=policy)
        assert effect(old, new and replace(new, on_change=policy), target) is expected, policy


def test_the_new_policy_counts_where_there_is_one() -> None:
    assert effect(replace(LISTENER, on_change=CLOSE), replace(WITHOUT_ONE, on_change=KEEP), ONE) is KEEP
    assert effect(replace(LISTENER, on_change=KEEP), replace(LISTENER, on_change=CLOSE), ONE) is KEEP


def test_a_socket_of_systemd_stays_when_its_listener_is_renamed_and_needs_no_restart_for_what_it_does_not_have() -> (
    None
):
    passed = Bind(SystemdAddress("web"), passed=(Passed(False, InetAddress(Family.INET, "0.0.0.0", 80)),))
    old = replace(LISTENER, binds=(passed,))
    assert plan(spec(old), spec(replace(old, name="other"))).steps == (Serve(spec(replace(old, name="other"))),)
    changed = replace(old, binding=replace(BINDING, interface="lo", ipv6_only=True, backlog=5))
    (adjust, serve) = plan(spec(old), spec(changed)).steps
    assert isinstance(adjust, Adjust)
    assert serve == Serve(spec(changed))
    # Beside a bind of its own, `interface` is about that one.
    both = replace(old, binds=(passed, WEB))
    steps = plan(spec(both), spec(replace(both, binding=replace(BINDING, interface="lo")))).steps
    assert steps == (Postpone("web", "interface"),)


GUARDED = Admin((UnixAddress("@a"),), "/token", "0" * 64, read_only=True, hosts=("a",))


def with_admin(admin: Admin) -> Spec:
    return replace(spec(), admin=admin)


def test_who_may_ask_changes_at_once_and_where_by_a_restart() -> None:
    free = replace(GUARDED, token_file="", token_sha256="", read_only=False, hosts=())
    assert plan(with_admin(GUARDED), with_admin(free)) == Plan((Serve(with_admin(free)),), with_admin(free))
    moved = replace(GUARDED, listen=(UnixAddress("@b"),), token_sha256="1" * 64)
    found = plan(with_admin(GUARDED), with_admin(moved))
    assert found.spec == with_admin(replace(moved, listen=GUARDED.listen))
    assert Postpone(None, "admin.listen") in found.steps


def test_what_guards_an_address_stays_as_long_as_that() -> None:
    gone = Admin((UnixAddress("@b"),), hosts=("b",))
    found = plan(with_admin(GUARDED), with_admin(gone))
    assert found.spec == with_admin(replace(GUARDED, hosts=("b",)))
    keys = {step.key for step in found.steps if isinstance(step, Postpone)}
    assert keys == {"admin.listen", "admin.token_file", "admin.read_only"}
