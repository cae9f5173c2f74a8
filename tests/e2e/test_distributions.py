"""The wheel and the source distribution: what is in them, and what they say of themselves."""

import email.message
import email.parser
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import tomli
from trove_classifiers import classifiers

import relayd
from relayd.config import load, machine
from tests import installed
from tests.installed import CHECKOUT

INFO = f"relayd-{relayd.__version__}.dist-info"
DATA = f"relayd-{relayd.__version__}.data/data/share/relayd"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed.build(tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed.build(tmp_path_factory.mktemp("sdist"), "sdist")


def below(folder: Path) -> set[str]:
    """Names of the files in a folder of the checkout, relative to the folder, without what Python leaves there."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def unpacked(sdist: Path, folder: Path) -> Path:
    """The source distribution, in a new folder; returns the one folder that is in it."""
    folder.mkdir()
    subprocess.run(["tar", "-xzf", str(sdist), "-C", str(folder)], check=True)
    (source,) = folder.iterdir()
    return source


def metadata_of(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        return email.parser.Parser().parse(io.TextIOWrapper(archive.open(f"{INFO}/METADATA"), "utf-8"))


def test_the_wheel_has_what_an_operator_needs_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"relayd-{relayd.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {f"relayd/{name}" for name in below(CHECKOUT / "relayd")}
    assert "relayd/py.typed" in expected
    expected |= {f"{DATA}/examples/{name}" for name in below(CHECKOUT / "configs" / "examples")}
    expected |= {f"{DATA}/relay.schema.json", f"{DATA}/systemd/relayd.service", f"{DATA}/systemd/relayd.socket"}
    expected |= {f"{INFO}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")}
    assert names == expected


def test_what_the_wheel_says_of_itself(wheel: Path) -> None:
    said = metadata_of(wheel)
    assert (said["Name"], said["Version"], said["Requires-Python"]) == ("relayd", relayd.__version__, ">=3.10")
    assert said["Summary"]
    assert said["Keywords"].split(",") == sorted(said["Keywords"].split(","))
    tested = [f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)]
    found = said.get_all("Classifier") or []
    assert set(tested) | {"Typing :: Typed", "Operating System :: POSIX :: Linux"} <= set(found)
    assert set(found) <= classifiers  # an index refuses others
    needed = {each.partition(">")[0] for each in said.get_all("Requires-Dist") or []}
    assert needed == {"aiohttp", "dnspython", "prometheus-client", "pydantic", "systemd-python", "tomli", "typer"}


def test_the_page_on_the_index_says_first_what_pip_cannot_bring(wheel: Path) -> None:
    said = metadata_of(wheel)
    assert said["Description-Content-Type"] == "text/markdown"
    page = said.get_payload()
    assert isinstance(page, str)
    before, found, _ = page.partition("/opt/relayd/bin/pip install relayd\n")
    assert found
    for package in ("gcc", "libc6-dev", "pkg-config", "libsystemd-dev", "python3-dev"):
        assert package in before
    assert "](" not in page  # a link to a file beside it leads nowhere there


def test_the_installed_examples_and_units_are_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    share = installed.environment().folder / "share" / "relayd"
    monkeypatch.setattr(machine, "has_address", lambda *_: True)  # those of the machine that the example is about
    monkeypatch.setattr(machine, "has_directory", lambda _: True)
    examples = sorted((share / "examples").glob("*.toml"))
    assert len(examples) >= 6
    for example in examples:
        assert load(example).spec.listeners, example
        named = example.read_text().splitlines()[0].partition("#:schema ")[2]
        assert (example.parent / named).resolve() == share / "relay.schema.json"
    program = subprocess.run([*installed.relayd("schema")], stdout=subprocess.PIPE, check=True, text=True).stdout
    assert (share / "relay.schema.json").read_text() == program
    # What the documents tell to replace is there to be replaced.
    assert (share / "systemd" / "relayd.service").read_text().count("/usr/bin/relayd") == 2


def test_the_source_distribution_has_all_that_a_clone_has(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
        text=True,
    )
    if listed.returncode != 0:
        pytest.skip("no git repository to compare with: missing git, or its folder")
    assert names - {"PKG-INFO"} == {name for name in listed.stdout.splitlines() if (CHECKOUT / name).exists()}


def test_the_source_distribution_makes_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    source = unpacked(sdist, tmp_path / "source")
    assert installed.build(tmp_path / "wheel", "wheel", source).read_bytes() == wheel.read_bytes()


def test_no_licence_is_claimed_that_the_repository_does_not_state(wheel: Path) -> None:
    project = tomli.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    stated = any(CHECKOUT.glob("LICEN[CS]E*"))
    said = metadata_of(wheel)
    claimed = said["License"] or said["License-Expression"] or said["License-File"]
    assert bool(claimed) == stated == ("license" in project)
