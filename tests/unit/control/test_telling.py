"""What anybody on the machine is told of a file with secrets in it: of what real files come to, none of them."""

from pathlib import Path

import pytest

from relayd.config import ConfigError, load
from relayd.control.changes import changes_between
from relayd.control.telling import public_error, public_status, public_verdict
from relayd.control.verdict import Change, Verdict
from tests.unit.control.operating import STATUS

SECRET = "hunter2"
NOT_SAID = "is not as it should be; how is told by a Unix socket, or where a token is asked for"
LISTENER = '[listeners.web]\nbind = "127.0.0.1:0"\ntargets = ["127.0.0.1:80"]\n'


def loaded(directory: Path, text: str) -> Path:
    file = directory / "relay.toml"
    file.write_text(LISTENER + text)
    return file


#: What is wrong in a file, and what everybody is told behind its place.
WRONG = {
    f'health_check = "{SECRET}"': f"listeners.web.health_check: {NOT_SAID}",
    f'health_check = {{ type = "{SECRET}" }}': f"listeners.web.health_check.type: {NOT_SAID}",
    f'health_check = {{ type = "http", path = "{SECRET}" }}': f"listeners.web.health_check.path: {NOT_SAID}",
    f'health_check = {{ type = "http", host = "a {SECRET}" }}': f"listeners.web.health_check.host: {NOT_SAID}",
    f'health_check = {{ type = "http", method = "{SECRET}" }}': f"listeners.web.health_check.method: {NOT_SAID}",
    f'health_check = {{ type = "http", status = ["{SECRET}"] }}': f"listeners.web.health_check.status[0]: {NOT_SAID}",
    f'health_check = {{ type = "exec", command = ["{SECRET}"] }}': f"listeners.web.health_check.command: {NOT_SAID}",
    f'health_check = {{ type = "exec", command = "{SECRET}" }}': f"listeners.web.health_check.command: {NOT_SAID}",
    f'health_check = {{ type = "tcp", expect = {{ regex = "({SECRET}" }} }}': (
        f"listeners.web.health_check.expect: {NOT_SAID}"
    ),
    f'health_check = {{ type = "tcp", send = "{SECRET}", nosuch = 1 }}': (
        f"listeners.web.health_check.nosuch: {NOT_SAID}"
    ),
    f'sent = "{SECRET}"': "listeners.web.sent: unknown key",
    f'health_check = {{ type = "tcp" send = "{SECRET}" }}': "the table is not closed, or a comma is missing",
    f'mode = """\n{SECRET}"""\nmode = """\n{SECRET}"""': "a key or a table stands twice",
    "fail_open = true": "listeners.web.fail_open: can do nothing without a health_check",
}


@pytest.mark.parametrize("text", WRONG)
def test_errors_of_files(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(loaded(tmp_path, text + "\n"))
    errors = [str(each) for each in caught.value.problems]
    assert SECRET in "".join(errors) or SECRET not in text
    told = public_verdict(Verdict(False, (), tuple(errors), ())).errors
    assert not [each for each in told if SECRET in each or "\n" in each]
    assert [each.split(": ", 1)[1] for each in told] == [WRONG[text]]
    assert [each.split(": ")[0] for each in told] == [each.split(": ")[0] for each in errors]


def test_warnings_of_files(tmp_path: Path) -> None:
    command = f'health_check = {{ type = "exec", command = ["/nosuch/{SECRET}"] }}\n'
    pattern = f'health_check = {{ type = "tcp", expect = {{ regex = "({SECRET[0]}+)+" }} }}\n'
    for text in (command, pattern):
        warnings = [str(each) for each in load(loaded(tmp_path, text)).warnings]
        assert warnings
        told = public_verdict(Verdict(True, (), (), tuple(warnings))).warnings
        assert [NOT_SAID in each for each in told] == [True] * len(warnings)
        assert SECRET not in "".join(told)


@pytest.mark.parametrize("old", ['health_check = { type = "tcp", send = "AUTH hunter2" }\n', ""])
@pytest.mark.parametrize("pool", [False, True])
def test_changes_of_files(tmp_path: Path, old: str, pool: bool) -> None:
    head = '[pools.app]\ntargets = ["127.0.0.1:80"]\n{}[listeners.app]\nbind = "127.0.0.1:1"\npool = "app"\n'
    before, after = (
        load(loaded(tmp_path, head.format(each) if pool else each)).spec
        for each in (old, 'max_ejected = "20%"\nhealth_check = { type = "tcp", send = "AUTH hunter3" }\n')
    )
    changes = changes_between(before, after)
    assert "hunter3" in str(changes)
    told = public_verdict(Verdict(True, changes, (), ())).changes
    assert "hunter" not in str(told)
    name = "app" if pool else "web"
    assert Change("~", name, "health_check changed") in told
    assert [each for each in told if each.text.startswith("max_ejected ") and each.text.endswith(' -> "20%"')]
    assert len(told) == len(changes)


def test_a_file_that_is_called_as_a_check_is() -> None:
    error = '/etc/health_check.toml:7:1: listeners.web.bind: "x" is no address'
    assert public_error(f"{error}\n    bind = 'x'\n    ^") == error
    assert public_error("relayd is stopping") == "relayd is stopping"


def test_the_status() -> None:
    assert public_status(STATUS) == STATUS
    last = {"at": "2026-11-23T00:15:02Z", "ok": False, "errors": [f"f:7:1: bad\n    send = '{SECRET}'"]}
    told = public_status(STATUS | {"config": STATUS["config"] | {"last_reload": last}})
    assert told == STATUS | {"config": STATUS["config"] | {"last_reload": last | {"errors": ["f:7:1: bad"]}}}
