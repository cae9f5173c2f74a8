"""The reader of Containerfiles that the tests of ours rest on."""

from pathlib import Path

import pytest

from tests.containerfile import Malformed, read

GOOD = """
# a comment
FROM python:3 AS build
RUN one \\
# in between
 && two
COPY a b ./

FROM python:3-slim
COPY --from=build /x /y
ENV A=1 B="two words"
HEALTHCHECK --interval=1s --retries=3 CMD ["relayd", "status"]
ENTRYPOINT ["relayd"]
CMD ["run"]
CMD ["run", "-c", "file"]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "Containerfile"
    path.write_text(text)
    return path


def test_stages_and_instructions(tmp_path: Path) -> None:
    build, final = read(written(tmp_path, GOOD))
    assert (build.base, build.name, final.base, final.name) == ("python:3", "build", "python:3-slim", "")
    assert [each.text for each in build.all("RUN")] == ["one && two"]
    assert [(each.line, each.flags, each.text) for each in final.all("COPY")] == [(10, {"from": "build"}, "/x /y")]
    assert final.environment() == {"A": "1", "B": "two words"}
    assert final.healthcheck() == ["relayd", "status"]
    assert final.last("CMD").exec_form() == ["run", "-c", "file"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no FROM"),
        ("RUN x\nFROM a\n", "line 1: RUN before FROM"),
        ("FROM a b\n", "line 1: FROM a b"),
        ("FROM a\nRUNS x\n", "line 2: RUNS is no instruction"),
        ("FROM a\nUSER\n", "line 2: USER has nothing to do"),
        ("FROM a\nRUN x \\\n\n && y\n", "line 3: an empty line in a continuation"),
        ("FROM a\nRUN x \\\n", "line 2: continues, and there is nothing more"),
        ("FROM a\nCOPY --from=b x y\n", "line 2: no stage before this one is named b"),
    ],
)
def test_what_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Malformed, match=f"^{said}$"):
        read(written(tmp_path, text))


@pytest.mark.parametrize("text", ["relayd run", '["relayd", 1]', "[]", '["relayd"'])
def test_the_form_that_a_shell_runs_is_told_from_the_one_that_none_does(tmp_path: Path, text: str) -> None:
    (stage,) = read(written(tmp_path, f"FROM a\nCMD {text}\n"))
    with pytest.raises(Malformed, match="not in exec form"):
        stage.last("CMD").exec_form()
    with pytest.raises(Malformed, match="has no ENTRYPOINT"):
        stage.last("ENTRYPOINT")
