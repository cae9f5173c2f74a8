"""What a configuration names and this machine does not have, or what has no effect: a warning at its key."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.address import Family
from relayd.config import Loaded, load, machine

Load = Callable[[str], Loaded]
Write = Callable[..., Path]

WEB = '[listeners.web]\nbind = "127.0.0.1:8080"\ntargets = ["10.0.0.11:80", "[2001:db8::1]:80"]\n'


def places(loaded: Loaded) -> list[tuple[int, int, str]]:
    return [(problem.line, problem.column, problem.key) for problem in loaded.warnings]


def test_names_that_the_kernel_does_not_have(loaded: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "congestion_available", lambda: ("reno", "cubic"))
    monkeypatch.setattr(machine, "interfaces", lambda: ("lo",))
    monkeypatch.setattr(machine, "somaxconn", lambda: 128)
    assert places(loaded(WEB + 'congestion = "bbr"\ninterface = "eth7"\nbacklog = 129')) == [
        (4, 14, "listeners.web.congestion"),
        (5, 13, "listeners.web.interface"),
        (6, 11, "listeners.web.backlog"),
    ]
    assert loaded(WEB + 'congestion = "cubic"\ninterface = "lo"\nbacklog = 128').warnings == ()


@pytest.mark.parametrize("source", ["192.0.2.77", "2001:db8::77", "fe80::77%nosuchif0"])
def test_a_source_that_is_not_an_address_of_this_machine(loaded: Load, source: str) -> None:
    found = loaded(WEB + f'source = "{source}"')
    assert places(found) == [(4, 10, "listeners.web.source")]
    assert found.warnings[0].message == (
        f"this machine does not have the address {source} now: no target can be dialled from it"
    )


@pytest.mark.parametrize("source", ["127.0.0.1", "127.1.2.3"])
def test_a_source_that_is(loaded: Load, source: str) -> None:
    assert loaded(WEB + f'source = "{source}"').warnings == ()


def test_a_source_in_defaults_is_told_once_where_it_stands(loaded: Load) -> None:
    text = '[defaults]\nsource = "192.0.2.77"\n' + WEB + WEB.replace("web", "api").replace("8080", "8081")
    assert places(loaded(text)) == [(2, 10, "defaults.source")]


def test_a_bind_that_is_not_an_address_of_this_machine(loaded: Load) -> None:
    text = WEB.replace('"127.0.0.1:8080"', '["127.0.0.1:8080", "192.0.2.77:0", ":80", "unix:@a"]')
    found = loaded(text)
    assert places(found) == [(2, 27, "listeners.web.bind[1]")]
    assert found.warnings[0].message == "this machine does not have the address 192.0.2.77 now: it cannot be bound"
    assert "freebind = true" in found.warnings[0].suggestion
    assert loaded(text + "freebind = true").warnings == ()


def test_a_unix_path_whose_directory_is_missing(write: Write, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "there").mkdir()
    dangling = tmp_path / "dangling"
    dangling.symlink_to("nowhere")
    found = load(
        write(f"""\
            [listeners.a]
            bind = ["unix:{tmp_path}/there/a.sock", "unix:{tmp_path}/gone/a.sock", "unix:/relayd-a.sock", "unix:@a"]
            targets = "127.0.0.1:9"
            [listeners.b]
            bind = "unix:{tmp_path}/gone/b.sock"  # the same directory is told once
            targets = "127.0.0.1:9"
            [listeners.c]
            bind = "unix:{tmp_path}/file/c.sock"
            targets = "127.0.0.1:9"
            [listeners.d]
            bind = "unix:{dangling}/d.sock"
            targets = "127.0.0.1:9"
            [listeners.e]
            bind = "unix:/run/relayd-test-nosuch/sub/e.sock"
            targets = "127.0.0.1:9"
            """)
    )
    assert [(problem.line, problem.key, problem.message, problem.suggestion) for problem in found.warnings] == [
        (
            2,
            "listeners.a.bind[1]",
            f"there is no directory {tmp_path}/gone now",
            "help: create it before relayd starts",
        ),
        (8, "listeners.c.bind", f"there is no directory {tmp_path}/file now", "help: create it before relayd starts"),
        (11, "listeners.d.bind", f"there is no directory {dangling} now", "help: create it before relayd starts"),
        (
            14,
            "listeners.e.bind",
            "there is no directory /run/relayd-test-nosuch/sub now",
            "help: create it before relayd starts (RuntimeDirectory=relayd-test-nosuch/sub in the unit does)",
        ),
    ]


@pytest.mark.parametrize("error", [PermissionError, UnicodeEncodeError("latin-1", "x", 0, 1, "no")])
def test_where_one_may_not_look_nothing_is_said(
    loaded: Load, monkeypatch: pytest.MonkeyPatch, error: type[OSError] | UnicodeEncodeError
) -> None:
    stat = os.stat

    def refuse(path: str, *arguments: object, **options: object) -> os.stat_result:
        if path == "/run/private/relayd":
            raise error
        return stat(path, *arguments, **options)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(os, "stat", refuse)
    assert loaded('[listeners.a]\nbind = "unix:/run/private/relayd/a.sock"\ntargets = "127.0.0.1:9"').warnings == ()


def test_addresses_of_this_machine() -> None:
    assert machine.has_address(Family.INET, "127.0.0.1", "")
    assert machine.has_address(Family.INET, "0.0.0.0", "")
    assert not machine.has_address(Family.INET, "192.0.2.77", "")
    assert not machine.has_address(Family.INET6, "fe80::1", "nosuchif0")


@pytest.mark.parametrize(("attempts", "warned"), [(1, True), (2, True), (3, False)])
def test_a_backup_that_no_connection_comes_to(loaded: Load, attempts: int, warned: bool) -> None:
    found = loaded(
        f'[listeners.web]\nbind = "127.0.0.1:0"\ndial_attempts = {attempts}\n'
        'targets = ["127.0.0.1:1", { address = "127.0.0.1:2", backup = true }, "127.0.0.1:3"]'
    )
    assert [(problem.line, problem.key, problem.suggestion) for problem in found.warnings] == (
        [(4, "listeners.web.targets[1]", "help: set dial_attempts = 3")] if warned else []
    )


def test_a_session_comes_to_every_backup(loaded: Load) -> None:
    text = (
        '[listeners.dns]\ntype = "dgram"\nbind = "127.0.0.1:0"\n'
        'targets = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", { address = "127.0.0.1:4", backup = true }]'
    )
    assert loaded(text).warnings == ()


def test_a_pattern_that_repeats_what_repeats(loaded: Load) -> None:
    found = loaded(WEB + "health_check = { type = 'tcp', expect = { regex = '(a+)+b' } }")
    assert [problem.key for problem in found.warnings] == ["listeners.web.health_check.expect"]
    assert found.warnings[0].message.startswith('"(a+)+" repeats what repeats')
    assert loaded(WEB + "health_check = { type = 'tcp', expect = { regex = '(a+b)+' } }").warnings == ()
    assert loaded(WEB + "health_check = { type = 'tcp', expect = '(a+)+b' }").warnings == ()


def test_a_command_that_nobody_can_run(loaded: Load, tmp_path: Path) -> None:
    program = tmp_path / "check"

    def found(path: Path) -> list[tuple[str, str]]:
        text = WEB + f"health_check = {{ type = 'exec', command = ['{path}'] }}"
        return [(each.key, each.message.partition('" ')[2]) for each in loaded(text).warnings]

    key = "listeners.web.health_check.command"
    assert found(program) == [(key, "is not there now: a check that cannot be made is a failure")]
    program.write_text("#!/bin/sh")
    assert found(program) == [(key, "is not executable: a check that cannot be made is a failure")]
    assert found(program / "x") == [(key, "is not there now: a check that cannot be made is a failure")]
    assert found(tmp_path) == [(key, "is not a file: a check that cannot be made is a failure")]
    program.chmod(0o755)
    assert found(program) == []


def test_a_command_that_nobody_can_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def stat(_: str) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "stat", stat)
    assert machine.not_executable("/bin/true") == ""
