"""`load`: a path in, a `Spec` out, or every reason why not. The order of the work is the order of this module."""

import glob
import hashlib
import os
from collections.abc import Iterator
from dataclasses import field, replace
from pathlib import Path
from typing import TypeVar

from relayd import spec
from relayd.config import admin, faults, health, machine, pools, warning
from relayd.config.blocks import Block, Pool
from relayd.config.conflicts import Bindings, loops
from relayd.config.document import Document, UnreadableError, read
from relayd.config.listeners import Built, build
from relayd.config.model import AdminTable, Configuration, DaemonTable, LogTable, PoolKeys, Shared
from relayd.config.positions import Path as Keys
from relayd.config.problems import ConfigError, Problem, quote, quote_short
from relayd.spec.passed import Inventory
from relayd.values import dataclass

#: Files of one configuration: bounds what a glob too wide reads.
FILES_MAX = 1024

_FIRST_LISTENER = 'help: add a [listeners.web] with bind = "127.0.0.1:8080" and targets = ["10.0.0.11:80"]'
_GLOB_CHARACTERS = frozenset("*?[")

B = TypeVar("B", Block, Pool)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used. `model` is all files as one; `files` the order in which they were read;
    `sha256` tells whether any of them has changed.
    """

    spec: spec.Spec
    model: Configuration
    files: tuple[Path, ...]
    warnings: tuple[Problem, ...]
    sha256: str


@dataclass(slots=True)
class _Part:
    """One file: what it says, as far as that is right, and the keys of it that are not."""

    path: Path
    document: Document
    model: Configuration
    wrong: frozenset[Keys]


@dataclass(slots=True)
class _Merge:
    """All files together. Each section remembers which part it is from."""

    parts: list[_Part]
    problems: list[Problem] = field(default_factory=list)
    sections: dict[str, _Part] = field(default_factory=dict)
    blocks: dict[str, Block] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    token_sha256: str = ""
    #: Of what has been read beside the files.
    warnings: list[Problem] = field(default_factory=list)


def load(path: Path, passed: Inventory | None = None) -> Loaded:
    """Reads `path` and what it includes. Resolves the host names of binds, so it may block. `passed` is what systemd
    has passed to this process, None where that is not known. Raises ConfigError.
    """
    problems: list[Problem] = []
    merged = _merge(_read_all(path, problems))
    problems += merged.problems
    built = [build(block, passed) for block in merged.blocks.values()]
    for one in built:
        problems += one.problems
    problems += pools.problems(merged.pools, built)
    problems += health.of_tables(_pool_tables(merged))
    bindings = Bindings(built, passed or {})
    problems += bindings.conflicts()
    problems += loops(built, bindings)
    problems += _admin_problems(merged, bindings)
    problems += _read_token(merged, serves=passed is not None)
    if not problems and not built:
        problems.append(Problem(str(path), 0, 0, "listeners", "no listeners: nothing to do", "", _FIRST_LISTENER))
    if problems:
        raise ConfigError(_in_order(problems, merged.parts))
    model = _one_model(merged)
    loaded = _spec(model, built, merged.token_sha256)
    return Loaded(
        spec=loaded,
        model=model,
        files=tuple(part.path for part in merged.parts),
        warnings=tuple(_warnings(merged, built, loaded.workers)),
        sha256=_digest(merged.parts),
    )


def _digest(parts: list[_Part]) -> str:
    """Of one file with plain line ends, what sha256sum says; of several, of all of them one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.document.text.encode())
    return digest.hexdigest()


def _read_all(path: Path, problems: list[Problem]) -> list[_Part]:
    """The main file and what it includes. ConfigError when the main file cannot be read: then nothing else matters."""
    try:
        main = _part(path, problems)
    except UnreadableError as error:
        raise ConfigError([error.problem]) from None
    parts = [main]
    seen = {os.path.realpath(path)}
    for index, pattern in enumerate(main.model.include):
        where = ("include", index) if isinstance(main.document.data["include"], list) else ("include",)
        for file in _matches(main, where, pattern, problems):
            real = os.path.realpath(file)
            if real == os.path.realpath(path):
                problems.append(main.document.problem(where, f"{quote_short(pattern)} includes this file itself"))
            elif len(parts) >= FILES_MAX and real not in seen:
                problems.append(main.document.problem(where, f"more than {FILES_MAX} files"))
                return parts
            elif real not in seen:
                try:
                    parts.append(_part(file, problems))
                except UnreadableError as error:
                    found = error.problem
                    about_all = main.document.problem(where, f"{found.file}: {found.message}", found.suggestion)
                    problems.append(found if found.line else about_all)
                    parts.append(_unread(file))
            seen.add(real)
    return parts


def _unread(path: Path) -> _Part:
    """In place of a file that says nothing: which pools it has is not known."""
    return _Part(path, Document(str(path), "", {}), Configuration(), frozenset({("pools",)}))


def files_of(path: Path) -> tuple[Path, ...]:
    """The files of a configuration, whatever is wrong in them; `path` alone where that one cannot be understood."""
    try:
        return tuple(part.path for part in _read_all(path, []))
    except ConfigError:
        return (path,)


def load_admin(path: Path) -> spec.Admin:
    """Where a daemon that runs on `path` has its admin API. What is wrong elsewhere in the file does not matter, and
    nothing is resolved. Raises ConfigError when the file cannot be read, or its `[admin]` is wrong.
    """
    problems: list[Problem] = []
    merged = _merge(_read_all(path, problems))
    ours = [problem for problem in problems if problem.key == "admin" or problem.key.startswith("admin.")]
    if ours:
        raise ConfigError(ours)
    part = merged.sections.get("admin")
    return admin.build(part.model.admin if part else None)


def _part(path: Path, problems: list[Problem]) -> _Part:
    document = read(path)
    model, wrong, found = faults.validate(document)
    problems += found
    return _Part(path, document, model, wrong)


def _matches(main: _Part, where: Keys, pattern: str, problems: list[Problem]) -> Iterator[Path]:
    """Files of one `include`, sorted. A glob may match none; a path without a wildcard is a file that must be there."""
    base = main.path.parent
    if not _GLOB_CHARACTERS & set(pattern):
        if os.path.isdir(base / pattern):
            help_text = f"help: write {quote(pattern.rstrip('/') + '/*.toml')}"
            problems.append(main.document.problem(where, f"{quote_short(pattern)} is a directory", help_text))
        else:
            yield base / pattern
        return
    directory = base / os.path.dirname(pattern)
    if os.path.isdir(directory) and not os.access(directory, os.R_OK | os.X_OK):  # glob would find nothing, and be fine
        problems.append(main.document.problem(where, f"{directory}: the directory cannot be read"))
    for name in sorted(glob.glob(pattern, root_dir=base)):
        yield base / name


def _merge(parts: list[_Part]) -> _Merge:
    merged = _Merge(parts)
    main = parts[0]
    for part in parts:
        if part is not main and "include" in part.document.data:
            message = "an included file cannot include others"
            merged.problems.append(part.document.problem(("include",), message, at_key=True))
        for section in ("daemon", "log", "admin"):
            _take_section(merged, part, section)
        own = (part.model.defaults,) if part is not main else ()
        layers = tuple(layer for layer in (main.model.defaults, *own) if layer is not None)
        _take_blocks(merged, part, layers)
    merged.problems += pools.references(list(merged.blocks.values()), merged.pools, _unusable_pools(parts))
    for name, block in merged.blocks.items():
        merged.blocks[name] = replace(block, pool=pools.pool_of(block, merged.pools))
    return merged


def _take_blocks(merged: _Merge, part: _Part, layers: tuple[Shared, ...]) -> None:
    wrong: dict[Keys, set[str]] = {}
    for path in part.wrong:
        if len(path) == 3:
            wrong.setdefault(path[:2], set()).add(str(path[2]))
    for name, table in part.model.listeners.items():
        keys = frozenset(wrong.get(("listeners", name), ()))
        _take_block(merged, merged.blocks, Block(part.document, name, table, layers, keys), "listener")
    for name, pool in part.model.pools.items():
        keys = frozenset(wrong.get(("pools", name), ()))
        _take_block(merged, merged.pools, Pool(part.document, name, pool, layers, keys), "pool")


def _take_block(merged: _Merge, known: dict[str, B], block: B, what: str) -> None:
    first = known.setdefault(block.name, block)
    if first is not block:
        place = first.document.place_of_key(first.path)
        message = f"there is a {what} of this name already: {place}"
        merged.problems.append(block.document.problem(block.path, message, at_key=True))


def _unusable_pools(parts: list[_Part]) -> frozenset[str] | None:
    """Names of pools that are no table; None where all of them in a file are wrong, so that there may be any."""
    wrong = [path for part in parts for path in part.wrong if path[0] == "pools"]
    return None if ("pools",) in wrong else frozenset(str(path[1]) for path in wrong if len(path) == 2)


def _take_section(merged: _Merge, part: _Part, section: str) -> None:
    if section not in part.document.data:
        return
    first = merged.sections.setdefault(section, part)
    if first is not part:
        place = first.document.place_of_key((section,))
        message = f"[{section}] stands once in all files, and is already at {place}"
        merged.problems.append(part.document.problem((section,), message, at_key=True))


def _admin_problems(merged: _Merge, bindings: Bindings) -> Iterator[Problem]:
    part = merged.sections.get("admin")
    if part is None or part.model.admin is None:
        return
    table = part.model.admin
    any_remote = table.allow_remote or ("admin", "allow_remote") in part.wrong
    yield from admin.problems(part.document, table, bindings, any_remote=any_remote)


def _read_token(merged: _Merge, *, serves: bool) -> Iterator[Problem]:
    part = merged.sections.get("admin")
    if part is None or part.model.admin is None:
        return
    merged.token_sha256, wrong, unsure = admin.token(part.document, part.model.admin, serves=serves)
    if wrong is not None:
        yield wrong
    if unsure is not None:
        merged.warnings.append(unsure)
    merged.warnings += admin.warnings(part.document, part.model.admin)


def _one_model(merged: _Merge) -> Configuration:
    """Everything that the files say, in one model. `defaults` is the main file's: those of others are their own."""
    main = merged.parts[0].model
    daemon, log, admin_api = (merged.sections.get(section) for section in ("daemon", "log", "admin"))
    return Configuration.model_construct(
        include=main.include,
        daemon=(daemon.model.daemon if daemon else None) or DaemonTable(),
        log=(log.model.log if log else None) or LogTable(),
        admin=(admin_api.model.admin if admin_api else None) or AdminTable(),
        defaults=main.defaults or Shared(),
        listeners={name: block.table for name, block in merged.blocks.items()},
        pools={name: pool.table for name, pool in merged.pools.items()},
    )


def _spec(model: Configuration, built: list[Built], token_sha256: str) -> spec.Spec:
    daemon, log = model.daemon or DaemonTable(), model.log or LogTable()
    return spec.Spec(
        workers=daemon.workers if isinstance(daemon.workers, int) else machine.cores(),
        drain_timeout_s=daemon.drain_timeout / 1000,
        log=spec.Log(level=log.level, format=log.format, access=log.access),
        listeners=tuple(one.listener for one in built),
        admin=admin.build(model.admin, token_sha256),
        preserve_connections=daemon.preserve_connections,
    )


def _pool_tables(merged: _Merge) -> list[tuple[Document, Keys, PoolKeys]]:
    """All that can say what a pool says, with its place."""
    tables: list[tuple[Document, Keys, PoolKeys]] = [
        (part.document, ("defaults",), part.model.defaults) for part in merged.parts if part.model.defaults
    ]
    blocks: list[Block | Pool] = [*merged.pools.values(), *merged.blocks.values()]
    return [*tables, *((block.document, block.path, block.table) for block in blocks)]


def _warnings(merged: _Merge, built: list[Built], workers: int) -> list[Problem]:
    """What will not stop relayd now, and may not be what was meant."""
    tables: list[tuple[Document, Keys, Shared]] = [
        (part.document, ("defaults",), part.model.defaults) for part in merged.parts if part.model.defaults
    ]
    tables += [(one.block.document, one.block.path, one.block.table) for one in built]
    found = [*warning.of_keys(tables), *warning.of_binds(built), *warning.of_backups(built)]
    found += warning.of_limits(built, workers)
    found += warning.of_checks(_pool_tables(merged))
    found += warning.of_unused(merged.pools.values(), built)
    found += merged.warnings
    return _in_order(found, merged.parts)


def _in_order(problems: list[Problem], parts: list[_Part]) -> list[Problem]:
    """By file in the order of reading, then by place; what concerns a file as a whole first."""
    order = {part.document.file: number for number, part in enumerate(parts)}
    return sorted(problems, key=lambda problem: (order.get(problem.file, len(order)), problem.line, problem.column))
