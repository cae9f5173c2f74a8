"""Every target of every pool: what it is by its checks, by its clients and by an operator's order (T2, T4).

    spec, answers of names ──▶ members ──▶ subjects of checks
                                  │
    checks, orders ───────────────┴──▶ TargetStates, for the workers; and what `relayd target list` shows

Orders outlive a reload, where their target does, and no restart: what is to last is said in the file.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from relayd import clock
from relayd.address import InetAddress, NameAddress, ServiceAddress, SocketAddress
from relayd.channel.messages import Resolved, TargetFailures, TargetStates
from relayd.config.ports import target_text
from relayd.control.checks.subject import Subject
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

if TYPE_CHECKING:
    from relayd.control.checks.checker import Checker, Known
    from relayd.control.metrics import TargetFacts

__all__ = ["Key", "Targets"]

#: A pool and a target of it, as of `spec.TargetState`.
Key: TypeAlias = tuple[str, str]
#: Where a command takes no effect, it says which names there are: so many at most.
_NAMES_MAX = 20
#: So many targets that are none any more go on from what was counted of them, should they come back.
_GONE_MAX = 1000


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


@dataclass(frozen=True, slots=True)
class _Order:
    ordered: Ordered
    weight: int | None
    #: Monotonic, as all times here.
    since: float


@dataclass(slots=True)
class _Heard:
    """What clients have met since it works no more, or ever."""

    count: int
    reason: str
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
        self._orders: dict[Key, _Order] = {}
        self._heard: dict[Key, _Heard] = {}
        #: How often clients met it failing before it was a target this time, in this life and those before.
        self._before: dict[Key, int] = {}

    # what there is ----------------------------------------------------------------------------------------------

    def restore(self, left: object) -> None:
        """Before the first `change`: what `snapshot` has returned in the life before."""
        self._left = left

    def snapshot(self) -> object:
        """What the next life has to know of checks, as JSON; None: nothing."""
        return None if self._checker is None else self._checker.snapshot()

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
        self._answers = {wanted: answer for wanted, answer in self._answers.items() if wanted in spec.names}
        self._look()

    def resolved(self, answer: Resolved) -> None:
        """A name has other addresses."""
        self._answers[answer.wanted] = answer
        self._look()

    def close(self) -> None:
        """Ask nobody any more."""
        if self._checker is not None:
            self._checker.close()

    def _look(self) -> None:
        self._members = {member.key: member for member in self._found()}
        for key in [key for key in self._orders if key not in self._members]:
            del self._orders[key]
        for key in [key for key in self._heard if key not in self._members]:
            self._before[key] = self._before.pop(key, 0) + self._heard.pop(key).count
        self._forget()
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

    def _found(self) -> Iterator[Member]:
        seen = set()
        for listener in self._spec.listeners if self._spec is not None else ():
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
                if self._checker is not None and _is_asked(self._members[key], each.datagrams):
                    self._checker.failed(*key, each.count, each.reason)

    def _tell(self) -> None:
        self._publish(TargetStates(tuple(self._states())))

    def _states(self) -> Iterator[TargetState]:
        """Of those that are not up, or not as the file has them."""
        for key in self._members:
            order, up = self._orders.get(key), self._up(key)
            if order is not None or not up:
                ordered, weight = (order.ordered, order.weight) if order is not None else (Ordered.ENABLED, None)
                yield TargetState(*key, up, ordered, weight)

    def _up(self, key: Key) -> bool:
        known = self._known(key)
        return known is None or known.up

    # orders -----------------------------------------------------------------------------------------------------

    def order(self, pool: str, target: str, ordered: Ordered | None, weight: int | None = None) -> Verdict:
        """Have `target`, as `list` shows it or as the file has it, be `ordered`; or, where that is None, have `weight`,
        0 for that of the file.
        """
        members = [member for member in self._members.values() if member.pool == pool]
        if not members:
            return _no(f"there is no pool {pool!r}", pool, {member.pool for member in self._members.values()})
        chosen = [member for member in members if target in (member.text, member.origin, str(member.target.address))]
        if not chosen:
            return _no(f"pool {pool} has no target {target!r}", target, {member.text for member in members})
        if weight is not None:
            problem = _wrong_weight(weight, chosen[0].listener.balance)
            if problem:
                return Verdict(False, (), (problem,))
        changes = tuple(change for member in chosen if (change := self._obey(member, ordered, weight)) is not None)
        if changes:
            self._tell()
        return Verdict(True, changes)

    def _obey(self, member: Member, ordered: Ordered | None, weight: int | None) -> Change | None:
        before = self._orders.get(member.key)
        was, had = (before.ordered, before.weight) if before is not None else (Ordered.ENABLED, None)
        now = was if ordered is None else ordered
        has = had if weight is None else weight or None
        if (was, had) == (now, has):
            return None
        if now is Ordered.ENABLED and has is None:
            del self._orders[member.key]
        else:
            self._orders[member.key] = _Order(now, has, clock.monotonic())
        if was is not now:
            text = f"target {member.text} of {member.pool}: {now.value}"
        else:
            text = f"target {member.text} of {member.pool}: weight {had or member.share.weight} -> "
            text += f"{has or member.share.weight}"
        self._say(Event.TARGET_ORDERED, text, pool=member.pool, target=member.text, state=now.value)
        return Change("~", None, text)

    def explain(self, name: str, client: bytes, port: int | None) -> dict[str, Any] | str:
        """Which target of the listener `name` a client of this key would get, as docs/admin.md says; or why nobody can
        say.
        """
        from relayd.control.explaining import NoSuchPort, explain  # what workers choose by: a start is done without it

        listeners = {listener.name: listener for listener in self._spec.listeners} if self._spec is not None else {}
        listener = listeners.get(name)
        if listener is None:
            return _no(f"there is no listener {name!r}", name, set(listeners)).errors[0]
        states = {state.target: state for state in self._states() if state.pool == listener.pool_name}
        ours = [key for key in self._members if key[0] == listener.pool_name]
        known = {key[1]: self._checker.state(*key) for key in ours} if self._checker is not None else {}
        reasons = {target: each.why for target, each in known.items() if each is not None}
        answers = [answer for answer in self._answers.values() if answer.resolve == listener.resolve]
        try:
            return explain(listener, states, answers, reasons, client, port)
        except NoSuchPort as error:
            return f"listener {name}: {error}"

    # to be shown ------------------------------------------------------------------------------------------------

    def status(self, active: Mapping[Key, int] | None = None) -> list[dict[str, Any]]:
        """Every target, in the order of the file, as docs/admin.md says. `active` are those that have connections or
        sessions, and how many; None: that is not known.
        """
        now = clock.monotonic()
        times = _Times(now, clock.wall() - now)
        return [
            self._shown(member, times, None if active is None else active.get(member.key, 0))
            for member in self._members.values()
        ]

    def facts(self) -> "Iterator[TargetFacts]":
        """For the metrics."""
        from relayd.control.metrics import TargetFacts  # which a start does not wait for

        for member in self._members.values():
            known = self._known(member.key)
            up = None if known is None else known.up
            yield TargetFacts(member.pool, member.text, self._state(member.key)[0], up, self._failures(member.key))

    def _failures(self, key: Key) -> int:
        """Of all lives, and of the times before, where this is not a target for the first time."""
        heard = self._heard.get(key)
        return self._before.get(key, 0) + (heard.count if heard is not None else 0)

    def _known(self, key: Key) -> "Known | None":
        return self._checker.state(*key) if self._checker is not None else None

    def _state(self, key: Key) -> tuple[str, float | None, str]:
        """What it is, since when, and why."""
        order, known = self._orders.get(key), self._known(key)
        if order is not None and order.ordered is not Ordered.ENABLED:
            return order.ordered.value, order.since, "by order"
        if known is None:
            return "unchecked", None, ""
        return "up" if known.up else "down", known.since, known.why

    def _shown(self, member: Member, times: "_Times", active: int | None) -> dict[str, Any]:
        key, share = member.key, member.share
        order, heard, known = self._orders.get(key), self._heard.get(key), self._known(key)
        state, since, reason = self._state(key)
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
