"""What shells offer after `relayd`, by the scripts that packages install."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "packaging/completions"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With a `relayd` on the PATH."""
    program = tmp_path / "relayd"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom relayd.cli.main import main\nsys.exit(main())\n")
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}


def asked(shell: list[str], script: str, environment: dict[str, str]) -> str:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"missing {shell[0]}")
    done = subprocess.run([*shell, script], env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["relayd", "re"], ["reload"]),
        (["relayd", "reload", "--c"], ["--confirm", "--config"]),
        (["relayd", "check", "-c", "/et"], []),  # bash goes on with file names
    ],
)
def test_bash(environment: dict[str, str], typed: list[str], offered: list[str]) -> None:
    script = f"""
    source {SCRIPTS}/relayd.bash
    COMP_WORDS=({shlex.join(typed)}) COMP_CWORD={len(typed) - 1}
    _relayd_completion relayd
    echo "${{COMPREPLY[@]}}"
    complete -p relayd
    """
    replies, registered = asked(["bash", "-c"], script, environment).splitlines()
    assert replies.split() == offered
    assert registered == "complete -o default -F _relayd_completion relayd"


def test_zsh(environment: dict[str, str]) -> None:
    # What it hands to zsh's own machinery, which is there only in a line that is being typed.
    script = f"""
    compdef() {{ registered="$*" }}
    source {SCRIPTS}/relayd.zsh
    _arguments() {{ print -r -- "$@" }}
    words=(relayd re) CURRENT=2
    _relayd_completion
    print -r -- $registered
    """
    offered, registered = asked(["zsh", "-f", "-c"], script, environment).splitlines()
    assert '"reload"' in offered
    assert registered == "_relayd_completion relayd"


def test_fish(environment: dict[str, str]) -> None:
    script = f"source {SCRIPTS}/relayd.fish; complete --do-complete 'relayd re'"
    assert asked(["fish", "-c"], script, environment).startswith("reload\t")
