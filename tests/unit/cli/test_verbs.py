"""The commands, each as a process of its own: what they print, where, and with which exit code."""

import importlib.metadata
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import relayd
from relayd.cli import check, output, verbs
from relayd.config import load
from relayd.config.schema import schema

Relayd = Callable[..., "subprocess.CompletedProcess[str]"]

WEB = '[listeners.web]\nbind = "127.0.0.1:8080"\ntargets = ["10.0.0.11:80", "10.0.0.12:80"]\n'
API = '[listeners.api-v2]\nbind = ["127.0.0.1:1", "unix:@a"]\ntargets = "a.example.com:80"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "relay.toml"
    path.write_text(WEB + API)
    return path


def run(*arguments: object, **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "relayd", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload, no-any-return]  # handed on


def test_check(file: Path) -> None:
    done = run("check", "-c", file)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "web     stream  127.0.0.1:8080 -> 10.0.0.11:80, 10.0.0.12:80"
    assert lines[1] == "api-v2  stream  127.0.0.1:1, unix:@a -> a.example.com:80"
    assert "connections a worker" in lines[2]
    assert lines[3].startswith("the control process needs ")
    assert lines[4] == f"{file}: ok"


def test_check_with_types_and_ranges(file: Path) -> None:
    game = '[listeners.game]\ntype = "udp"\nbind = "[::]:27000-27099"\n'
    game += 'targets = ["10.0.0.9:+5", "[2001:db8::1]", "a:1-100"]\n'
    file.write_text(
        WEB + game + '[listeners.dns]\ntype = ["udp", "tcp"]\nbind = "127.0.0.1:53"\ntargets = "10.0.0.53"\n'
    )
    lines = run("check", "-c", file).stdout.splitlines()
    assert lines[0] == "web   stream        127.0.0.1:8080 -> 10.0.0.11:80, 10.0.0.12:80"
    assert lines[1] == "game  dgram         [::]:27000-27099 -> 10.0.0.9:+5, [2001:db8::1], a:1-100"
    assert lines[2] == "dns   stream+dgram  127.0.0.1:53 -> 10.0.0.53"
    found = json.loads(run("check", "--json", "-c", file).stdout)
    assert [listener["types"] for listener in found["listeners"]] == [["stream"], ["dgram"], ["stream", "dgram"]]
    assert (found["listeners"][1]["binds"], found["listeners"][1]["targets"][0]) == (
        ["[::]:27000-27099"],
        "10.0.0.9:+5",
    )
    assert found["budget"]["sessions_per_worker"] > 0


def test_check_does_not_know_what_systemd_passes(file: Path) -> None:
    dns = '[listeners.dns]\ntype = ["udp", "tcp"]\nbind = "systemd:dns"\ntargets = "10.0.0.53:53"\n'
    file.write_text(dns + '[listeners.web]\nbind = "systemd:a b"\ntargets = "10.0.0.11:80"\n')
    done = run("check", "-c", file)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "dns  stream+dgram  systemd:dns -> 10.0.0.53:53"
    assert lines[2] == (
        "systemd:dns, systemd:a b: systemd makes the sockets, and passes them at the start; counted as one of each type"
    )
    found = json.loads(run("check", "--json", "-c", file).stdout)
    assert found["listeners"][0]["binds"] == ["systemd:dns"]
    assert found["budget"]["listening"] == 3


def test_check_with_errors(file: Path) -> None:
    file.write_text(WEB + "listen = 5")
    done = run("check", "-c", file)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == f"{file}:4:1: listeners.web.listen: unknown key\n    listen = 5\n    ^\n    did you mean `bind`?\n"
    )


def test_check_with_a_warning(file: Path) -> None:
    file.write_text(WEB + 'interface = "nosuch0"')
    done = run("check", "-c", file)
    assert done.returncode == 0
    assert done.stderr.startswith(f"warning: {file}:4:13: listeners.web.interface: ")


def test_check_as_json(file: Path) -> None:
    found = json.loads(run("check", "--json", "-c", file).stdout)
    assert found["ok"] is True
    assert found["listeners"][0] == {
        "name": "web",
        "types": ["stream"],
        "binds": ["127.0.0.1:8080"],
        "targets": ["10.0.0.11:80", "10.0.0.12:80"],
    }
    assert found["budget"]["listening"] == 3
    assert (found["errors"], found["warnings"]) == ([], [])


def test_check_with_errors_as_json(file: Path) -> None:
    file.write_text(WEB + "listen = 5")
    done = run("check", "--json", "-c", file)
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr, found["ok"], found["listeners"]) == (1, "", False, None)
    assert found["errors"] == [
        {
            "file": str(file),
            "line": 4,
            "column": 1,
            "key": "listeners.web.listen",
            "message": "unknown key",
            "suggestion": "did you mean `bind`?",
        }
    ]


def test_check_with_too_few_descriptors(file: Path) -> None:
    done = run("check", "-c", file, preexec_fn=lambda: _limit_files(36))
    assert done.returncode == 1
    assert f"{file}: too few file descriptors for the control process: it may open 36 (RLIMIT_NOFILE)" in done.stderr
    assert f"{file}: too few file descriptors for a single connection: a worker may open 36" in done.stderr
    assert "help: raise the hard limit" in done.stderr
    assert ": ok" not in done.stdout


def test_check_with_too_few_descriptors_for_the_control_process(file: Path) -> None:
    file.write_text("[daemon]\nworkers = 10\n" + WEB)
    done = run("check", "-c", file, "--json", preexec_fn=lambda: _limit_files(62))
    found = json.loads(done.stdout)
    assert (done.returncode, found["ok"], found["budget"]["control_needs"]) == (1, False, 63)
    assert [error["message"].partition(":")[0] for error in found["errors"]] == [
        "too few file descriptors for the control process"
    ]
    assert run("check", "-c", file, preexec_fn=lambda: _limit_files(63)).returncode == 0


def _limit_files(number: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


def test_a_missing_file() -> None:
    for command in ("check", "show-config", "run"):
        done = run(command, "-c", "/nonexistent/relay.toml")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "/nonexistent/relay.toml: cannot be read: No such file or directory\n"


def test_whether_a_file_can_be_read_is_found_out_by_reading_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An unreadable file is refused with exit code 1, as a missing one is; click would ask access(2), and call it usage.
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    for command in ("check", "show-config"):
        assert CliRunner().invoke(verbs.app, [command, "-c", str(file)]).exit_code == 0


def test_show_config(file: Path, tmp_path: Path) -> None:
    done = run("show-config", "-c", file)
    assert (done.returncode, done.stderr) == (0, "")
    shown = tmp_path / "shown.toml"
    shown.write_text(done.stdout)
    assert load(shown).spec == load(file).spec


def test_schema() -> None:
    done = run("schema")
    assert (done.returncode, json.loads(done.stdout)) == (0, schema())


def test_version() -> None:
    lines = run("version").stdout.splitlines()
    assert lines[0] == f"relayd {relayd.__version__}"
    assert any(line.startswith("CPython 3.") for line in lines)
    assert any(line.startswith("systemd-python ") for line in lines)


def test_version_says_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert "systemd-python is not installed" in CliRunner().invoke(verbs.app, ["version"]).stdout.splitlines()


def test_version_by_way_of_typer_says_the_same() -> None:
    assert CliRunner().invoke(verbs.app, ["version"]).stdout == run("version").stdout


@pytest.mark.parametrize("argument", ["version", "--help"])
def test_what_needs_no_configuration_imports_none(argument: str) -> None:
    # pydantic alone takes as long to import as all of the rest
    command = [sys.executable, "-X", "importtime", "-m", "relayd", argument]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & {"pydantic", "pydantic_core", "tomli", "asyncio", "systemd"}


def test_help() -> None:
    done = run("--help")
    assert done.returncode == 0
    commands = ("run", "check", "reload", "confirm", "plan", "status", "show-config", "schema", "version")
    for word in ("[listeners.web]", *commands, "Exit codes"):
        assert word in done.stdout
    for command in commands:
        assert CliRunner().invoke(verbs.app, [command, "--help"]).exit_code == 0
    assert "/etc/relayd/relay.toml" in CliRunner().invoke(verbs.app, ["check", "--help"]).stdout


def test_usage_errors() -> None:
    for arguments in (["nope"], ["check", "--nope"], ["check", "-c"], ["check", "extra"], ["run", "--json"]):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Error" in done.stderr
    assert run().returncode == 2


def test_a_reader_that_goes_away(file: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        command = [sys.executable, "-m", "relayd", "show-config", "-c", str(file)]
        done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("environment", [None, {}])
def test_a_full_disk(environment: dict[str, str] | None, file: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "relayd", "show-config", "-c", str(file)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False, env=environment)
    assert (done.returncode, done.stderr) == (1, b"relayd: cannot write the output: No space left on device\n")


def test_closed_standard_output(file: Path) -> None:
    done = run("check", "-c", file, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_locale_that_cannot_write_the_name(file: Path) -> None:
    other = file.with_name("é\udcff.toml")
    file.rename(other)
    done = run(
        "check",
        "-c",
        os.fsencode(other).decode(errors="surrogateescape"),
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0
    assert done.stdout.endswith("\\xe9\\udcff.toml: ok\n")


def test_table_and_json_of_everything(file: Path) -> None:
    spec = load(file).spec
    assert check.table(spec).count("\n") == 2
    assert check.budget_lines(spec, 1024).startswith(f"{spec.workers} worker")
    assert str(check.too_few_descriptors("f", spec, 10)[0]).startswith("f: too few file descriptors")
    assert check.too_few_descriptors("f", spec, 1024) == []


def test_emit_without_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    output.emit("lost")  # nothing to write to, and no error
