"""The house rules of ARCHITECTURE.md, held by a walk over the syntax trees. Imports inside functions and under
TYPE_CHECKING
count like any other."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "relayd"

FLOORS = {
    "address": 0,
    "clock": 0,
    "counters": 0,
    "errors": 0,
    "outcomes": 0,
    "net": 1,
    "sd": 1,
    "spec": 1,
    "channel": 2,
    "choosing": 2,
    "config": 2,
    "log": 2,
    "control": 3,
    "imports": 3,
    "relay": 3,
    "cli": 4,
    "__main__": 5,
    "values": -1,
    "__init__": -2,
}
#: Rooms of one floor that may know each other: the vocabulary is one thing in several files, and a socket is opened
#: as its spec says. Everything else on a floor is apart.
NEIGHBOURS = {("net", "spec"), ("counters", "outcomes")}
#: Who may import what from outside the standard library.
THIRD_PARTY = {
    "config": {"pydantic", "pydantic_core", "tomli", "typing_extensions"},
    "cli": {"pydantic", "pydantic_core", "rich", "typer"},
    "control": {"aiohttp", "dns", "prometheus_client"},
    "sd": {"systemd"},
}
#: The modules that may: the rest of `sd` is imported by workers too, and a start does not wait for aiohttp and
#: prometheus_client, nor for dnspython where there is no name to ask for.
ONLY_IN = {
    "systemd": ("relayd.sd.library",),
    "aiohttp": ("relayd.control.admin_http",),
    "dns": ("relayd.control.name_servers",),
    "prometheus_client": ("relayd.control.exposition",),
}
#: What may be imported inside a function, and by whom: what comes first, and what control imports soon after the start,
#: when nobody waits any more. Beside that, what meets a library that need not be there, and says so when it is not.
IMPORTED_LATER = {
    "relayd.control.main": ("relayd.control.life", "relayd.errors"),
    # `_load` of both:
    "relayd.control.daemon": ("relayd.control.checks.checker", "relayd.control.explaining"),
    "relayd.control.admin": ("relayd.control.admin_http", "relayd.control.exposition", "relayd.control.metrics"),
    # who find it loaded:
    "relayd.control.targets": ("relayd.control.explaining", "relayd.control.metrics"),
    "relayd.control.observing": ("relayd.control.metrics", "relayd.control.exposition"),
    "relayd.control.resolver": ("relayd.control.metrics",),
    "relayd.control.lookups": ("relayd.control.name_servers",),
    "relayd.net.batches": ("relayd.net.mmsg",),
}
CLOCK_MODULES = {"datetime", "time"}
MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports_of(path: Path) -> Iterator[str]:
    """Absolute names of all modules that `path` imports, however deep inside."""
    yield from imports_in(ast.parse(path.read_text(), str(path)))


def imports_in(tree: ast.AST) -> Iterator[str]:
    """Those of a part of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module}"
            module = node.module or ""
            for alias in node.names:
                inner = PACKAGE.parent.joinpath(*module.split("."), alias.name)
                is_module = module.startswith("relayd") and (inner.with_suffix(".py").exists() or inner.is_dir())
                yield f"{module}.{alias.name}" if is_module else module


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_lower_floors(path: Path) -> None:
    room = room_of(name_of(path))
    for imported in imports_of(path):
        if imported.split(".")[0] != "relayd":
            continue
        other = room_of(imported)
        if other in ("__init__", room):
            continue
        allowed = FLOORS[other] < FLOORS[room] or (room, other) in NEIGHBOURS
        assert allowed, f"{name_of(path)} (floor {FLOORS[room]}) imports {imported} (floor {FLOORS[other]})"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_third_party_libraries_stay_in_their_rooms(path: Path) -> None:
    room = room_of(name_of(path))
    for imported in imports_of(path):
        top = imported.split(".")[0]
        if top == "relayd" or top in sys.stdlib_module_names:
            continue
        assert top in THIRD_PARTY.get(room, set()), f"{name_of(path)} imports {imported}"
        assert name_of(path) in ONLY_IN.get(top, (name_of(path),)), f"{name_of(path)} imports {imported}"


def test_a_worker_imports_the_standard_library_only() -> None:
    reached: set[str] = set()
    waiting = ["relayd.relay.worker"]
    while waiting:
        module = waiting.pop()
        if module in reached:
            continue
        reached.add(module)
        path = PACKAGE.parent.joinpath(*module.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for imported in imports_of(path):
            top = imported.split(".")[0]
            assert top == "relayd" or top in sys.stdlib_module_names, f"{module} imports {imported}"
            if top == "relayd":
                # Importing a.b.c runs a and a.b as well.
                waiting += [".".join(imported.split(".")[:depth]) for depth in range(1, imported.count(".") + 2)]
    assert "relayd.relay.stream.pump" in reached
    assert not {module for module in reached if room_of(module) in ("config", "control", "cli")}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_daemon_imports_what_is_its_own_at_the_start(path: Path) -> None:
    # An upgrade replaces the files under a process that goes on, and is about to hand over to the next one.
    module = name_of(path)
    if room_of(module) in ("cli", "config", "imports", "__main__"):
        return
    inside = {
        imported
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for imported in imports_in(function)
        if imported.split(".")[0] == "relayd"
    }
    assert {name for name in inside if name not in IMPORTED_LATER.get(module, ())} == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_values_are_made_the_quick_way(path: Path) -> None:
    # Of the modules that are left, a start imports none, as long as its file has not changed.
    allowed = name_of(path) in ("relayd.values", "relayd.config.blocks", "relayd.config.document")
    assert allowed or "dataclasses.dataclass" not in {
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_clock_reads_a_clock(path: Path) -> None:
    if name_of(path) == "relayd.clock":
        return
    tree = ast.parse(path.read_text())
    imported = set(imports_of(path)) & CLOCK_MODULES
    # The calendar is no clock: `log` formats a given time, `config` knows a TOML date when it sees one.
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in CLOCK_MODULES
        for alias in node.names
    }
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    readings = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & {"now", "today", "utcnow"}
    assert "time" not in plain, f"{name_of(path)} imports time"
    assert names <= {"gmtime", "strftime", "date", "datetime", "time"}, names
    if imported & {"datetime"}:
        assert not readings, f"{name_of(path)} reads a clock: {readings}"
    elif imported:
        assert names <= {"gmtime", "strftime"}, names


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_timeout_by_the_wall_clock(path: Path) -> None:
    if room_of(name_of(path)) in ("clock", "log"):
        return
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "wall"
    ]
    # `start_time` of the access line is the one place where the wall clock meets a connection, or a session. And
    # `relayd status` and metrics show times of day, what checks have found is kept over a restart, and the archive of
    # a diagnosis is named after when it was made.
    showing = (
        "relayd.cli.top.shell",
        "relayd.cli.verbs_looking",
        "relayd.cli.verbs_diagnosing",
        "relayd.relay.stream.record",
        "relayd.relay.datagram.record",
        "relayd.control.observing",
        "relayd.control.reload",
        "relayd.control.targets",
        "relayd.control.checks.checker",
    )
    allowed = name_of(path) in showing
    assert len(calls) <= allowed, f"{name_of(path)} reads the wall clock"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_functions_stay_readable(path: Path) -> None:
    source = path.read_text()
    assert source.count("\n") <= MODULE_LINES_MAX, f"{name_of(path)} has {source.count(chr(10))} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{name_of(path)}.{node.name} has {lines} lines"


def test_every_room_is_known() -> None:
    assert {room_of(name_of(path)) for path in MODULES} == set(FLOORS)


def test_no_room_is_a_drawer() -> None:
    names = {part for path in MODULES for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert not names & {"base", "common", "helpers", "misc", "types", "utils"}
