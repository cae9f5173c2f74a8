"""Everything that lives in a worker, looked at and ended on demand (O3), in slices, between what is relayed.

    Look ──▶ Looking ──gather, perhaps twice──▶ build rows ──▶ Seen, Seen, Seen(last)
    Kill ──▶ Killing ──gather and end─────────────────────────▶ Killed

A rate takes two looks. What a look has found is kept for the next one as long as that is worth something; where there
is nothing, a look waits for itself (RATE_LEAST_S).
"""

import abc
import heapq
import ipaddress
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Generic, TypeAlias, TypeVar

from relayd import clock
from relayd.channel.live import Rates, pack_rows
from relayd.channel.messages import Kill, Killed, Look, Message, Seen, Selection, Sort
from relayd.log.logger import Logger
from relayd.relay.loop import Loop

__all__ = ["Lives", "View"]

#: At a time, for whoever looks or ends: what a few short exchanges take, so that others hardly notice.
SLICE_S = 0.0001
#: Where there is more than this, a slice is as much longer: a look is to take a second, not ten.
_MANY = 10_000
#: Between two looks at the clock: as many as are told in a quarter of that.
_STEP = 4
#: Rows of one Seen: some 27 KB, one packet, which takes a quarter of a slice.
_ROWS_MAX = 64
#: A rate is what has moved since a look that was at least so long ago; and one of so long ago tells nothing.
RATE_LEAST_S = 0.25
RATE_MOST_S = 10.0
#: A look as old as this gives way to the next one: a rate is of the last second or two.
_RENEW_S = 0.9
#: Nobody waits for a look that has taken so long (`control.operations`).
LOOK_MOST_S = 3.0

LiveT = TypeVar("LiveT")
#: What was seen of one: bytes in and out, and its head, "" where nobody has wanted it yet.
_Sight: TypeAlias = "tuple[tuple[int, int], str]"
#: Of one: place, a number of its own, for places may be the same, how it is looked at, itself, what it has moved.
_Kept: TypeAlias = "tuple[float, int, View[Any], Any, tuple[int, int], Rates]"
_NO_RATES: Rates = (None, None)
_AT_REST: Rates = (0.0, 0.0)
_Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"


class View(abc.ABC, Generic[LiveT]):
    """How one kind of what lives is looked at."""

    @abc.abstractmethod
    def all(self) -> Iterator[tuple[str, Collection[LiveT]]]:
        """By the name of the listener, those that were there when this began. They come and go meanwhile: to be copied
        by whoever does not go through them at once.
        """

    @abc.abstractmethod
    def over(self, live: LiveT) -> bool:
        """It has ended since."""

    @abc.abstractmethod
    def conn_id(self, live: LiveT) -> str:
        """What the log calls it."""

    @abc.abstractmethod
    def client(self, live: LiveT) -> tuple[str, int]:
        """Address and port, as the log has them."""

    @abc.abstractmethod
    def target(self, live: LiveT) -> str:
        """The label of its target; "": it has none yet."""

    @abc.abstractmethod
    def moved(self, live: LiveT) -> tuple[int, int]:
        """Bytes in and out."""

    @abc.abstractmethod
    def began(self, live: LiveT) -> float:
        """When (monotonic)."""

    @abc.abstractmethod
    def used(self, live: LiveT) -> float:
        """When a byte has last moved, or a datagram."""

    @abc.abstractmethod
    def head(self, live: LiveT) -> str:
        """What its line begins with (`channel.live`), until a reload."""

    @abc.abstractmethod
    def line(self, live: LiveT, head: str, rates: Rates, *, tcp_info: bool) -> str:
        """What there is to see of it now."""

    @abc.abstractmethod
    def end(self, live: LiveT) -> None:
        """End it (`killed`). Idempotent, and never raises."""


class _Filter:
    """`Selection`, ready to be asked about thousands."""

    def __init__(self, selection: Selection) -> None:
        self.conn_id = selection.conn_id
        self.listener = selection.listener
        self._target = selection.target
        self._client = selection.client
        self._port = selection.client_port
        self._network: _Network | None = None
        if self._client is not None and "/" in self._client and not self._client.startswith("unix:"):
            self._network = ipaddress.ip_network(self._client, strict=False)
        self._asks = (self.conn_id, self._target, self._client, self._port) != (None,) * 4

    def taken(self, view: View[LiveT], every: Iterable[LiveT]) -> list[LiveT]:
        """Those of `every`, which are of a listener that fits, that are meant, and have not ended."""
        if not self._asks:
            return [live for live in every if not view.over(live)]
        return [live for live in every if not view.over(live) and self._takes(view, live)]

    def _takes(self, view: View[LiveT], live: LiveT) -> bool:
        if self.conn_id is not None and view.conn_id(live) != self.conn_id:
            return False
        if self._target is not None and view.target(live) != self._target:
            return False
        if self._client is None and self._port is None:
            return True
        host, port = view.client(live)
        if self._port not in (None, port):
            return False
        if self._network is None:
            return self._client in (None, host)
        return _within(host, self._network)


def _within(host: str, network: _Network) -> bool:
    """False of what is no address: a Unix client has none."""
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False


class Lives:
    """Answers what control asks about all that lives. `send` gives a message to control."""

    def __init__(self, loop: Loop, log: Logger, send: Callable[[Message], None]) -> None:
        #: Of each kind one.
        self.views: list[View[Any]] = []
        self.loop = loop
        self.log = log
        self.send = send
        #: What a look has found of all; and when that was.
        self.seen: dict[Any, _Sight] = {}
        self.seen_at = -RATE_MOST_S
        #: Reloads there had been by then: after another one, heads are to be made again.
        self.reloads = loop.reloads
        #: When the last one has begun that is to be the next of these.
        self.sweeping_since = -RATE_MOST_S

    def look(self, asked: Look) -> None:
        """Answer, in this turn and in others."""
        _Looking(self, asked).start()

    def kill(self, asked: Kill) -> None:
        """Do it, and answer."""
        _Killing(self, asked).start()

    def forget(self) -> None:
        """Nobody has looked for a while: what was seen is of no use any more. Once a second."""
        if self.seen and self.loop.now > self.seen_at + RATE_MOST_S:
            self.seen = {}

    def count(self) -> int:
        """How many there are."""
        return sum(len(every) for view in self.views for _, every in view.all())

    def note(self, seen: dict[Any, _Sight], at: float, reloads: int) -> None:
        """A look that has begun `at`, when there had been so many `reloads`, has found this of all."""
        self.seen, self.seen_at, self.reloads = seen, at, reloads


ALL = Selection()


class _Walk:
    """Through what a selection means, some in each turn."""

    def __init__(self, lives: Lives, later: Callable[[Callable[[], None]], None]) -> None:
        """`later` has the loop call the next slice."""
        self._lives = lives
        self._loop = lives.loop
        self._later = later
        self._steps: Iterator[None] = iter(())
        self._slice_s = SLICE_S

    def _each(self, selection: Selection) -> "Iterator[tuple[View[Any], list[Any]]]":
        """Some after others, as many as are to be gone through at once; they may be none."""
        wanted = _Filter(selection)
        for view in self._lives.views:
            for name, every in view.all():
                if wanted.listener in (None, name):
                    there = tuple(every)
                    for at in range(0, len(there), _STEP):
                        yield view, wanted.taken(view, there[at : at + _STEP])

    def _walk(self, steps: Iterator[None]) -> None:
        """Begin later: whoever asks has no part in it."""
        self._steps = steps
        self._later(self._go_on)

    def _go_on(self) -> None:
        """A slice, and then the next one."""
        until = clock.monotonic() + self._slice_s
        for _ in self._steps:
            if clock.monotonic() >= until:
                self._later(self._go_on)
                return

    def crashed(self, error: Exception) -> None:
        """A bug: control waits in vain, and says so."""
        self._lives.log.bug("met whoever looks at connections", error)


class _Looking(_Walk):
    """One Look, in slices with pauses between. Of more than `limit` the first ones are kept, and told when all are
    known.
    """

    def __init__(self, lives: Lives, asked: Look) -> None:
        super().__init__(lives, lives.loop.aside)
        self._asked = asked
        self._until = lives.loop.now + LOOK_MOST_S
        #: A heap by place, the last one in front.
        self._kept: list[_Kept] = []
        self._matched = 0
        #: What is seen of all, for the next one who looks; what was seen before, and how many reloads there had been by
        #: then.
        self._all = asked.selection == ALL
        self._seen: dict[Any, _Sight] = {}
        self._before: dict[Any, _Sight] = {}
        self._reloads = -1
        #: Lines that are not told yet.
        self._places: list[float] = []
        self._lines: list[str] = []

    def start(self) -> None:
        """Look; or look first what there is, and wait, for the rates."""
        self._slice_s = SLICE_S * max(1.0, self._lives.count() / _MANY)
        fresh = RATE_LEAST_S <= self._loop.now - self._lives.seen_at < RATE_MOST_S
        self._walk(self._look() if fresh else self._look_first())

    def expire(self) -> None:
        """What was looked at first is old enough."""
        self._walk(self._look())

    def _go_on(self) -> None:
        """As others do, but not for ever: where workers are so busy, those who look are not to pile up."""
        if self._loop.now < self._until:
            super()._go_on()
        else:  # they know this, and this knows them: nobody is to go round in circles
            self._steps = iter(())

    def _look_first(self) -> Iterator[None]:
        if self._loop.now - self._lives.sweeping_since >= RATE_LEAST_S:  # else somebody else has begun, just now
            yield from self._sweep()
        self._loop.call_at(self, self._loop.now + RATE_LEAST_S)

    def _sweep(self) -> Iterator[None]:
        """What all have moved so far: the next one who looks may ask for others."""
        lives, reloads = self._lives, self._loop.reloads
        before = lives.seen if lives.reloads == reloads else {}
        began = lives.sweeping_since = self._loop.now
        seen: dict[Any, _Sight] = {}
        for view, some in self._each(ALL):
            for live in some:
                seen[live] = (view.moved(live), before[live][1] if live in before else "")
            yield
        lives.note(seen, began, reloads)

    def _look(self) -> Iterator[None]:
        lives, asked, now, reloads = self._lives, self._asked, self._loop.now, self._loop.reloads
        since_s = now - lives.seen_at
        if 0 < since_s < RATE_MOST_S:
            self._before, self._reloads = lives.seen, lives.reloads
        all_fit = lives.count() <= asked.limit
        number = 0
        for view, some in self._each(asked.selection):
            self._matched += len(some)
            for live in some:
                moved = view.moved(live)
                was = self._before.get(live)
                rates = _NO_RATES
                if was is not None:
                    before = was[0]
                    rates = _AT_REST
                    if moved != before:
                        rates = (max(0, moved[0] - before[0]) / since_s, max(0, moved[1] - before[1]) / since_s)
                place = self._place(view, live, moved, rates)
                if all_fit:  # told here and now: to come back to it means to fetch it from memory once more
                    self._add(place, view, live, moved, rates)
                    continue
                number += 1
                self._keep((place, number, view, live, moved, rates))
                if self._all:
                    self._seen[live] = (moved, self._head(live))
            yield
        yield from self._tell()
        if self._all and now - lives.seen_at >= _RENEW_S:
            lives.note(self._seen, now, reloads)
        elif now - max(lives.seen_at, lives.sweeping_since) >= _RENEW_S:
            yield from self._sweep()

    def _place(self, view: View[LiveT], live: LiveT, moved: tuple[int, int], rates: Rates) -> float:
        """The larger, the sooner."""
        sort = self._asked.sort
        if sort is Sort.AGE:
            return -view.began(live)
        if sort is Sort.NEW:
            return view.began(live)
        if sort is Sort.IDLE:
            return -view.used(live)
        if sort is Sort.BYTES:
            return sum(moved)
        return (rates[0] or 0.0) + (rates[1] or 0.0)

    def _keep(self, one: _Kept) -> None:
        if len(self._kept) < self._asked.limit:
            heapq.heappush(self._kept, one)
        else:
            heapq.heappushpop(self._kept, one)

    def _tell(self) -> Iterator[None]:
        for place, _, view, live, moved, rates in self._kept:
            if not view.over(live):
                self._add(place, view, live, moved, rates)
            yield
        self._kept.clear()
        self._say(last=True)

    def _head(self, live: Any) -> str:
        """The one that was made before; "" where there is none, or a reload may have changed it since."""
        was = self._before.get(live) if self._reloads == self._loop.reloads else None
        return "" if was is None else was[1]

    def _add(self, place: float, view: View[LiveT], live: LiveT, moved: tuple[int, int], rates: Rates) -> None:
        """Have it told as it is now, and remember its head. `moved` was when its rates were taken."""
        head = self._head(live)
        if not head:
            head = view.head(live)
            if self._reloads == self._loop.reloads and live in self._before:
                self._before[live] = (self._before[live][0], head)  # for as long as that is what was seen
        if self._all:
            self._seen[live] = (moved, head)
        self._places.append(place)
        self._lines.append(view.line(live, head, rates, tcp_info=self._asked.tcp_info))
        if len(self._lines) >= _ROWS_MAX:
            self._say(last=False)

    def _say(self, *, last: bool) -> None:
        rows = pack_rows(self._places, self._lines)
        self._lives.send(Seen(self._asked.number, self._matched, len(self._places), last, rows))
        self._places, self._lines = [], []


class _Killing(_Walk):
    """One Kill, a slice in each turn: it is somebody's will that they go."""

    def __init__(self, lives: Lives, asked: Kill) -> None:
        super().__init__(lives, lives.loop.again)
        self._asked = asked

    def start(self) -> None:
        """End them."""
        self._walk(self._end())

    def expire(self) -> None:
        """It has no timer."""

    def _end(self) -> Iterator[None]:
        count = 0
        for view, some in self._each(self._asked.selection):
            for live in some:
                view.end(live)
                count += 1
            yield
        self._lives.send(Killed(self._asked.number, count))
