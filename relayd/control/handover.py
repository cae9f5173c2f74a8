"""What one life of the control process leaves to the next: listening sockets, and parcels with all else (R4, R5).

    at any time     the listening sockets and the manifest are in systemd's FD store: a crash loses none of them
    on SIGUSR1      workers put everything into parcels, which go to the store; the process ends, systemd starts another
    on SIGUSR2      the same, but it is execve(2) that the descriptors outlive, under the same names as systemd gives
    at a start      `find` sorts what has been passed; `ListeningSockets` and the workers go on with it

The manifest is a memfd. A socket is told from others by its inode, and is in the manifest with what it cannot say
itself: what it was asked to be bound to, and which file is its own. A manifest of a later version is not read, and what
it is about is let go of: the addresses are bound anew.
"""

import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import field
from typing import Any

import relayd
from relayd.address import OWN_NAMES, InetAddress, UnixAddress
from relayd.channel import parcel
from relayd.channel.codec import plain, value_of
from relayd.channel.messages import Adopt, Resolved
from relayd.channel.parcel import Content, Label, ParcelFull
from relayd.control.adopting import Adopted, Shared
from relayd.control.answers import Known
from relayd.control.listeners import BoundSocket, ListeningSockets
from relayd.counters import DatagramTotals, ListenerTotals
from relayd.net.listening import Identity, ListeningSocket
from relayd.sd.activation import Inherited
from relayd.sd.notify import Notifier
from relayd.spec import Spec
from relayd.spec.budget import Budget
from relayd.spec.sockets import SocketKey
from relayd.values import dataclass

__all__ = ["Dealer", "Found", "Store", "find"]

_MANIFEST = f"{OWN_NAMES}manifest-"
_SOCKET = f"{OWN_NAMES}socket-"
_PARCEL = f"{OWN_NAMES}parcel"
#: A parcel of listening sockets that are not in the store.
_MORE = f"{OWN_NAMES}more"
MANIFEST_VERSION = 1
#: Listening sockets in the store, each under a name of its own: PID 1 compares a new descriptor with all that it has.
#: What is beyond that outlives a restart in a parcel, and no crash. FileDescriptorStoreMax= of the unit has room for
#: them, the manifest and the next one, and the parcels.
SOCKETS_STORED_MAX = 256
#: Of one worker. Some 400 packets fit each with the default net.core.wmem_max.
_PARCELS_MAX = 16


@dataclass(slots=True)
class Found:
    """What the process before has left. Owns all of it until it is taken out.

    `sockets` by what they are; `names` of those that are in the store, by inode; `stale` what is in the store and will
    not be needed once this process is ready. `copies` is how many sockets an address has that takes datagrams, 0 where
    there is none; `sessions` how many sessions are in the parcels, and `connections` how many connections, None
    where that is not known; `generation` and `last_socket` the highest numbers in use.
    """

    sockets: dict[SocketKey, ListeningSocket] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)
    parcels: list[socket.socket] = field(default_factory=list)
    totals: tuple[ListenerTotals | DatagramTotals, ...] = ()
    sessions: int = 0
    connections: int | None = None
    generation: int = 0
    last_socket: int = 0
    #: What was in force, and the hash of its files: it goes on should the file be refused now. None where that is not
    #: known, or not understood.
    spec: Spec | None = None
    sha256: str = ""
    #: Whose that was: a version of relayd on a machine with so many cores; and whether one file alone said it. What is
    #: in force is known without reading the file again where none of this has changed.
    version: str = ""
    cores: int = 0
    alone: bool = False
    #: What was known of targets (`targets.Targets.restore`); None: nothing.
    targets: object = None
    #: What was counted, but by listener (`totals.Totals.go_on`); None: nothing is known of it.
    counted: object = None
    #: What names were resolved to.
    known: tuple[Known, ...] = ()
    #: Why the manifest could not be read; "" when it could, or there was none.
    problem: str = ""

    @property
    def copies(self) -> int:
        """See the class."""
        copies = [key.number + 1 for key in self.sockets if key.datagram and isinstance(key.address, InetAddress)]
        return max(copies, default=0)

    def copies_for(self, workers: int) -> int | None:
        """How many sockets an address that takes datagrams is to have with so many workers; None: one for each.

        Never fewer than there are, for each may have datagrams waiting; and no more while there are sessions, for the
        kernel would give their clients to others.
        """
        copies = self.copies
        return copies if copies > workers or (copies and self.sessions) else None

    def batches(self) -> Iterator[tuple[Label | None, list[int]]]:
        """What is in the parcels, which stay open: others may take out of them meanwhile. Whoever takes a batch owns
        its descriptors.
        """
        for kept in self.parcels:
            yield from parcel.read(kept)

    def in_the_way(self, wanted: Container[SocketKey]) -> set[int]:
        """Which sockets of the store will not be gone on with, by their inodes, where these are `wanted`: those that
        the manifest does not know, too. As long as systemd has them, their addresses are taken.
        """
        return self.names.keys() - {listening.inode for key, listening in self.sockets.items() if key in wanted}

    def close_others(self, wanted: Container[SocketKey]) -> None:
        """Close, with their socket files, the sockets that will not be gone on with where these are `wanted`."""
        for key in [key for key in self.sockets if key not in wanted]:
            self.sockets.pop(key).close()

    def close(self) -> None:
        """Let go of what nobody has taken."""
        while self.sockets:
            self.sockets.popitem()[1].let_go()
        self.close_parcels()

    def close_parcels(self) -> None:
        """Let go of them, and of what is in them still."""
        while self.parcels:
            self.parcels.pop().close()


def find(own: Sequence[Inherited]) -> Found:
    """What `own`, the descriptors under our names, have to say. Owns them."""
    found = Found()
    sockets: dict[int, list[int]] = {}
    manifests: dict[int, int] = {}
    for one in own:
        if one.name.startswith((_MANIFEST, _SOCKET, _PARCEL, _MORE)):
            found.stale.add(one.name)
        if one.name == _PARCEL:
            found.parcels.append(socket.socket(fileno=one.fd))
        elif one.name == _MORE:
            with socket.socket(fileno=one.fd) as kept:
                for _, fds in parcel.read(kept):
                    for fd in fds:  # the first is the memfd of the batch, which no manifest knows
                        sockets.setdefault(_inode(fd), []).append(fd)
        elif number := _number(_MANIFEST, one.name):
            manifests[number] = one.fd
        else:
            if number := _number(_SOCKET, one.name):
                found.names[_inode(one.fd)] = one.name
                found.last_socket = max(found.last_socket, number)
            sockets.setdefault(_inode(one.fd), []).append(one.fd)
    if manifests:
        found.generation = max(manifests)
        try:
            _read_manifest(found, parcel.unpack(manifests[found.generation]).values, sockets)
        except parcel.BROKEN_RECORD as error:
            found.problem = f"{type(error).__name__}: {error}"
    _close(itertools.chain(manifests.values(), *sockets.values()))
    return found


def _inode(fd: int) -> int:
    return os.fstat(fd).st_ino


def _number(prefix: str, name: str) -> int:
    """The number in `name`, from 1 on; 0 where there is none."""
    number = name.removeprefix(prefix)
    return int(number) if name.startswith(prefix) and number.isascii() and number.isdecimal() else 0


def _read_manifest(found: Found, values: Any, sockets: dict[int, list[int]]) -> None:
    """Takes out of `sockets` those that the manifest knows."""
    if values["version"] != MANIFEST_VERSION:
        raise ValueError(f"it is of version {values['version']}, and this relayd knows {MANIFEST_VERSION}")
    found.sessions = int(values["sessions"])
    if isinstance(connections := values.get("connections"), int):
        found.connections = connections
    with suppress(*parcel.BROKEN_RECORD):  # of another version: what the file says, then, and nothing else
        spec = value_of(values["spec"])
        if isinstance(spec, Spec):
            found.spec, found.sha256, found.alone = spec, str(values["sha256"]), values["alone"] is True
            found.version, found.cores = str(values["relayd"]), int(values["cores"])
    found.targets, found.counted = values.get("targets"), values.get("counted")
    with suppress(*parcel.BROKEN_RECORD):  # of another version, or an earlier one: they are looked up
        found.known = tuple(_known(each) for each in values["names"])
    found.totals = tuple(_one_of(each, ListenerTotals, DatagramTotals) for each in values["totals"])
    for each in values["sockets"]:
        fds = sockets.get(each["inode"])
        if fds:
            key, address = _one_of(each["key"], SocketKey), _one_of(each["address"], InetAddress, UnixAddress)
            identity = Identity(*each["file"]) if each["file"] is not None else None
            found.sockets[key] = ListeningSocket.taken_over(fds.pop(), address, identity)


def _known(values: Any) -> Known:
    return Known(_one_of(values["answer"], Resolved), float(values["at"]), float(values["ttl_s"]))


def _one_of(plain: Any, *classes: type) -> Any:
    """The value, which is of one of these. Raises a BROKEN_RECORD."""
    value = value_of(plain)
    if type(value) not in classes:
        raise TypeError(f"no {' or '.join(cls.__name__ for cls in classes)}: {value!r}")
    return value


class Dealer:
    """Deals what is in the parcels to workers: sessions to the one that has their socket, connections to the one with
    the fewest. None gets more than it may have (`budget`): a batch that finds no room comes without its descriptors, to
    be counted.

    Where there are connections only, and any worker may have all of them, workers take them out of the parcels
    themselves (`shared`): to pass 16,000 descriptors on takes as long as a tenth of a restart.
    """

    def __init__(self, found: Found, sockets: ListeningSockets, budget: Budget, workers: int) -> None:
        self._found = found
        self._sockets = sockets
        self._budget = budget
        self._connections = dict.fromkeys(range(1, workers + 1), 0)
        self._sessions = dict.fromkeys(range(1, workers + 1), 0)
        #: Connections and sessions (True) of all batches that were dealt, also of those for which there was no room.
        self._given = {False: 0, True: 0}
        #: Batches that nobody understands.
        self.lost = 0
        known = found.connections if found.parcels and not found.sessions else None
        # While a worker takes, it has the parcels as well.
        self._shares = known if known is not None and known <= budget.connections - len(found.parcels) else None

    def shared(self) -> Shared | None:
        """What workers are to have; None, where it is dealt."""
        if self._shares is None:
            return None
        return Shared([kept.fileno() for kept in self._found.parcels], -(-self._shares // len(self._connections)))

    def close(self) -> None:
        """All is dealt, or taken. What is there still nobody has taken, and is `missing`."""
        for label, fds in self._found.batches():
            self.lost += label is None
            _close(fds)
        self._found.close_parcels()

    def missing(self, adopted: Adopted) -> tuple[int, int]:
        """Connections and sessions that nobody has told of: of a worker that has ended before it was ready, or in
        batches that nobody understands. To be asked when all workers are ready, who have `adopted` so much.
        """
        connections = self._given[False] if self._shares is None else self._shares
        return (
            max(0, connections - adopted.connections - adopted.told_connections),
            max(0, self._given[True] - adopted.sessions - adopted.told_sessions),
        )

    async def batches(self) -> AsyncIterator[tuple[int, Adopt, list[int]]]:
        """Worker number, batch, descriptors, which are the caller's."""
        for label, fds in self._found.batches():
            if label is None:
                self.lost += 1
                _close(fds)
                continue
            self._given[label.datagram] += label.count
            number = self._worker(label)
            if number:
                counts = self._sessions if label.datagram else self._connections
                counts[number] += label.count
            else:
                _close(fds)
                fds = []
            yield number or 1, Adopt(label), fds

    def _worker(self, label: Label) -> int:
        """0: there is no room."""
        if label.datagram:
            number = self._sockets.worker_of(label.socket) or 1
            return number if self._sessions[number] + label.count <= self._budget.sessions else 0
        number = min(self._connections, key=self._connections.__getitem__)
        return number if self._connections[number] + label.count <= self._budget.connections else 0


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


class Store:
    """What systemd keeps for the next process, and what execve(2) passes on to it. Not the sockets that others have
    made: those come again from where they came from.
    """

    def __init__(self, notifier: Notifier, found: Found) -> None:
        self._notifier = notifier
        self._names = dict(found.names)
        self._stale = set(found.stale)
        self._generation = found.generation
        self._last_socket = found.last_socket
        self._manifest = ""
        #: What is in force; for the manifest.
        self._in_force: tuple[Spec | None, str, bool] = (None, "", False)
        #: What is known of targets now, for the next manifest.
        self.targets: Callable[[], object] = lambda: None
        #: What is counted, but by listener.
        self.counted: Callable[[], object] = lambda: None
        self._known: tuple[Known, ...] = ()
        #: While handing over: the sockets, and what is made for them, by name. Owned by this.
        self._handing_over: list[BoundSocket] = []
        self._packed: list[Inherited] = []

    def remember(self, spec: Spec, sha256: str, *, alone: bool, known: tuple[Known, ...] = ()) -> None:
        """From now on this is in force, read from files with this hash, or from one `alone`, and this is known of
        names: the next manifest says so.
        """
        self._in_force, self._known = (spec, sha256, alone), known

    def keep(self, bound: Iterable[BoundSocket], totals: Iterable[ListenerTotals | DatagramTotals] = ()) -> None:
        """Have the store hold these sockets and what is to be known of them, and nothing else. First what is new, then
        the manifest, then away with what is old: whenever this process dies, what is in the store makes sense.
        """
        if not self._notifier.enabled:
            return
        ours = [each for each in bound if not each.socket.passed]
        memfd = parcel.pack(self._content(ours, totals, 0))
        try:
            self._store(ours, memfd)
        finally:
            os.close(memfd)

    def forget(self, inodes: Container[int] | None = None) -> None:
        """Have the store let go of the sockets with these inodes, of everything where that is None: nobody is to come
        there any more, and as long as systemd has them, somebody can.
        """
        gone = [inode for inode in self._names if inodes is None or inode in inodes]
        for name in sorted({self._names.pop(inode) for inode in gone}):
            self._notifier.unstore(name)
        if inodes is None:
            for name in sorted({*self._stale, self._manifest} - {""}):
                self._notifier.unstore(name)
            self._stale, self._manifest = set(), ""

    def _store(self, ours: Sequence[BoundSocket], memfd: int) -> None:
        notifier = self._notifier
        before, self._names = self._names, {}
        for each in ours[:SOCKETS_STORED_MAX]:
            inode = each.socket.inode
            name = before.pop(inode, "")
            if not name:
                self._last_socket += 1
                name = f"{_SOCKET}{self._last_socket}"
                notifier.store(name, [each.socket.fileno()])
            self._names[inode] = name
        self._generation += 1
        old, self._manifest = self._manifest, f"{_MANIFEST}{self._generation}"
        notifier.store(self._manifest, [memfd])
        stale = self._stale | set(before.values()) | ({old} if old else set())
        self._stale = set()
        for name in sorted(stale - set(self._names.values())):
            notifier.unstore(name)

    def begin(
        self, bound: Iterable[BoundSocket], totals: Iterable[ListenerTotals | DatagramTotals], sessions: int
    ) -> None:
        """Before workers hand over: a manifest of these sockets, and a parcel of those that are in no store. Later, the
        kernel may take no more descriptors (ETOOMANYREFS).
        """
        self._handing_over = [each for each in bound if not each.socket.passed]
        self._generation += 1
        memfd = parcel.pack(self._content(self._handing_over, totals, sessions))
        self._packed.append(Inherited(f"{_MANIFEST}{self._generation}", memfd))
        more = [each.socket.fileno() for each in self._handing_over if each.socket.inode not in self._names]
        if more:
            self._packed.append(_shelf(more))

    def parcels(self, packets: int) -> list[socket.socket]:
        """Parcels for so many packets: the ends to send into, which are the caller's."""
        ends: list[socket.socket] = []
        while len(ends) < _PARCELS_MAX and (packets > 0 or not ends):
            kept, sending = parcel.pair()
            self._packed.append(Inherited(_PARCEL, kept.detach()))
            ends.append(sending)
            packets -= parcel.packets(sending)
        return ends

    def put(self) -> None:
        """Have systemd keep what there is so far. What workers send afterwards is in it all the same, and should this
        process die meanwhile, or the one that it becomes, the next one has it.
        """
        for one in self._packed:
            self._notifier.store(one.name, [one.fd], watched=False)
        if self._manifest:
            self._notifier.unstore(self._manifest)

    def finish(
        self, totals: Iterable[ListenerTotals | DatagramTotals], sessions: int, connections: int | None = None
    ) -> None:
        """Workers have handed over: the manifest says the last numbers. `connections` None: there may be more."""
        for one in self._packed:
            if one.name.startswith(_MANIFEST):
                parcel.rewrite(one.fd, self._content(self._handing_over, totals, sessions, connections))

    def take(self) -> list[Inherited]:
        """Everything that the next process is to have, by the names that it knows; the caller's from now on."""
        taken, self._packed = self._packed, []
        for each in self._handing_over:
            if (name := self._names.get(each.socket.inode)) is not None:
                taken.append(Inherited(name, each.socket.hand_on()))
        return taken

    def release(self) -> None:
        """Close what `begin` and `parcels` have made. Idempotent."""
        while self._packed:
            os.close(self._packed.pop().fd)

    def _content(
        self,
        bound: Iterable[BoundSocket],
        totals: Iterable[ListenerTotals | DatagramTotals],
        sessions: int,
        connections: int | None = None,
    ) -> Content:
        """A manifest."""
        sockets = []
        for each in bound:
            identity = each.socket.identity
            sockets.append(
                {
                    "inode": each.socket.inode,
                    "key": plain(each.endpoint.legacy),
                    "address": plain(each.socket.address),
                    "file": None if identity is None else [identity.device, identity.inode],
                }
            )
        spec, sha256, alone = self._in_force
        values = {
            "version": MANIFEST_VERSION,
            "relayd": relayd.__version__,
            "cores": len(os.sched_getaffinity(0)),
            "spec": plain(spec),
            "sha256": sha256,
            "alone": alone,
            "sessions": sessions,
            "connections": connections,
            "names": [{"answer": plain(each.resolved), "at": each.at, "ttl_s": each.ttl_s} for each in self._known],
            "totals": [plain(each) for each in totals],
            "targets": self.targets(),
            "counted": self.counted(),
            "sockets": sockets,
        }
        return Content(values)


def _shelf(fds: Sequence[int]) -> Inherited:
    """Sockets that are in no store, in a parcel of their own. `fds` stay the caller's. What the kernel has no room for
    is bound anew.
    """
    kept, sending = parcel.pair()
    with sending, suppress(ParcelFull):
        for at in range(0, len(fds), parcel.BATCH_FDS):
            batch = fds[at : at + parcel.BATCH_FDS]
            memfd = parcel.pack(Content(None))
            try:
                parcel.put(sending, Label(False, "", 0, len(batch)), [memfd, *batch])
            finally:
                os.close(memfd)
    return Inherited(_MORE, kept.detach())
