"""What will not stop a configuration from loading, and may not be what was meant: what it names and this machine does
not have now, and what will have no effect. Each at its key, in the form of an error.

What is not there may be by the time it is needed: an interface, an address, a directory that systemd makes at the
start.
"""

import functools
import os
from collections.abc import Iterable, Iterator, Sequence

from relayd.address import InetAddress, SystemdAddress, UnixAddress
from relayd.config import machine, probing
from relayd.config.blocks import Pool
from relayd.config.check_table import CheckTable
from relayd.config.document import Document
from relayd.config.listeners import Built
from relayd.config.model import PoolKeys, Shared
from relayd.config.positions import Path
from relayd.config.problems import Problem, quote


def of_keys(tables: Iterable[tuple[Document, Path, Shared]]) -> Iterator[Problem]:
    """Warnings about the keys that a listener and [defaults] share, each table with its place."""
    algorithms, interfaces, somaxconn = machine.congestion_available(), machine.interfaces(), machine.somaxconn()
    for document, path, table in tables:
        if table.congestion and algorithms and table.congestion not in algorithms:
            message = f"{quote(table.congestion)} is not among what this kernel has loaded: {', '.join(algorithms)}"
            yield document.problem((*path, "congestion"), message)
        if table.interface and table.interface not in interfaces:
            yield document.problem((*path, "interface"), f"this machine has no interface {quote(table.interface)} now")
        if table.backlog and somaxconn and table.backlog > somaxconn:
            message = f"the kernel caps it at {somaxconn} (net.core.somaxconn)"
            yield document.problem((*path, "backlog"), message)
        source = table.source
        if source and not machine.has_address(source.family, source.host, source.scope):
            message = f"this machine does not have the address {_host(source)} now: no target can be dialled from it"
            yield document.problem((*path, "source"), message)


def of_binds(listeners: Sequence[Built]) -> Iterator[Problem]:
    """Warnings about addresses that could not be bound now; of Unix paths one for each directory that is missing."""
    has_address = functools.cache(machine.has_address)  # thousands of binds, and few addresses
    looked_at: set[str] = set()
    for built in listeners:
        binding = built.listener.binding
        for bind, index in zip(built.listener.binds, built.sources, strict=True):
            address = bind.address
            if isinstance(address, InetAddress):
                if not binding.freebind and not has_address(address.family, address.host, address.scope):
                    message = f"this machine does not have the address {_host(address)} now: it cannot be bound"
                    help_text = "help: to bind it all the same, set freebind = true"
                    yield built.block.problem("bind", message, help_text, index)
                continue
            if isinstance(address, SystemdAddress):
                continue  # it is there, or will be before relayd is
            directory = _directory(address)
            if directory not in looked_at and machine.has_directory(directory) is False:
                yield built.block.problem("bind", f"there is no directory {directory} now", _advice(directory), index)
            looked_at.add(directory)


def of_backups(listeners: Sequence[Built]) -> Iterator[Problem]:
    """Warnings about backups that no connection reaches, for its dials are used up before. One for a pool."""
    told: set[str] = set()
    for built in listeners:
        listener = built.listener
        if listener.stream is None or listener.pool in told:
            continue
        told |= {listener.pool} - {""}
        backups = [at for at, share in enumerate(listener.shares) if share.backup]
        others = len(listener.targets) - len(backups)
        if backups and listener.stream.dial_attempts <= others:
            attempts = listener.stream.dial_attempts
            message = f"no connection comes to this backup: dial_attempts is {attempts}, and {others} go before it"
            help_text = f"help: set dial_attempts = {others + 1}"
            yield built.block.home.problem("targets", message, help_text, built.target_sources[backups[0]])


def of_limits(listeners: Sequence[Built], workers: int) -> Iterator[Problem]:
    """Warnings about targets that some worker may send nobody to. One for a target of a pool."""
    told: set[str] = set()
    for built in listeners:
        if built.listener.pool in told:
            continue
        told |= {built.listener.pool} - {""}
        for index, share in enumerate(built.listener.shares):
            limit = share.max_connections
            if limit is not None and limit < workers:
                message = f"max_connections is {limit}, of which some of the {workers} workers have none to give"
                help_text = f"help: each worker has its part: set it to {workers} or more, or fewer daemon.workers"
                yield built.block.home.problem("targets", message, help_text, built.target_sources[index])


def of_checks(tables: Iterable[tuple[Document, Path, PoolKeys]]) -> Iterator[Problem]:
    """Warnings about health checks, wherever they stand: tables with their places."""
    for document, path, keys in tables:
        check = keys.health_check
        if not isinstance(check, CheckTable):
            continue
        why = machine.not_executable(check.command[0]) if check.command else ""
        if why and check.command:
            message = f"{quote(check.command[0])} {why}: a check that cannot be made is a failure"
            yield document.problem((*path, "health_check", "command"), message)
        repeated = probing.repeats_a_repeat(check.expect.pattern or "") if check.expect else ""
        if repeated:
            message = f"{quote(repeated)} repeats what repeats: for an answer that does not match it can take for ever"
            help_text = "help: a check whose pattern takes longer than 20 ms is a failure: repeat one of the two"
            yield document.problem((*path, "health_check", "expect"), message, help_text)


def of_unused(all_pools: Iterable[Pool], listeners: Sequence[Built]) -> Iterator[Problem]:
    """Warnings about pools that no listener shares."""
    shared = {built.listener.pool for built in listeners}
    for pool in all_pools:
        if pool.name not in shared:
            message = "no listener shares this pool"
            yield pool.document.problem(
                pool.path, message, f"help: share it with pool = {quote(pool.name)}", at_key=True
            )


def _host(address: InetAddress) -> str:
    return f"{address.host}%{address.scope}" if address.scope else address.host


def _directory(address: UnixAddress) -> str:
    """Where the socket file will be; of an abstract name the root, which is always there."""
    return "/" if address.abstract else os.path.dirname(address.path)


def _advice(directory: str) -> str:
    runtime = directory.removeprefix("/run/")
    unit = f" (RuntimeDirectory={runtime} in the unit does)" if runtime != directory else ""
    return f"help: create it before relayd starts{unit}"
