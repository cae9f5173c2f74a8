"""What changes between two specs, for people: lines that `relayd plan`, `relayd reload` and the log show. Pure.

What a listener does is compared as `show-config` writes it, so that no key can be forgotten; what becomes of live
connections is `spec.plan.effect`, which is what workers go by.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from relayd.channel.messages import LiveCount
from relayd.config.ports import target_text
from relayd.config.show import daemon_keys, listener_keys
from relayd.config.units import format_duration
from relayd.control.verdict import NEEDS_RESTART, Change
from relayd.spec import Listener, OnChange, Share, Spec, Target
from relayd.spec.plan import Postpone, effect, plan

__all__ = ["changes_between"]

#: Keys of a listener that have lines of their own.
_LISTS = ("bind", "targets")
#: Keys that are about clients to come, about where targets stand, and about what is told: they end nobody.
_HARMLESS = frozenset({"balance", "pool", "resolve", "health_check", "fail_open", "max_ejected", "slow_start", "log"})


def changes_between(old: Spec | None, new: Spec, live: Iterable[LiveCount] = ()) -> tuple[Change, ...]:
    """Every difference, in the order of the file, removed listeners last. `live` is what is open now."""
    counts: dict[str, list[LiveCount]] = {}
    for count in live:
        counts.setdefault(count.listener, []).append(count)
    before = {listener.name: listener for listener in old.listeners} if old is not None else {}
    postponed = {step for step in plan(old, new).steps if isinstance(step, Postpone)}
    found = list(_of_daemon(old, new, postponed)) if old is not None else []
    for listener in new.listeners:
        known = before.pop(listener.name, None)
        if known is None:
            found.append(Change("+", listener.name, "", ""))
        elif known != listener:
            found += _of_listener(
                known, listener, _Live(known, listener, counts.get(known.name, ()), new.drain_timeout_s), postponed
            )
    for gone in before.values():
        here = counts.get(gone.name, ())
        everybody = {count.target for count in here}
        fates = _Live(gone, None, here, new.drain_timeout_s).fates(*everybody)
        found.append(Change("-", gone.name, "", fates))
    return tuple(found)


def _of_daemon(old: Spec, new: Spec, postponed: set[Postpone]) -> Iterator[Change]:
    before, after = daemon_keys(old), daemon_keys(new)
    for key in dict.fromkeys((*before, *after)):
        if before.get(key) != after.get(key):
            late = NEEDS_RESTART if Postpone(None, key) in postponed else ""
            yield Change("~", None, _differs(key, before.get(key), after.get(key)), late)
    admin, now = old.admin, new.admin
    if admin.token_file and admin.token_file == now.token_file and admin.token_sha256 != now.token_sha256:
        yield Change("~", None, "admin.token_file: another token is in the file", "")


def _of_listener(old: Listener, new: Listener, live: "_Live", postponed: set[Postpone]) -> Iterator[Change]:
    """What becomes of connections that nothing but this concerns stands on the first line that concerns them all."""
    stay = [target for target in old.targets if target in new.targets]
    affected = live.fates(None, *stay)
    for text in _lists("bind", [str(bind) for bind in old.binds], [str(bind) for bind in new.binds]):
        yield Change("~", new.name, text, affected)
        affected = ""
    ports = max(bind.ports for bind in (*old.binds, *new.binds))
    for target in old.targets:
        if target not in new.targets:
            yield Change("~", new.name, f"target {target_text(target, ports)} removed", live.fates(target))
    for target in new.targets:
        if target not in old.targets:
            yield Change("~", new.name, f"target {target_text(target, ports)} added", "")
    for index, target in enumerate(new.targets):
        if target in old.targets:
            before_share, share = old.share(old.targets.index(target)), new.share(index)
            for text in _shares(before_share, share):
                yield Change("~", new.name, f"target {target_text(target, ports)} {text}", "")
    if old.targets != new.targets and set(old.targets) == set(new.targets):
        yield Change("~", new.name, "targets in another order", "")
    before, after = listener_keys(old), listener_keys(new)
    other_type = before["type"] != after["type"]
    for key in dict.fromkeys((*before, *after)):
        if key in _LISTS or before.get(key) == after.get(key):
            continue
        if other_type and not (key in before and key in after):
            continue  # it comes or goes with its type
        if key == "resolve" and not (key in before and key in after):
            continue  # and this one with the names among the targets
        late = Postpone(new.name, key) in postponed
        unaffected = late or key in _HARMLESS
        fate = NEEDS_RESTART if late else "" if unaffected else affected
        yield Change("~", new.name, _differs(key, before.get(key), after.get(key)), fate)
        affected = affected if unaffected else ""


def _shares(old: Share, new: Share) -> Iterator[str]:
    if old.weight != new.weight:
        yield f"weight {old.weight} -> {new.weight}"
    if old.backup != new.backup:
        yield "is a backup now" if new.backup else "is no backup any more"
    if old.max_connections != new.max_connections:
        yield f"max_connections {old.max_connections or 'not set'} -> {new.max_connections or 'not set'}"


def _lists(what: str, old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    for each in old:
        if each not in new:
            yield f"{what} {each} removed"
    for each in new:
        if each not in old:
            yield f"{what} {each} added"


def _differs(key: str, old: str | None, new: str | None) -> str:
    return f"{key} {old or 'not set'} -> {new or 'not set'}"


class _Live:
    """The connections and sessions of one listener, and what becomes of them."""

    def __init__(
        self, old: Listener, new: Listener | None, counts: Sequence[LiveCount], drain_timeout_s: float
    ) -> None:
        self._old = old
        self._new = new
        self._counts = counts
        self._drain = f"drain {format_duration(round(drain_timeout_s * 1000))}"

    def _fate(self, count: LiveCount) -> OnChange:
        new = self._new
        if new is not None and (new.datagram if count.datagram else new.stream) is None:  # not this type any more
            return effect(replace(self._old, on_change=new.on_change), None, count.target)
        return effect(self._old, new, count.target)

    def fates(self, *targets: Target | None) -> str:
        """`42 connections: drain 30s, 3 sessions: drain 30s` of those that go to `targets`; "" when there are none, or
        when they are kept.
        """
        words = {OnChange.DRAIN: self._drain, OnChange.CLOSE: "close"}
        numbers: dict[tuple[str, OnChange], int] = {}
        for count in self._counts:
            fate = self._fate(count)
            if count.target in targets and fate in words:
                key = ("session" if count.datagram else "connection", fate)
                numbers[key] = numbers.get(key, 0) + count.count
        return ", ".join(
            f"{number} {noun}{'' if number == 1 else 's'}: {words[fate]}"
            for (noun, fate), number in sorted(numbers.items(), key=lambda item: item[0][0])
        )
