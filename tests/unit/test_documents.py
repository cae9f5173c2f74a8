"""Every configuration that the project shows is one: the files in configs/, and what the documents print."""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from relayd.cli import check
from relayd.cli.importing import import_file
from relayd.config import ConfigError, load, machine
from tests.documents import PAGES, ROOT, Block, blocks

CONFIGS = [*sorted((ROOT / "configs").rglob("*.toml")), ROOT / "packaging/etc/relay.toml"]
BLOCKS = [block for page in PAGES for block in blocks(page)]
#: All ```toml is relay.toml; what is another kind, or has a mistake, says so: ```toml title.
RIGHT = [block for block in BLOCKS if block.kind == "toml" and not block.more]
#: ```toml wrong, and the ```text after it, which is what is wrong.
WRONG = [(block, after) for block, after in itertools.pairwise(BLOCKS) if block.kind == "toml" and block.more]
#: Configurations of other relays, what `relayd import` prints on standard error, and what it makes of them.
FILES = {"rinetd": "rinetd.conf", "haproxy": "haproxy.cfg", "nginx": "nginx.conf"}
IMPORTS = [three for three in zip(BLOCKS, BLOCKS[1:], BLOCKS[2:], strict=False) if three[0].kind in FILES]


def place(value: object) -> str:
    return value.place if isinstance(value, Block) else ""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_address", lambda *_: True)  # those of the machine that the example is about
    monkeypatch.setattr(machine, "has_directory", lambda _: True)
    loaded = load(path)
    assert loaded.spec.listeners
    assert loaded.warnings == ()


def test_examples_that_are_commented_out_only_want_the_hash_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "has_directory", lambda _: True)
    text = (ROOT / "packaging/etc/relay.toml").read_text()
    examples = re.findall(r"^# (\[listeners\..+\n(?:# .+\n)+)", text, re.MULTILINE)
    assert len(examples) >= 3
    path = tmp_path / "relay.toml"
    path.write_text(text + "\n".join(example.replace("\n# ", "\n") for example in examples))
    loaded = load(path)
    assert len(loaded.spec.listeners) == 1 + len(examples)
    assert loaded.warnings == ()


@pytest.mark.parametrize("block", RIGHT, ids=place)
def test_block(tmp_path: Path, block: Block) -> None:
    """A block without a listener is a part of a file: it is completed, and nothing else may be wrong with it."""
    text = block.text
    if "[listeners" not in text:
        text += '\n[listeners.added]\nbind = "127.0.0.1:1"\ntargets = ["192.0.2.1:1"]\n'
    path = tmp_path / "relay.toml"
    path.write_text(text)
    assert load(path).spec.listeners


def test_there_are_files_and_blocks() -> None:
    assert len(CONFIGS) >= 6
    assert len(RIGHT) >= 20
    assert len(WRONG) >= 8


@pytest.mark.parametrize(("block", "after"), WRONG, ids=place)
def test_errors_in_the_documents_are_real(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: Block, after: Block
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("relay.toml").write_text(block.text)
    with pytest.raises(ConfigError) as caught:
        load(Path("relay.toml"))
    shown = after.text.removeprefix("$ relayd check -c relay.toml\n")
    assert str(caught.value) + "\n" == shown


def output_of(command: str, among: Sequence[Block]) -> str:
    """What stands below the command line in the one block that begins with it."""
    found = [block.text for block in among if block.text.startswith(f"$ {command}\n")]
    assert len(found) == 1, command
    return found[0].partition("\n")[2]


def test_the_mistakes_in_the_readme_are_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text(
        '[defaults]\nidle_timeout = 30\n\n[listeners.web]\nbind = "0.0.0.0:80"\ntarget = ["10.0.0.11:80"]\n\n'
        '[listeners.db]\nbind = "0.0.0.0:5432"\ntargets = ["2001:db8::7"]\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(Path("bad.toml"))
    assert str(caught.value) + "\n" == output_of("relayd check -c bad.toml", BLOCKS)


def test_the_output_of_check_is_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a machine of two cores, where the limit on open files is 20,000."""
    monkeypatch.chdir(ROOT)
    spec = dataclasses.replace(load(Path("configs/relay.toml")).spec, workers=2)
    shown = check.table(spec) + check.budget_lines(spec, 20_000) + "configs/relay.toml: ok\n"
    assert shown == output_of("relayd check -c configs/relay.toml", BLOCKS)


def test_the_budget_is_the_same_wherever_it_is_shown() -> None:
    budget = re.compile(r"^\d+ workers?; \d+ connections a worker: .*$", re.MULTILINE)
    shown = {line for block in BLOCKS for line in budget.findall(block.text) if line.startswith("2 workers")}
    assert len(shown) == 1


@pytest.mark.parametrize(("theirs", "told", "ours"), IMPORTS, ids=place)
def test_imports_in_the_documents_are_real(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: Block, told: Block, ours: Block
) -> None:
    monkeypatch.chdir(tmp_path)
    name = FILES[theirs.kind]
    Path(name).write_text(theirs.text)
    found = import_file(name, None)
    assert found.toml == ours.text
    command = f"$ relayd import {name} > relay.toml"
    assert "".join(f"{line}\n" for line in (command, *found.complaints)) == told.text


def test_there_is_an_import_of_each_kind() -> None:
    assert {theirs.kind for theirs, _, _ in IMPORTS} == set(FILES)
