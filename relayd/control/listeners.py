"""The listening sockets of a spec. The control process owns them: a dead worker takes none along (R7).

    prepared = sockets.prepare(plan)      opens and adjusts all, or nothing: BindFailed
    prepared.undo()                       as it was before; or
    prepared.commit()                     from now on these are the sockets; nothing is closed yet
    sockets.retire()                      closes what the plan has closed

That goes for datagrams as well: they wait in the sockets, and the next worker of that number gets the same ones. An
address keeps all its copies for as long as the daemon lives, so that the kernel goes on giving each client to the same.
"""

import contextlib
import errno
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from relayd.address import BindAddress, Family, InetAddress, SocketAddress
from relayd.control.passed import PassedSockets
from relayd.errors import RelaydError
from relayd.net.listening import ListenFailed, ListeningSocket, listen, listen_datagrams
from relayd.spec import Bind, Spec
from relayd.spec.plan import Adjust, Close, Open, Plan, plan
from relayd.spec.sockets import Endpoint, SocketKey, endpoints
from relayd.values import dataclass

__all__ = ["BindFailed", "BoundSocket", "ListeningSockets"]


class BindFailed(RelaydError):
    """Some addresses cannot be listened on. `str(error)` has a line for each of them and its type, one for a range."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class BoundSocket:
    """One listening socket, and what it is in the spec."""

    endpoint: Endpoint
    socket: ListeningSocket


@dataclass(frozen=True, slots=True)
class Opened:
    """One bind of a listener, open for streams or for datagrams. `str(address)` is as a file has it, with its port.
    `passed_as` is the bind of the file where systemd has passed the socket.
    """

    listener: str
    address: Bind
    datagram: bool
    passed_as: BindAddress | None = None


@dataclass(slots=True)
class _Held:
    """A datagram socket that the spec has no more, and its worker still may have."""

    bound: BoundSocket
    released: bool = False


class ListeningSockets:
    """Every listening socket of the spec in force, in the order of `spec.sockets.endpoints`. Owns them, but for what
    systemd has `passed`.
    """

    def __init__(self, passed: PassedSockets | None = None) -> None:
        self.passed = passed or PassedSockets()
        self.bound: tuple[BoundSocket, ...] = ()
        #: Closed by a plan, and not yet in fact.
        self._leaving: list[BoundSocket] = []
        #: Datagram sockets that a worker still answers from: they are closed when it has released them (`release`).
        #: By address, all copies of one together: the kernel gives a client to a copy by its place among them, so that
        #: none goes before all can.
        self._held: dict[SocketAddress, list[_Held]] = {}
        #: What another process has left, and nobody has asked for yet.
        self._left: dict[SocketKey, ListeningSocket] = {}
        self._workers: dict[int, int] = {}

    @classmethod
    def open(
        cls,
        spec: Spec,
        passed: PassedSockets | None = None,
        left: dict[SocketKey, ListeningSocket] | None = None,
        also: Callable[[], None] = lambda: None,
    ) -> "ListeningSockets":
        """Listen on every bind of `spec`, on those sockets that another process has `left` where there are any: they
        are taken out of it. Raises BindFailed with every problem at once, or as `also` does, which is called when all
        are open; and has then opened nothing, and taken nothing.
        """
        sockets = cls(passed)
        if left is not None:
            sockets._left = left
        prepared = sockets.prepare(plan(None, spec))
        try:
            also()
        except BaseException:
            prepared.undo()
            raise
        prepared.commit()
        sockets._left = {}
        return sockets

    def prepare(self, change: Plan) -> "Prepared":
        """Do the steps of `change` that can fail. Raises BindFailed with every problem at once, and has then changed
        nothing.
        """
        return Prepared(self, change)

    def filenos(self, worker: int) -> list[int]:
        """The descriptors that worker number `worker` has, in the order of `endpoints_of`. Still owned by this."""
        return [bound.socket.fileno() for bound in self.bound if bound.endpoint.worker in (None, worker)]

    def opened(self) -> list[Opened]:
        """Every bind that has sockets, once for each type, in order: a range is one."""
        return opened(self.bound)

    def retire(self) -> None:
        """Close what the last plan has closed, now that workers have been told, but for datagram sockets: those are
        held until `release`.
        """
        for bound in self._leaving:
            bound.socket.close()
        self._leaving.clear()

    def release(self, worker: int, address: SocketAddress | None) -> None:
        """Worker number `worker` has closed the datagram socket of `address`; None: all, for it is no more."""
        for each in [address] if address is not None else list(self._held):
            copies = self._held.get(each, [])
            for copy in copies:
                copy.released = copy.released or copy.bound.endpoint.worker == worker
            if copies and all(copy.released for copy in copies):
                del self._held[each]
                for copy in copies:
                    copy.bound.socket.close()

    def _holding(self) -> Iterator[BoundSocket]:
        return (copy.bound for copies in self._held.values() for copy in copies)

    def _held_for(self, endpoint: Endpoint) -> BoundSocket | None:
        """The very socket of `endpoint`, where it is held."""
        for copy in self._held.get(endpoint.address, ()):
            if copy.bound.endpoint.key == endpoint.key:
                return copy.bound
        return None

    def close(self) -> None:
        """Close them all and remove the socket files that are still ours. Idempotent."""
        for bound in (*self.bound, *self._leaving, *self._holding()):
            bound.socket.close()

    def let_go(self) -> None:
        """Close our descriptors, and leave the files of those that are in force: another process goes on with them."""
        for bound in self.bound:
            bound.socket.let_go()
        self.close()

    def worker_of(self, inode: int) -> int | None:
        """The number of the worker that has the datagram socket with this inode; None: nobody has it."""
        if not self._workers:
            self._workers = {
                bound.socket.inode: bound.endpoint.worker for bound in self.bound if bound.endpoint.worker is not None
            }
        return self._workers.get(inode)


class Prepared:
    """A change that can be made, and can be left. One of `commit` and `undo` is to be called, once."""

    def __init__(self, sockets: ListeningSockets, change: Plan) -> None:
        self._sockets = sockets
        self._change = change
        self._before = {bound.endpoint.key: bound for bound in sockets.bound}
        #: What was opened, by key, and what was adjusted, in the order of the plan.
        self.opened: dict[SocketKey, BoundSocket] = {}
        self._adjusted: list[Adjust] = []
        #: Sockets whose address others of ours may share, and whether they might before.
        self._shared: list[tuple[ListeningSocket, bool]] = []
        #: What another process has left, and is not ours to close should this fail.
        self._taken_over: dict[SocketKey, ListeningSocket] = {}
        self._closing = {step.endpoint.key for step in change.steps if isinstance(step, Close)}
        try:
            self._prepare()
        except BaseException:
            self.undo()
            raise

    def _prepare(self) -> None:
        failures: dict[tuple[str, Bind, bool], list[str]] = {}

        def failed(endpoint: Endpoint, failure: ListenFailed) -> None:
            failures.setdefault((endpoint.listener.name, endpoint.bind, endpoint.datagram), []).append(str(failure))

        opens = [step.endpoint for step in self._change.steps if isinstance(step, Open)]
        for _, of_one_address in itertools.groupby(opens, _address):
            copies = list(of_one_address)
            try:
                for endpoint, listening in zip(copies, self._open(copies), strict=True):
                    self.opened[endpoint.key] = BoundSocket(endpoint, listening)
            except ListenFailed as failure:
                failed(copies[0], failure)
        for step in self._change.steps:
            if isinstance(step, Adjust):
                try:
                    self._adjust(step)
                except ListenFailed as failure:
                    failed(step.new, failure)
        if failures:
            raise BindFailed([_problem(name, texts) for (name, _, _), texts in failures.items()])

    def _open(self, copies: Sequence[Endpoint]) -> list[ListeningSocket]:
        """A socket for each of `copies`, which are one address. Raises ListenFailed."""
        held = {
            endpoint.key: bound.socket
            for endpoint in copies
            if (bound := self._sockets._held_for(endpoint)) is not None
        }
        held |= self._left_for(copies)
        if held:  # workers answer from these still, or have in another process, and go on with them
            missing = [endpoint for endpoint in copies if endpoint.key not in held]
            for listening in held.values():
                _set_options(listening, copies[0])
                if missing:
                    listening.let_others_bind(enabled=True)
            new = iter(_open(missing, next(iter(held.values())).address, beside=True) if missing else ())
            return [held[endpoint.key] if endpoint.key in held else next(new) for endpoint in copies]
        if copies[0].from_systemd:
            return [self._sockets.passed.listen(endpoint) for endpoint in copies]
        try:
            return _open(copies)
        except ListenFailed as failure:
            if failure.errno != errno.EADDRINUSE:
                raise
            ours = self._ours(copies[0])
            stays = [one for one in ours if one.endpoint.key not in self._closing and not self._is_copy(one, copies[0])]
            if stays:
                owner = f"relayd itself has {stays[0].socket.address} for listener {stays[0].endpoint.listener.name}"
                raise ListenFailed(
                    copies[0].address, f"{owner}, and can let go of it only by a restart", failure.errno
                ) from None
            if not ours or not isinstance(copies[0].address, InetAddress):
                raise
            for bound in ours:
                self._shared.append((bound.socket, bound.socket.let_others_bind(enabled=True)))
            return _open(copies, beside=True)

    def _left_for(self, copies: Sequence[Endpoint]) -> dict[SocketKey, ListeningSocket]:
        """What another process has left of `copies`. Not a Unix socket whose file is gone: nobody can come to it."""
        left = {}
        for endpoint in copies:
            listening = self._sockets._left.pop(endpoint.legacy, None)
            if listening is not None and listening.file_is_there():
                left[endpoint.key] = listening
                self._taken_over[endpoint.legacy] = listening
            elif listening is not None:
                listening.let_go()
        return left

    def _ours(self, endpoint: Endpoint) -> list[BoundSocket]:
        """Our own sockets that have the address, or a part of it."""
        address = endpoint.address
        ours = (*self._before.values(), *self._sockets._holding())
        if not isinstance(address, InetAddress):
            return [bound for bound in ours if bound.socket.address == address]
        return [
            bound
            for bound in ours
            if bound.endpoint.datagram is endpoint.datagram
            and isinstance(bound.socket.address, InetAddress)
            and _meet(bound, endpoint, bound.socket.address, address)
        ]

    def _is_copy(self, bound: BoundSocket, endpoint: Endpoint) -> bool:
        """Whether a socket of ours that stays is one that another worker has for the same address, or is held."""
        held = bound.endpoint.key not in self._before
        return held or (endpoint.datagram and bound.socket.address == endpoint.address)

    def _adjust(self, step: Adjust) -> None:
        self._adjusted.append(step)
        _set_options(self._before[step.new.key].socket, step.new)

    def filenos(self, worker: int) -> list[int]:
        """The descriptors that worker number `worker` has not been sent yet, in the order of `endpoints_of`."""
        return [bound.socket.fileno() for bound in self.opened.values() if bound.endpoint.worker in (None, worker)]

    def commit(self) -> None:
        """From now on these are the sockets. Cannot fail."""
        sockets = self._sockets
        spec = self._change.spec
        wanted = list(endpoints(spec)) if spec is not None else []
        every = {**self._before, **self.opened}
        # What is held and was opened anew has been replaced; what is closing may be let go of from now on.
        opened = [bound.socket for bound in self.opened.values() if bound.endpoint.datagram]
        for listening in opened:
            for copy in sockets._held.pop(listening.address, []):
                if all(copy.bound.socket is not other for other in opened):
                    copy.bound.socket.close()
        for bound in (bound for key, bound in self._before.items() if key in self._closing):
            if bound.endpoint.datagram:
                sockets._held.setdefault(bound.socket.address, []).append(_Held(bound))
            else:
                sockets._leaving.append(bound)
        sockets.bound = tuple(BoundSocket(endpoint, every[endpoint.key].socket) for endpoint in wanted)
        sockets._workers.clear()

    def undo(self) -> None:
        """Close what was opened, and set what was adjusted as it was."""
        held = {id(bound.socket) for bound in self._sockets._holding()}
        held |= set(map(id, self._taken_over.values()))
        self._sockets._left.update(self._taken_over)
        self._taken_over.clear()
        for bound in self.opened.values():
            if id(bound.socket) not in held:
                bound.socket.close()
        self.opened.clear()
        for step in self._adjusted:
            with contextlib.suppress(ListenFailed):  # it was so a moment ago; and the reason to undo is told already
                _set_options(self._before[step.new.key].socket, step.old)
        self._adjusted.clear()
        for listening, before in reversed(self._shared):
            listening.let_others_bind(enabled=before)
        self._shared.clear()


def _meet(bound: BoundSocket, endpoint: Endpoint, ours: InetAddress, address: InetAddress) -> bool:
    """Whether the two have a part in common, as bind(2) sees it."""
    if ours.port != address.port or not (ours == address or ours.wildcard or address.wildcard):
        return False
    if ours.family is address.family:
        return True
    six = bound.endpoint if ours.family is Family.INET6 else endpoint
    return not six.ipv6_only


def opened(bound: Iterable[BoundSocket]) -> list[Opened]:
    """Every bind that has one of these sockets, once for each type, in order: a range is one."""
    found: dict[tuple[str, Bind, bool], Opened] = {}
    for each in bound:
        endpoint = each.endpoint
        # Of a range, perhaps only some ports are new; and the kernel picks none of them.
        shown = endpoint.bind if endpoint.bind.ports > 1 else Bind(each.socket.address)
        key = (endpoint.listener.name, shown if endpoint.from_systemd else endpoint.bind, endpoint.datagram)
        if key not in found:
            passed_as = endpoint.bind.address if endpoint.from_systemd else None
            found[key] = Opened(key[0], shown, endpoint.datagram, passed_as)
    return list(found.values())


def _address(endpoint: Endpoint) -> tuple[str, Bind, int, bool]:
    """The same for the copies of one address, which stand together."""
    return (endpoint.listener.name, endpoint.bind, endpoint.index, endpoint.datagram)


def _open(
    copies: Sequence[Endpoint], address: SocketAddress | None = None, *, beside: bool = False
) -> list[ListeningSocket]:
    """A socket for each of `copies`, which are one address, `beside` others of ours. `address` is what those have,
    where the kernel has picked its port. Raises ListenFailed.
    """
    listener, address = copies[0].listener, address or copies[0].address
    if copies[0].datagram:
        return listen_datagrams(address, listener.binding, len(copies), beside=beside)
    if listener.stream is None:
        raise AssertionError(f"{listener.name}: a socket for streams that nobody relays")
    return [listen(address, listener.binding, listener.stream.options, beside=beside)]


def _set_options(listening: ListeningSocket, endpoint: Endpoint) -> None:
    listener = endpoint.listener
    options = None if endpoint.datagram or listener.stream is None else listener.stream.options
    listening.adjust(listener.binding, options)


def _problem(listener: str, failures: list[str]) -> str:
    """What is wrong with one bind: its first failure, and how many more of its sockets failed."""
    more = len(failures) - 1
    rest = f" (and {more} more of this bind)" if more else ""
    return f"listeners.{listener}: {failures[0]}{rest}"
