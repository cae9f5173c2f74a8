"""One question to the name servers, by dnspython, which no other module knows: by UDP, and TCP for longer answers.

Loaded when there is a name to ask for, and aside, for that takes as long as all the rest of a start.
"""

import asyncio
import functools
import socket
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.resolver
from dns.asyncbackend import Backend, get_backend  # type: ignore[attr-defined]  # both are documented

from relayd.address import InetAddress, from_sockaddr
from relayd.control.answers import Service
from relayd.control.lookups import NoSuchName, Records, Unanswered
from relayd.control.name_files import ResolvConf

__all__ = ["LIFETIME_S", "TIMEOUT_S", "ask"]

#: One name server, one try. In a data centre an answer takes milliseconds, and one from the other side of the world,
#: not cached, less than a second.
TIMEOUT_S = 2.0
#: One question, all tries at all name servers: two at the one that there mostly is, and one at each of three. It is
#: what the C library gives a single try (resolv.conf(5)).
LIFETIME_S = 5.0
#: dnspython counts by the wall clock, which may be set. Later than it would, this ends it.
_HANGS_S = 2 * LIFETIME_S
#: Without fragments on nearly every path (DNS Flag Day 2020).
_EDNS_BYTES = 1232


class _Connected(Backend):
    """dnspython's own for asyncio, but with UDP sockets that are connected: the kernel then tells of a port where
    nobody listens, and takes datagrams from nobody else.
    """

    def __init__(self) -> None:
        self._asyncio: Any = get_backend("asyncio")

    def name(self) -> str:
        return str(self._asyncio.name())

    async def make_socket(self, *args: Any, **kwargs: Any) -> Any:
        return await self._asyncio.make_socket(*args, **kwargs)

    def datagram_connection_required(self) -> bool:
        return True

    async def sleep(self, interval: float) -> None:
        await self._asyncio.sleep(interval)

    def get_transport_class(self) -> Any:
        return self._asyncio.get_transport_class()

    async def wait_for(self, awaitable: Any, timeout: float | None) -> Any:
        return await self._asyncio.wait_for(awaitable, timeout)


async def ask(conf: ResolvConf, name: str, kind: str) -> Records:
    """See `lookups.Ask`."""
    try:
        answer = await asyncio.wait_for(
            _resolver(conf).resolve(name, kind, search=False, lifetime=LIFETIME_S, backend=_Connected()), _HANGS_S
        )
    except dns.resolver.NXDOMAIN:
        raise NoSuchName("there is no such name (NXDOMAIN)") from None
    except dns.resolver.NoAnswer:
        raise NoSuchName(f"no {kind} record") from None
    except dns.resolver.NoNameservers as error:
        raise Unanswered(_told(error)) from None
    except dns.exception.Timeout as error:
        raise Unanswered(_told(error) or "no answer", silent=True) from None
    except asyncio.TimeoutError:
        raise Unanswered("no answer", silent=True) from None
    except Exception as error:  # whatever the bytes of a name server do to the library: it ends one lookup
        raise Unanswered(f"{type(error).__name__}: {error}") from None
    ttl_s = float(answer.chaining_result.minimum_ttl)
    if kind == "SRV":
        services = tuple(Service(one.priority, one.weight, one.port, one.target.to_text().lower()) for one in answer)
        return Records(services=services, ttl_s=ttl_s)
    return Records(tuple(_address(one.address) for one in answer), ttl_s=ttl_s)


@functools.lru_cache(maxsize=1)
def _resolver(conf: ResolvConf) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = list(conf.nameservers)
    resolver.port = conf.port
    resolver.timeout = TIMEOUT_S
    resolver.rotate = conf.rotate
    if conf.edns:
        resolver.use_edns(0, 0, _EDNS_BYTES)
    return resolver


def _told(error: dns.exception.DNSException) -> str:
    """`10.0.0.53: SERVFAIL, 10.0.0.54: no answer`: what each name server has said, once."""
    found: dict[str, None] = {}
    for server, _, _, what, _ in error.kwargs.get("errors", ()):
        host = str(server).removeprefix("Do53:").rpartition("@")[0] or str(server)
        if isinstance(what, dns.exception.Timeout):
            text = "no answer"
        elif isinstance(what, OSError):
            text = what.strerror or str(what)
        else:
            text = str(what)
        found[f"{host}: {text}"] = None
    return ", ".join(found)


def _address(text: str) -> InetAddress:
    """IPv4 as such where it stands in an AAAA record."""
    address = from_sockaddr(socket.AF_INET6 if ":" in text else socket.AF_INET, (text, 0))
    if not isinstance(address, InetAddress):
        raise TypeError(text)
    return address
