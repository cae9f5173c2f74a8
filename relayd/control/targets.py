"""Every target of every pool: what it is by its checks, by its clients and by an operator's order (T2, T4).

    spec, answers of names ──▶ members ──▶ subjects of checks
                                  │
    checks, orders ───────────────┴──▶ TargetStates, for the workers; and what `relayd target list` shows

Orders outlive a reload, where their target does, and no restart: what is to last is said in the file. Each that is
lost has a line (`orders`).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from relayd import clock
from relayd.address import InetAddress, NameAddress, ServiceAddress, SocketAddress
from relayd.channel.messages import Resolved, TargetFailures, TargetStates
from relayd.config.ports import target_text
from relayd.control.checks.subject import Subject
from relayd.control.orders import Key, Left, Order, Orders, unpack
from relayd.control.verdict import Change, Verdict
from relayd.log.events import Event
from relayd.spec import (
    WEIGHT_MAX,
    Balance,
    CheckKind,
    Listener,
    Ordered,
    PortRule,
    Share,
    Spec,
    Target,
    TargetState,
    Wanted,
)
from relayd.values import dataclass

if TYPE_CHECKING:
    from relayd.control.checks.checker import Checker, Known
    from relayd.control.metrics import TargetFacts

__all__ = ["Key", "Targets"]

#: Where a command takes no effect, it says which names there are: so many at most.
_NAMES_MAX = 20
#: So many targets that are none any more go on from what was counted of them, should they come back.
_GONE_MAX = 1000
#: Lines about orders that are lost together: then their number is said.
_LOST_MAX = 100
#: What clients have met a while ago says nothing of the next one: workers try again after 60 s at most.
_LATELY_S = 30.0


@dataclass(frozen=True, slots=True)
class Member:
    """A target of a pool: one address, whatever ports the listeners have. `listener` is the first of those that share
    it.
    """

    pool: str
    #: `spec.Target.origin`.
    origin: str
    #: What people call it.
    text: str
    target: Target
    address: SocketAddress
    share: Share
    listener: Listener

    @property
    def key(self) -> Key:
        """What it is known by."""
        return self.pool, self.origin

    @property
    def texts(self) -> tuple[str, ...]:
        """What it may be called."""
        return self.text, self.origin, str(self.target.address)


@dataclass(slots=True)
class _Heard:
    """What clients have met since it works no more, or ever."""

    count: int
    reason: str
    #: Monotonic, as all times here.
    at: float


class Targets:
    """The targets of what is in force. For the event loop.

    `make_checker` is called when the first target is to be asked: most configurations ask nobody, and a start is short.
    `publish` has the workers know what there is to be known.
    """

    def __init__(
        self,
        say: Callable[..., None],
        publish: Callable[[TargetStates], None],
        make_checker: "Callable[[Callable[[], None]], Checker]",
    ) -> None:
        self._say = say
        self._publish = publish
        self._make_checker = make_checker
        self._checker: Checker | None = None
        self._left: object = None
        self._spec: Spec | None = None
        self._answers: dict[Wanted, Resolved] = {}
        self._members: dict[Key, Member] = {}
        self._orders = Orders()
        self._lost: list[Left] = []
        #: What workers know of addresses that they are about to lose.
        self._going: tuple[TargetState, ...] = ()
        #: Who gets no clients; and who gets them again, since when.
        self._out: set[Key] = set()
        self._back: dict[Key, float] = {}
        self._heard: dict[Key, _Heard] = {}
        #: How often clients met it failing before it was a target this time, in this life and those before.
        self._before: dict[Key, int] = {}

    # what there is ----------------------------------------------------------------------------------------------

    def restore(self, left: object) -> None:
        """Before the first `change`: what `snapshot` has returned in the life before."""
        self._left = left
        if isinstance(left, dict):
            self._lost = list(unpack(left.get("orders")))

    def snapshot(self) -> object:
        """What the next life has to know of checks, and of orders, as JSON; None: nothing."""
        known = {} if self._checker is None else self._checker.snapshot()
        orders = self._orders.pack()
        return ({**known, "orders": orders} if orders else known) or None

    def failures(self) -> list[list[Any]]:
        """What the next life has to know of failures, as JSON: pool, target and count of each target."""
        keys = [key for key in self._members if self._failures(key)]
        return [[*key, self._failures(key)] for key in keys]

    def restore_failures(self, left: object) -> None:
        """What `failures` has returned in the life before; what is not understood counts as nothing."""
        for each in left if isinstance(left, list) else ():
            if isinstance(each, list) and list(map(type, each)) == [str, str, int]:
                self._before[each[0], each[1]] = each[2]

    def change(self, spec: Spec) -> None:
        """From now on these."""
        self._spec = spec
        lost, self._lost = [left for left in self._lost if not self._says_the_same(left)], []
        self._tell_lost(lost, "relayd was restarted")
        self._answers = {wanted: answer for wanted, answer in self._answers.items() if wanted in spec.names}
        self._look()

    def resolved(self, answer: Resolved, pass_on: Callable[[Resolved], None] | None = None) -> None:
        """A name has other addresses. `pass_on` has workers know it: they know before what is to be known of those that
        come, and forget of those that go afterwards. No client meets a target that is out.
        """
        before = tuple(self._states())
        self._answers[answer.wanted] = answer
        self._going = before
        self._look()
        self._going = tuple(state for state in before if (state.pool, state.target) not in self._members)
        if pass_on is not None:
            pass_on(answer)
        if self._going:
            self._going = ()
            self._tell()

    def close(self) -> None:
        """Ask nobody any more."""
        if self._checker is not None:
            self._checker.close()

    def _look(self) -> None:
        self._members = {member.key: member for member in self._found()}
        for key in [key for key in self._heard if key not in self._members]:
            self._before[key] = self._before.pop(key, 0) + self._heard.pop(key).count
        self._forget()
        here = {member.key: member.target for member in self._members.values()}
        listed = {(listener.pool_name, target) for listener in self._listeners for target in listener.targets}
        self._tell_lost(self._orders.keep(here, listed), "it is not in the file any more")
        subjects = [subject for subject in map(_subject, self._members.values()) if subject is not None]
        if self._checker is None and subjects:
            self._checker = self._make_checker(self._tell)
            if self._left is not None:
                self._checker.restore(self._left)
        if self._checker is not None:
            self._checker.change(subjects)
        self._tell()

    def _forget(self) -> None:
        """Targets that are none any more shall not be ever more: those of names come and go."""
        gone = [key for key in self._before if key not in self._members]
        for key in gone[:-_GONE_MAX]:
            del self._before[key]

    @property
    def _listeners(self) -> tuple[Listener, ...]:
        return self._spec.listeners if self._spec is not None else ()

    def _found(self) -> Iterator[Member]:
        seen = set()
        for listener in self._listeners:
            ports = max(bind.ports for bind in listener.binds)
            for index, target in enumerate(listener.targets):
                for address, share in self._addresses(listener, target, listener.share(index)):
                    origin = target.origin(address)
                    if (listener.pool_name, origin) not in seen:
                        seen.add((listener.pool_name, origin))
                        text = target_text(replace(target, address=address), ports)
                        yield Member(listener.pool_name, origin, text, target, address, share, listener)

    def _addresses(self, listener: Listener, target: Target, share: Share) -> Iterator[tuple[SocketAddress, Share]]:
        """What `target` stands for now, each with its share: of SRV records, their own."""
        if not isinstance(target.address, NameAddress | ServiceAddress):
            yield target.address, share
            return
        answer = self._answers.get(Wanted(target.address, listener.resolve))
        if answer is None:
            return
        for index, address in enumerate(answer.addresses):
            own = answer.shares[index] if answer.shares else share
            yield address, replace(share, weight=own.weight, backup=own.backup or share.backup)

    # what is heard, and told ------------------------------------------------------------------------------------

    def failed(self, failures: TargetFailures) -> None:
        """Clients have met these."""
        for each in failures.failures:
            key = each.pool, each.target
            if key in self._members:
                heard = self._heard.setdefault(key, _Heard(0, "", 0.0))
                heard.count += each.count
                heard.reason, heard.at = each.reason, clock.monotonic()
                if each.news and self._checker is not None and _is_asked(self._members[key], each.datagrams):
                    self._checker.failed(*key, each.count, each.reason)

    def _tell(self) -> None:
        states = tuple(self._states())
        self._note_back(
            {(each.pool, each.target) for each in states if not each.up or each.ordered is not Ordered.ENABLED}
        )
        going = (each for each in self._going if (each.pool, each.target) not in self._members)
        self._publish(TargetStates((*states, *going)))

    def _note_back(self, out: set[Key]) -> None:
        """Those that are `out` get no clients, and all others do: some again."""
        now = clock.monotonic()
        back = self._back | dict.fromkeys(self._out - out, now)
        self._back = {key: at for key, at in back.items() if key in self._members and key not in out}
        self._out = out

    def _states(self) -> Iterator[TargetState]:
        """Of those that are not up, or not as the file has them."""
        for key, member in self._members.items():
            order, up = self._orders.of(key, member.target), self._up(key)
            if order is not None or not up:
                ordered, weight = (order.ordered, order.weight) if order is not None else (Ordered.ENABLED, None)
                yield TargetState(*key, up, ordered, weight)

    def _up(self, key: Key) -> bool:
        known = self._known(key)
        return known is None or known.up

    # orders -----------------------------------------------------------------------------------------------------

    def order(self, pool: str, target: str, ordered: Ordered | None, weight: int | None = None) -> Verdict:
        """Have `target`, as `list` shows it or as the file has it, be `ordered`; or, where that is None, have `weight`,
        0 for that of the file. What the file has as a name is every address that it has, or will have.
        """
        listeners = [listener for listener in self._listeners if listener.pool_name == pool]
        if not listeners:
            return self._no_pool(pool)
        members = [member for member in self._members.values() if member.pool == pool]
        names = _names(listeners, target)
        chosen = [member for member in members if not names and target in member.texts]
        absent = [] if names or chosen else list(self._orders.absent(pool, target, self._members))
        if not names and not chosen and not absent:
            return _no(f"pool {pool} has no target {target!r}", target, {member.text for member in members})
        if weight is not None and (problem := _wrong_weight(weight, listeners[0].balance)):
            return Verdict(False, (), (problem,))
        found = [self._obey_of_name(pool, name, text, ordered, weight) for text, name in names.items()]
        found += [self._obey(one.key, one.target, one.text, one.share, ordered, weight) for one in chosen]
        found += [self._obey(key, of, target, Share(), ordered, weight) for key, of in absent]
        changes = tuple(change for change in found if change is not None)
        if changes:
            self._tell()
        return Verdict(True, changes)

    def _no_pool(self, pool: str) -> Verdict:
        for listener in self._listeners:
            if listener.name == pool:
                return Verdict(False, (), (f"listener {pool} shares the targets of pool {listener.pool_name}",))
        return _no(f"there is no pool {pool!r}", pool, {listener.pool_name for listener in self._listeners})

    def _obey_of_name(
        self, pool: str, name: Target, text: str, ordered: Ordered | None, weight: int | None
    ) -> Change | None:
        if not self._orders.say_of_name((pool, name), text, ordered, weight, clock.monotonic()):
            return None
        count = sum((member.pool, member.target) == (pool, name) for member in self._members.values())
        what = ordered.value if ordered is not None else f"weight {weight or 'as in the file'}"
        now = f"{count} address{'' if count == 1 else 'es'} now, and those to come"
        return self._ordered(pool, text, f"{what} ({now})", ordered)

    def _obey(
        self, key: Key, of: Target, text: str, share: Share, ordered: Ordered | None, weight: int | None
    ) -> Change | None:
        was = self._orders.of(key, of) or Order()
        self._orders.say_of_address(key, of, text, ordered, weight, clock.monotonic())
        now = self._orders.of(key, of) or Order()
        if (was.ordered, was.weight) == (now.ordered, now.weight):
            return None
        if was.ordered is not now.ordered:
            return self._ordered(key[0], text, now.ordered.value, now.ordered)
        what = f"weight {was.weight or share.weight} -> {now.weight or share.weight}"
        return self._ordered(key[0], text, what, now.ordered)

    def _ordered(self, pool: str, target: str, what: str, state: Ordered | None) -> Change:
        text = f"target {target} of {pool}: {what}"
        fields = {} if state is None else {"state": state.value}
        self._say(Event.TARGET_ORDERED, text, pool=pool, target=target, **fields)
        return Change("~", None, text)

    def _says_the_same(self, left: Left) -> bool:
        """The file has what was ordered: nothing is lost."""
        if left.ordered is not Ordered.ENABLED:
            return False
        shares = [
            listener.share(index)
            for listener in self._listeners
            for index, target in enumerate(listener.targets)
            if listener.pool_name == left.pool and left.target in _texts(listener, target)
        ]
        return bool(shares) and {share.weight for share in shares} == {left.weight}

    def _tell_lost(self, lost: list[Left], why: str) -> None:
        for left in lost[:_LOST_MAX]:
            text = f"target {left.target} of {left.pool}: the order on it ({left}) does not hold any more: {why}"
            self._say(Event.TARGET_ORDER_LOST, text, pool=left.pool, target=left.target)
        if len(lost) > _LOST_MAX:
            text = f"{len(lost) - _LOST_MAX} more orders on targets do not hold any more: {why}"
            self._say(Event.TARGET_ORDER_LOST, text, pool="", target="")

    def explain(
        self, name: str, client: bytes, port: int | None, active: Mapping[Key, int] | None = None
    ) -> dict[str, Any] | str:
        """Which target of the listener `name` a client of this key would get, as docs/admin.md says; or why nobody can
        say. `active` as for `status`.
        """
        from relayd.control.explaining import (
            Facts,
            NoSuchPort,
            explain,
        )  # what workers choose by: a start is done without it

        listeners = {listener.name: listener for listener in self._spec.listeners} if self._spec is not None else {}
        listener = listeners.get(name)
        if listener is None:
            return _no(f"there is no listener {name!r}", name, set(listeners)).errors[0]
        states = {state.target: state for state in self._states() if state.pool == listener.pool_name}
        ours = [member for member in self._members.values() if member.pool == listener.pool_name]
        known = {one.origin: self._checker.state(*one.key) for one in ours} if self._checker is not None else {}
        facts = {
            one.origin: Facts(
                failed_ago_s=self._failed_ago_s(one.key),
                slow_start_s=self._slow_start_s(one),
                active=None if active is None else active.get(one.key, 0),
                max_connections=one.share.max_connections,
            )
            for one in ours
        }
        reasons = {target: each.why for target, each in known.items() if each is not None}
        answers = [answer for answer in self._answers.values() if answer.resolve == listener.resolve]
        try:
            return explain(listener, states, answers, reasons, facts, client, port)
        except NoSuchPort as error:
            return f"listener {name}: {error}"

    def _failed_ago_s(self, key: Key) -> int | None:
        """None: not lately."""
        heard = self._heard.get(key)
        ago_s = clock.monotonic() - heard.at if heard is not None else _LATELY_S
        return int(ago_s) if ago_s < _LATELY_S else None

    def _slow_start_s(self, member: Member) -> int | None:
        """How long its slow start goes on; None: there is none."""
        since = self._back.get(member.key)
        left_s = 0.0 if since is None else since + member.listener.health.slow_start_s - clock.monotonic()
        return math.ceil(left_s) if left_s > 0 else None

    # to be shown ------------------------------------------------------------------------------------------------

    def status(self, active: Mapping[Key, int] | None = None) -> list[dict[str, Any]]:
        """Every target, in the order of the file, as docs/admin.md says. `active` are those that have connections or
        sessions, and how many; None: that is not known.
        """
        now = clock.monotonic()
        times = _Times.of(now)
        return [
            self._shown(member, times, None if active is None else active.get(member.key, 0))
            for member in self._members.values()
        ]

    def facts(self) -> "Iterator[TargetFacts]":
        """For the metrics."""
        from relayd.control.metrics import TargetFacts  # which a start does not wait for

        epoch = _Times.of(clock.monotonic()).epoch
        for member in self._members.values():
            known = self._known(member.key)
            state, since, _ = self._state(member)
            yield TargetFacts(
                pool=member.pool,
                target=member.text,
                state=state,
                up=None if known is None else known.up,
                failures=self._failures(member.key),
                since=None if since is None else round(epoch + since, 1),  # the wall clock is set now and then
                cause="" if known is None or known.cause is None else known.cause.value,
            )

    def _failures(self, key: Key) -> int:
        """Of all lives, and of the times before, where this is not a target for the first time."""
        heard = self._heard.get(key)
        return self._before.get(key, 0) + (heard.count if heard is not None else 0)

    def _known(self, key: Key) -> "Known | None":
        return self._checker.state(*key) if self._checker is not None else None

    def _state(self, member: Member) -> tuple[str, float | None, str]:
        """What it is, since when, and why."""
        order, known = self._orders.of(member.key, member.target), self._known(member.key)
        if order is not None and order.ordered is not Ordered.ENABLED:
            return order.ordered.value, order.since, f"by order on {order.name}" if order.name else "by order"
        if known is None:
            return "unchecked", None, ""
        return "up" if known.up else "down", known.since, known.why

    def _shown(self, member: Member, times: "_Times", active: int | None) -> dict[str, Any]:
        key, share = member.key, member.share
        heard, known, order = self._heard.get(key), self._known(key), self._orders.of(key, member.target)
        state, since, reason = self._state(member)
        return {
            "pool": member.pool,
            "target": member.text,
            "state": state,
            "since": times.of_day(since),
            "for_s": times.ago_s(since),
            "reason": reason,
            "weight": order.weight if order is not None and order.weight is not None else share.weight,
            "backup": share.backup,
            "max_connections": share.max_connections,
            "active": active,
            "check": None
            if known is None
            else {
                "up": known.up if known.asked else None,
                "at": times.of_day(known.last_at),
                "ms": None if known.last_duration_s is None else round(known.last_duration_s * 1000, 3),
                "reason": known.last_reason,
            },
            "failures": None
            if heard is None
            else {"count": heard.count, "reason": heard.reason, "ago_s": times.ago_s(heard.at)},
        }


@dataclass(frozen=True, slots=True)
class _Times:
    """Monotonic times for people: `epoch` is the wall clock less the monotonic one."""

    now: float
    epoch: float

    @classmethod
    def of(cls, now: float) -> "_Times":
        """As of now."""
        return cls(now, clock.wall() - now)

    def of_day(self, at: float | None) -> str | None:
        """ISO 8601, in UTC."""
        return None if at is None else f"{clock.utc(round(at + self.epoch))}Z"

    def ago_s(self, at: float | None) -> int | None:
        """Whole seconds."""
        return None if at is None else max(0, round(self.now - at))


def _is_asked(member: Member, datagrams: bool) -> bool:  # noqa: FBT001  # private
    """Whether what a client meets says something about what the check asks: the same port, by the same protocol. A port
    of a range that nobody listens on says nothing about the others, nor TCP about UDP.
    """
    check, address = member.listener.health.check, member.address
    if check is None or member.target.rule is not PortRule.FIXED:
        return False
    port = address.port if isinstance(address, InetAddress) else None
    same_port = check.port is None or check.port == port
    return check.kind is CheckKind.EXEC or (same_port and datagrams is (check.kind is CheckKind.UDP))


def _texts(listener: Listener, target: Target) -> tuple[str, str]:
    """What `target` may be called: as the file has it, or by its address alone."""
    return target_text(target, max(bind.ports for bind in listener.binds)), str(target.address)


def _names(listeners: Iterable[Listener], text: str) -> dict[str, Target]:
    """The targets of these that are called `text`, and are not addresses themselves; each by what people call it."""
    return {
        _texts(listener, target)[0]: target
        for listener in listeners
        for target in listener.targets
        if isinstance(target.address, NameAddress | ServiceAddress) and text in _texts(listener, target)
    }


def _subject(member: Member) -> Subject | None:
    check = member.listener.health.check
    if check is None:
        return None
    address = member.address
    if check.port is not None and isinstance(address, InetAddress):
        address = replace(address, port=check.port)
    source = member.listener.source if check.kind is not CheckKind.EXEC else None
    return Subject(member.pool, member.origin, address, check, source, member.text)


def _wrong_weight(weight: int, balance: Balance) -> str:
    if balance is Balance.FIRST:
        return 'no weights with balance = "first": the first target that does not fail gets every client'
    return "" if 0 <= weight <= WEIGHT_MAX else f"a weight is 1 to {WEIGHT_MAX}"


def _no(message: str, word: str, names: set[str]) -> Verdict:
    """With the name that was meant, or those that there are."""
    import difflib  # for those who mistype; a start is short

    close = difflib.get_close_matches(word, names, 1)
    if close:
        return Verdict(False, (), (f"{message}: did you mean {close[0]}?",))
    some = ", ".join(sorted(names)[:_NAMES_MAX]) + (", ..." if len(names) > _NAMES_MAX else "")
    return Verdict(False, (), (f"{message}: there is {some}" if names else message,))
