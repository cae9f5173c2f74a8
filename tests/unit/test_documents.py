"""Every configuration that the project shows is one: the files in configs/, and what the documents print."""

import json
import re
from pathlib import Path

import pytest

from relayd.cli.importing import import_file
from relayd.config import ConfigError, load, machine

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.toml"))
DOCUMENTS = [path for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if path.exists()]
_BLOCK = re.compile(r"^```toml\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks() -> list[tuple[str, str]]:
    """Name and text of every ```toml block. All of them are relay.toml; one of another kind says so: ```toml title."""
    return [
        (f"{path.name}:{text[: match.start()].count(chr(10)) + 1}", match[1])
        for path in DOCUMENTS
        for text in [path.read_text()]
        for match in _BLOCK.finditer(text)
    ]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_address", lambda *_: True)  # those of the machine that the example is about
    monkeypatch.setattr(machine, "has_directory", lambda _: True)
    loaded = load(path)
    assert loaded.spec.listeners
    assert loaded.warnings == ()


@pytest.mark.parametrize(("name", "text"), blocks())
def test_block(tmp_path: Path, name: str, text: str) -> None:
    """A block without a listener is a part of a file: it is completed, and nothing else may be wrong with it."""
    if "[listeners" not in text:
        text += '\n[listeners.added]\nbind = "127.0.0.1:1"\ntargets = ["192.0.2.1:1"]\n'
    path = tmp_path / "relay.toml"
    path.write_text(text)
    assert load(path).spec.listeners, name


def test_there_are_files_and_blocks() -> None:
    assert len(CONFIGS) >= 6
    assert len(blocks()) >= 5


def examples_of_errors() -> list[tuple[str, str]]:
    """The configurations in docs/configuration.md that are shown with what is wrong with them."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    return re.findall(r"^```toml wrong\n(.*?)^```\n+```text\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("text", "output"), examples_of_errors())
def test_errors_in_the_documents_are_real(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("relay.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(Path("relay.toml"))
    assert str(caught.value) + "\n" == output


def test_there_is_an_example_of_errors() -> None:
    assert examples_of_errors()


def examples_of_imports() -> list[tuple[str, str, str]]:
    """Configurations of other relays in docs/how-to/migrate.md, with what `relayd import` prints of them."""
    text = (ROOT / "docs" / "how-to" / "migrate.md").read_text()
    block = r"^```{}\n(.*?)^```$.*?"
    pattern = block.format("(rinetd|haproxy|nginx)") + block.format("toml") + block.format("text")
    return [
        (kind, before, toml + told) for kind, before, toml, told in re.findall(pattern, text, re.DOTALL | re.MULTILINE)
    ]


@pytest.mark.parametrize(("kind", "text", "output"), examples_of_imports())
def test_imports_in_the_documents_are_real(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, text: str, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = {"rinetd": "rinetd.conf", "haproxy": "haproxy.cfg", "nginx": "nginx.conf"}[kind]
    Path(name).write_text(text)
    found = import_file(name, None)
    assert found.toml + "".join(f"{complaint}\n" for complaint in found.complaints) == output


def test_there_is_an_import_of_each_kind() -> None:
    assert sorted(kind for kind, _, _ in examples_of_imports()) == ["haproxy", "nginx", "rinetd"]


def test_every_key_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    definitions = json.loads((ROOT / "configs" / "relay.schema.json").read_text())["definitions"]
    keys = {key for table in definitions.values() for key in table["properties"]}
    assert {key for key in keys if f"`{key}`" not in text} == set()
