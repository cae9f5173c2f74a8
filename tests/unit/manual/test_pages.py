"""The pages that are made of the code are current, whole, and what groff, man and lexgrog can read."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from manual import facts
from manual.__main__ import PAGES, ROOT, stale
from manual.commands import commands, exit_codes
from manual.keys import tables

from relayd.cli import exits, verbs
from relayd.config import load
from relayd.config.model import Configuration, ListenerTable, PoolKeys, Shared
from relayd.config.schema import schema
from relayd.log.events import Event
from relayd.outcomes import Drop, Outcome

MAN = [ROOT / name for name in PAGES if name.startswith("packaging/man/")]
REFERENCE = (ROOT / "docs" / "reference.md").read_text()


def output_of(tool: str, *arguments: str) -> str:
    """All that `tool` says. Skips where it is missing."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
    return f"{done.stdout}{done.stderr}"


def test_they_are_current() -> None:
    assert stale() == [], "run: packaging/dev manual"


@pytest.mark.parametrize("page", MAN, ids=lambda page: page.name)
def test_groff_has_nothing_to_say(page: Path) -> None:
    assert output_of("groff", "-man", "-ww", "-z", str(page)) == ""


@pytest.mark.parametrize("page", MAN, ids=lambda page: page.name)
def test_man_shows_it_without_a_warning(page: Path) -> None:
    if shutil.which("man") is None:
        pytest.skip("man is not installed")
    done = subprocess.run(["man", "--warnings", "-l", page], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "SEE ALSO" in done.stdout


@pytest.mark.parametrize("page", MAN, ids=lambda page: page.name)
def test_apropos_finds_it(page: Path) -> None:
    name = page.name.rsplit(".", 1)[0]
    assert re.fullmatch(rf'{re.escape(str(page))}: "{re.escape(name)} - .+"\n', output_of("lexgrog", str(page)))


def test_every_key_of_every_table_is_there_once() -> None:
    shown = [key.name for table in tables() for key in table.keys]
    whole = schema()
    tables_of_file = {"daemon", "log", "admin", "defaults", "listeners", "pools"}
    inherited = {"ListenerTable": Shared, "Shared": PoolKeys}
    meant = [*(set(whole["properties"]) - tables_of_file)]
    for name, table in whole["definitions"].items():
        own = set(table["properties"]) - (set(inherited[name].model_fields) if name in inherited else set())
        meant += sorted(own)
    assert sorted(shown) == sorted(meant)
    assert set(Configuration.model_fields) == set(whole["properties"])
    assert set(ListenerTable.model_fields) <= set(shown)
    text = (ROOT / "packaging/man/relay.toml.5").read_text()
    for name in shown:
        assert f"| `{name}` | " in REFERENCE
        assert f".TP\n\\fB{name}\\fR\n" in text


def test_every_name_of_the_code_is_there() -> None:
    for each in Outcome:
        assert f"| `{each.value}` | `{each.code}` | " in REFERENCE
    for name in (*(each.value for each in Drop), *(each.value for each in Event)):
        assert f"| `{name}` | " in REFERENCE


def test_every_command_and_option_is_there() -> None:
    text = (ROOT / "packaging/man/relayd.8").read_text().replace(r"\-", "-")
    registered = {info.name or str(info.callback and info.callback.__name__) for info in verbs.app.registered_commands}
    assert {command.name for command in commands()} == registered
    for command in commands():
        assert f"\n.SS {command.name}\n" in text
        for option in command.options:
            assert option.names or option.value
            assert all(f"\\fB{name}\\fR" in text for name in option.names)


def test_every_exit_code_is_there() -> None:
    from relayd.control import main

    known = {value for module in (main, exits) for name, value in vars(module).items() if name.startswith("EXIT_")}
    assert set(exit_codes()) == known


def test_the_example_is_one(tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_text(facts.EXAMPLE)
    loaded = load(tmp_path / "relay.toml")
    assert [listener.name for listener in loaded.spec.listeners] == ["web", "dns", "pg"]
