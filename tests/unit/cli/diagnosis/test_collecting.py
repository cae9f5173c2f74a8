"""What of a diagnosis is masked by what, and left out where that is not known."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.cli.diagnosis import collecting, sources
from relayd.cli.diagnosis.collecting import Collected, collect, masked
from relayd.cli.diagnosis.packing import Found
from relayd.cli.diagnosis.parts import IN_FORCE, LOG, STATUS, Part
from relayd.cli.diagnosis.sources import NotThere

CONFIG = """\
# a note of hunter2hunter2
[pools.p]
targets = ["192.0.2.1:80"]
health_check = { type = "exec", command = ["/usr/bin/check", "--password", "s3cret22"] }
"""


def part(name: str, *, clients: bool = False, config: bool = False, quotes: bool = False) -> Part:
    return Part(name, name, lambda: "", clients=clients, config=config, quotes=quotes)


def texts(found: list[Found]) -> dict[str, str]:
    return {one.part.name: one.problem or one.text for one in found}


def test_what_a_configuration_has_of_secrets_is_masked_everywhere() -> None:
    found = [
        Found(part("config", config=True), CONFIG),
        Found(part("targets"), '{"reason": "exit 1: usage --password s3cret22", "b": "192.0.2.9"}'),
        Found(part("state"), "StatusText=s3cret22"),
        Found(part("broken"), problem="the daemon answers 500: s3cret22"),
        Found(part("connections", clients=True), "192.0.2.1 192.0.2.7 s3cret22"),
    ]
    seen = texts(masked(found, with_clients=False))
    assert '["/usr/bin/check", "***", "***"]' in seen.pop("config")
    assert seen == {
        "targets": '{"reason": "exit 1: usage *** ***", "b": "192.0.2.9"}',
        "state": "StatusText=***",
        "broken": "the daemon answers 500: ***",
        "connections": "192.0.2.1 address-1 ***",
    }
    assert texts(masked(found, with_clients=True))["connections"] == "192.0.2.1 192.0.2.7 ***"


def test_what_the_log_has_of_secrets_of_before_is_masked_everywhere() -> None:
    change = '~ listener web: health_check { send = "hunter2hunter2" } -> "off"'
    found = [Found(part("targets"), "heard hunter2hunter2"), Found(part(LOG, clients=True), f"a b r[1]: {change}\n")]
    assert texts(masked(found, with_clients=False)) == {
        "targets": "heard ***",
        LOG: "a b r[1]: ~ listener web: health_check ***\n",
    }


def test_what_is_too_long_is_cut_after_it_was_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PART_BYTES_MAX", 4)
    monkeypatch.setattr(collecting, "_NOTE_BYTES_MAX", 0)
    config = Found(part("config", config=True), "token = 'hunter2hunter2'")
    found = [config, Found(part("a"), "ä hunter2hunter2"), Found(part("b"), "äbc"), Found(part("c"), "äbcd")]
    seen = texts(masked(found, with_clients=False))
    assert (seen["a"], seen["b"], seen["c"]) == (f"ä *{sources.CUT}", "äbc", f"äbc{sources.CUT}")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Collected]:
    """Collects on a machine with a daemon that says what it is given: a status of which file, and what is in force."""

    def says(text: str | None) -> str:
        if text is None:
            raise NotThere("nobody listens")
        return text

    def collected(given: Path | None = None, running: Path | None = None, in_force: str | None = None) -> Collected:
        status = None if running is None else json.dumps({"config": {"file": str(running)}})
        parts = [
            Part(STATUS, "", lambda: says(status), quotes=True),
            Part(IN_FORCE, "", lambda: says(in_force), config=True),
            Part(LOG, "", lambda: "exit 1: usage --password s3cret22\n", clients=True, quotes=True),
            Part("kernel", "", lambda: "a setting"),
        ]
        monkeypatch.setattr(collecting, "all_parts", lambda *_: parts)
        return collect(None, "", given, tmp_path / "default.toml", with_clients=False)

    for name in ("default.toml", "other.toml"):
        (tmp_path / name).write_text(CONFIG)
    return collected


LEFT_OUT = "left out: "
MASKED = "exit 1: usage *** ***\n"


def test_where_the_file_in_force_is_known_nothing_is_left_out(
    machine: Callable[..., Collected], tmp_path: Path
) -> None:
    collected = machine(running=tmp_path / "other.toml")
    assert collected.notices == ()
    assert [one.part.name for one in collected.found][:2] == ["config/00-other.toml", STATUS]
    assert texts(collected.found)[LOG] == MASKED
    assert machine(given=tmp_path / "other.toml").notices == ()


def test_where_the_file_in_force_is_not_known_what_may_quote_it_is_left_out(
    machine: Callable[..., Collected], tmp_path: Path
) -> None:
    collected = machine()
    unknown, left_out = collected.notices
    assert unknown.startswith("NOT KNOWN is which configuration the daemon runs on: nobody listens. ")
    assert f"config/ has {tmp_path}/default.toml, which may be another one" in unknown
    assert left_out.startswith(f"LEFT OUT are {LOG}: ")
    seen = texts(collected.found)
    assert seen[LOG].startswith(LEFT_OUT)
    assert (seen[STATUS], seen["kernel"]) == ("nobody listens", "a setting")
    assert "s3cret22" not in str(seen)


def test_where_another_file_is_given_what_may_quote_that_in_force_is_left_out(
    machine: Callable[..., Collected], tmp_path: Path
) -> None:
    given, running = tmp_path / "default.toml", tmp_path / "other.toml"
    collected = machine(given, running)
    assert collected.notices[0] == f"config/ has {given}, as -c says. The daemon runs on {running}."
    assert collected.notices[1].startswith(f"LEFT OUT are {STATUS}, {LOG}: ")
    assert all(texts(collected.found)[name].startswith(LEFT_OUT) for name in (STATUS, LOG))
    # What the daemon itself says that it has is as good as its file.
    collected = machine(given, running, CONFIG)
    assert len(collected.notices) == 1
    assert texts(collected.found)[LOG] == MASKED


@pytest.mark.parametrize("text", ['include = ["conf.d/*.toml"]\nbad', "x" * 9_000_000, None])
def test_where_not_all_of_the_file_is_known_what_may_quote_it_is_left_out(
    machine: Callable[..., Collected], tmp_path: Path, text: str | None
) -> None:
    file = tmp_path / "part.toml"
    if text is not None:
        file.write_text(text)
    (notice,) = machine(given=file).notices
    assert notice.startswith("LEFT OUT are ")
    assert machine(given=file, in_force=CONFIG).notices == ()


@pytest.mark.parametrize("text", ["bad", 'include = ["conf.d/*.toml"]'])
def test_a_file_that_is_known_to_be_all_need_not_be_right(
    machine: Callable[..., Collected], tmp_path: Path, text: str
) -> None:
    file = tmp_path / "all.toml"
    file.write_text(f"{text}\n{CONFIG}")
    collected = machine(given=file)
    assert collected.notices == ()
    assert texts(collected.found)[LOG] == MASKED


def test_of_many_files_the_first_are_packed_and_all_looked_through(
    machine: Callable[..., Collected], tmp_path: Path
) -> None:
    os.mkdir(tmp_path / "conf.d")
    for number in range(120):
        (tmp_path / "conf.d" / f"{number:03d}.toml").write_text("" if number < 119 else CONFIG)
    main = tmp_path / "main.toml"
    main.write_text('include = ["conf.d/*.toml"]\n')
    collected = machine(given=main)
    assert collected.notices == ("config/ has the first 100 of 121 files.",)
    assert sum(one.part.name.startswith("config/") for one in collected.found) == 100
    assert texts(collected.found)[LOG] == MASKED
