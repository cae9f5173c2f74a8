"""One lookup of a name: the hosts file, `localhost`, name servers; for a service its SRV records, and then their hosts.

    hosts file ──▶ localhost ──▶ for each name that `search` makes of it: A and AAAA at once ──▶ the first that has any

As the C library does it with "files dns", but that nothing waits for it, and that the TTL is known. What a name server
fails to tell about a part of it (one family, one host of a service) is what it was in the answer before.
"""

import asyncio
import math
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Protocol, TypeAlias, TypeVar

from relayd.address import Family, InetAddress, ServiceAddress
from relayd.config import machine
from relayd.control.answers import ADDRESSES_MAX, Answer, Service, interleaved, of_services
from relayd.control.name_files import HOSTS, RESOLV_CONF, Hosts, ResolvConf, loopback
from relayd.control.threads import aside
from relayd.errors import RelaydError
from relayd.spec import Share, Wanted
from relayd.spec.budget import LOOKUP_FDS
from relayd.values import dataclass

__all__ = ["Ask", "LookupFailed", "Lookups", "NoSuchName", "Records", "Unanswered"]

_KIND = {Family.INET: "A", Family.INET6: "AAAA"}
_SERVICE_KIND = "SRV"
#: A service of hundreds of hosts would ask a name server that says nothing for an hour. Some names of a good one may
#: have none that answers for them.
_SILENCES_MAX = 2 * LOOKUP_FDS
#: Of one answer. The others are mostly like them.
_PROBLEMS_TOLD = 3


class LookupFailed(RelaydError):
    """`str(error)` says why, for people."""


class NoSuchName(LookupFailed):
    """A name server says that there is none."""


class Unanswered(LookupFailed):
    """No name server says whether there is one. `silent`: at least one of them says nothing at all, and it has taken
    its time.
    """

    def __init__(self, reason: str, *, silent: bool = False) -> None:
        super().__init__(reason)
        self.silent = silent


@dataclass(frozen=True, slots=True)
class Records:
    """At least one; addresses are of port 0. `ttl_s` is the shortest on the way to them."""

    addresses: tuple[InetAddress, ...] = ()
    services: tuple[Service, ...] = ()
    ttl_s: float = 0.0


class Ask(Protocol):
    """Asks the name servers of `conf` for the records of `kind` ("A", "AAAA" or "SRV") of `name`, which is absolute.
    Raises LookupFailed.
    """

    def __call__(self, conf: ResolvConf, name: str, kind: str) -> Awaitable[Records]: ...


Found = TypeVar("Found", InetAddress, Service)
#: What was found of a host, by its name and family.
ByHost: TypeAlias = dict[tuple[str, Family], tuple[InetAddress, ...]]


class Lookups:
    """Looks names up, by the files that there are on this machine. For the event loop, which never waits."""

    def __init__(
        self, ask: Ask | None = None, hosts_file: str = HOSTS, resolv_conf: str = RESOLV_CONF, port: int = 53
    ) -> None:
        """`ask` None: by dnspython, which is loaded when a name server is to be asked for the first time. `port` is
        where name servers are.
        """
        self._ask = ask or self._ask_name_servers
        self._paths = (hosts_file, resolv_conf)
        self._port = port
        self._seen: tuple[object, ...] = ()
        self._reading = asyncio.Lock()
        self._loading: asyncio.Task[Ask] | None = None
        self._hosts, self._conf = Hosts(), ResolvConf()
        #: Of the last answer of each name.
        self._known: dict[Wanted, ByHost] = {}

    async def refresh(self) -> bool:
        """Read the files again if they are others. True then: what was found before may be something else now."""
        async with self._reading:
            seen = tuple(map(_signature, self._paths))
            if seen == self._seen:
                return False
            # Aside: lists of names to block are hosts files of a hundred thousand lines.
            self._hosts, conf = await aside(self._read, "read hosts and resolv.conf")
            self._conf = replace(conf, port=self._port)
            first, self._seen = not self._seen, seen
            return not first

    def _read(self) -> tuple[Hosts, ResolvConf]:
        hosts, conf = map(_text, self._paths)
        return Hosts.of(hosts), ResolvConf.of(conf, socket.gethostname())

    def keep(self, names: Iterable[Wanted]) -> None:
        """From now on nobody asks for any but these."""
        names = frozenset(names)
        self._known = {name: known for name, known in self._known.items() if name in names}

    async def look_up(self, wanted: Wanted) -> Answer:
        """Raises LookupFailed. What the hosts file says has no end: when it has changed, `refresh` tells."""
        if not self._seen:
            await self.refresh()
        families = _families(wanted.resolve.family)
        lookup = _Lookup(self._hosts, self._conf, self._ask, families, self._known.get(wanted, {}))
        if isinstance(wanted.name, ServiceAddress):
            answer = await lookup.service(wanted.name.name)
        else:
            answer = await lookup.name(wanted.name.host, wanted.name.port)
        self._known[wanted] = lookup.found
        return answer

    async def _ask_name_servers(self, conf: ResolvConf, name: str, kind: str) -> Records:
        if self._loading is None:
            self._loading = asyncio.ensure_future(aside(_load, "load dnspython"))
        try:
            ask = await asyncio.shield(self._loading)
        except ImportError as error:
            raise Unanswered(str(error)) from None
        return await ask(conf, name, kind)


class _Lookup:
    """One of them: what it finds, and what it cannot find out."""

    def __init__(self, hosts: Hosts, conf: ResolvConf, ask: Ask, families: tuple[Family, ...], known: ByHost) -> None:
        self.found: ByHost = {}
        self._hosts, self._conf, self._families, self._known = hosts, conf, families, known
        self._ask = ask
        self._room = asyncio.Semaphore(LOOKUP_FDS)
        self._ttl_s = math.inf
        self._silences = 0
        self._problems: dict[str, None] = {}

    async def name(self, host: str, port: int) -> Answer:
        """The answer for a host."""
        addresses = interleaved(self._local(host) or await self._searched(host, self._addresses))[:ADDRESSES_MAX]
        return self._answer(tuple(replace(address, port=port) for address in addresses))

    async def service(self, name: str) -> Answer:
        """The answer for a service."""
        services = await self._searched(name, self._services)
        hosts = sorted({service.host for service in services if service.host != "."})
        if not hosts:  # RFC 2782, "Target"
            raise NoSuchName("its SRV record says that the service is not available")
        found = await asyncio.gather(*map(self._of_service, hosts))
        answer = self._answer(*of_services(services, dict(zip(hosts, found, strict=True))))
        if not answer.addresses:
            raise Unanswered(answer.problem)
        return answer

    def _answer(self, addresses: tuple[InetAddress, ...], shares: tuple[Share, ...] = ()) -> Answer:
        told = list(self._problems)[:_PROBLEMS_TOLD]
        if len(self._problems) > _PROBLEMS_TOLD:
            told.append(f"and {len(self._problems) - _PROBLEMS_TOLD} more")
        return Answer(addresses, shares, self._ttl_s, "; ".join(told))

    async def _of_service(self, host: str) -> tuple[InetAddress, ...]:
        """Those of one of its hosts. Nothing, and a problem, where that has none."""
        try:
            return self._local(host) or await self._addresses(host)
        except LookupFailed as error:
            self._problems[f"{host.rstrip('.')}: {error}"] = None
            again = self._families if isinstance(error, Unanswered) else ()
            return tuple(address for family in again for address in self._as_before(host, family))

    def _local(self, host: str) -> tuple[InetAddress, ...]:
        """What needs no name server."""
        here = self._hosts.addresses(host) or loopback(host)
        return tuple(address for address in here if address.family in self._families)

    async def _searched(self, name: str, look: Callable[[str], Awaitable[tuple[Found, ...]]]) -> tuple[Found, ...]:
        """What `look` finds for the first of what `search` makes of `name`. One that a name server cannot answer for is
        passed over, as in glibc; one that it is silent about is not: that takes long, and would each time.
        """
        tried, failure = [], LookupFailed("")
        for candidate in self._conf.candidates(name):
            tried.append(candidate)
            try:
                return await look(candidate)
            except NoSuchName as error:
                failure = failure if isinstance(failure, Unanswered) else error
            except Unanswered as error:
                failure = error
                if error.silent:
                    break
        if isinstance(failure, NoSuchName) and len(tried) > 1:
            raise NoSuchName(f"{failure} (asked for {', '.join(tried)})")
        raise failure

    async def _addresses(self, host: str) -> tuple[InetAddress, ...]:
        """By name servers, of all families that are wanted; of one that is not answered for, those of before."""
        asked = await asyncio.gather(*(self._of_family(host, family) for family in self._families))
        if not any(isinstance(one, Records) for one in asked):
            raise _one_failure([one for one in asked if isinstance(one, LookupFailed)])
        found: list[InetAddress] = []
        for family, one in zip(self._families, asked, strict=True):
            if isinstance(one, Records):
                self._ttl_s = min(self._ttl_s, one.ttl_s)
                found += one.addresses
            elif isinstance(one, Unanswered):
                self._problems[f"{_KIND[family]} of {host.rstrip('.')}: {one}"] = None
                found += self._as_before(host, family)
        return tuple(found)

    async def _of_family(self, host: str, family: Family) -> Records | LookupFailed:
        try:
            async with self._room:
                if self._silences >= _SILENCES_MAX:
                    raise Unanswered("not asked, after so many without an answer", silent=True)
                records = await self._ask(self._conf, host, _KIND[family])
        except LookupFailed as error:
            self._silences += isinstance(error, Unanswered) and error.silent
            return error
        # 0.0.0.0 and :: are what filters answer in place of an address, and would be this very machine.
        usable = tuple(address for address in records.addresses if not address.wildcard)
        if not usable:
            return NoSuchName(f"every {_KIND[family]} record is 0.0.0.0 or ::, which is no address to dial")
        self.found[host, family] = usable
        return replace(records, addresses=usable)

    def _as_before(self, host: str, family: Family) -> tuple[InetAddress, ...]:
        addresses = self._known.get((host, family), ())
        if addresses:
            self.found[host, family] = addresses
        return addresses

    async def _services(self, name: str) -> tuple[Service, ...]:
        async with self._room:
            records = await self._ask(self._conf, name, _SERVICE_KIND)
        self._ttl_s = min(self._ttl_s, records.ttl_s)
        return records.services[:ADDRESSES_MAX]


def _one_failure(failures: list[LookupFailed]) -> LookupFailed:
    """Of all families: there is no such name only if there is none in any."""
    unanswered = [error for error in failures if isinstance(error, Unanswered)]
    reason = "; ".join(dict.fromkeys(str(error) for error in unanswered or failures))
    if unanswered:
        return Unanswered(reason, silent=any(error.silent for error in unanswered))
    return NoSuchName(reason)


def _families(wanted: Family | None) -> tuple[Family, ...]:
    """On a machine without IPv6, any address is an IPv4 one."""
    if wanted is not None:
        return (wanted,)
    return (Family.INET6, Family.INET) if machine.has_ipv6() else (Family.INET,)


def _signature(path: str) -> object:
    """Another one when the file is another, or has been written to. None: there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _text(path: str) -> str:
    """What is no UTF-8 is no name either. Empty where nothing can be read, as for the C library."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _load() -> Ask:
    from relayd.control.name_servers import ask

    return ask
