"""Reads a Containerfile as far as ours go: what `docker build` would refuse, this refuses, so that what is written is
what is meant. There is no engine where the tests run.

https://docs.docker.com/reference/dockerfile/
"""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: What may stand first on a line. Those that ours do not use, or that are deprecated (MAINTAINER), are none.
_KNOWN = {
    *("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN"),
    *("STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
}
_FLAG = re.compile(r"--([a-z-]+)=(\S+)\s+")


class Malformed(ValueError):
    """Not a Containerfile; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its flags (`--from=build`), and what comes after them."""

    line: int
    name: str
    flags: dict[str, str]
    text: str

    def exec_form(self) -> list[str]:
        """The words of a JSON array. Raises Malformed when this is not one: then a shell would run it."""
        try:
            words = json.loads(self.text)
        except ValueError:
            words = None
        if not (isinstance(words, list) and words and all(isinstance(word, str) for word in words)):
            raise Malformed(f"line {self.line}: {self.name} is not in exec form: {self.text}")
        return words


@dataclass(frozen=True, slots=True)
class Stage:
    """What comes after a FROM, with it."""

    base: str
    name: str
    instructions: tuple[Instruction, ...]

    def all(self, name: str) -> list[Instruction]:
        """Instructions of one kind, in order."""
        return [each for each in self.instructions if each.name == name]

    def last(self, name: str) -> Instruction:
        """The one that counts. Raises Malformed when there is none."""
        found = self.all(name)
        if not found:
            raise Malformed(f"the stage from {self.base} has no {name}")
        return found[-1]

    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        return dict(pair.partition("=")[::2] for each in self.all("ENV") for pair in shlex.split(each.text))

    def healthcheck(self) -> list[str]:
        """The command of HEALTHCHECK, in exec form."""
        found = self.last("HEALTHCHECK")
        kind, _, command = found.text.partition(" ")
        if kind != "CMD":
            raise Malformed(f"line {found.line}: HEALTHCHECK without CMD")
        return Instruction(found.line, "HEALTHCHECK CMD", {}, command).exec_form()


def read(path: Path) -> list[Stage]:
    """The stages, in order. Raises Malformed."""
    stages: list[Stage] = []
    for each in _instructions(path.read_text()):
        if each.name == "FROM":
            words = each.text.split()
            if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
                raise Malformed(f"line {each.line}: FROM {each.text}")
            stages.append(Stage(words[0], words[2] if len(words) == 3 else "", (each,)))
        elif not stages:
            raise Malformed(f"line {each.line}: {each.name} before FROM")
        else:
            last = stages[-1]
            source = each.flags.get("from")
            if source is not None and source not in {stage.name for stage in stages[:-1]}:
                raise Malformed(f"line {each.line}: no stage before this one is named {source}")
            stages[-1] = Stage(last.base, last.name, (*last.instructions, each))
    if not stages:
        raise Malformed("no FROM")
    return stages


def _instructions(text: str) -> Iterator[Instruction]:
    for number, line in _logical_lines(text):
        name, _, rest = line.partition(" ")
        if name not in _KNOWN:
            raise Malformed(f"line {number}: {name} is no instruction")
        rest, flags = rest.strip(), {}
        while name != "RUN" and (flag := _FLAG.match(rest)):
            flags[flag[1]] = flag[2]
            rest = rest[flag.end() :]
        if not rest:
            raise Malformed(f"line {number}: {name} has nothing to do")
        yield Instruction(number, name, flags, rest)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with those that continue them, and the number of the first; no comments, which end no continuation."""
    parts: list[str] = []
    first = 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or (not line.strip() and not parts):
            continue
        if not line.strip():
            raise Malformed(f"line {number}: an empty line in a continuation")
        first = first if parts else number
        continues = line.endswith("\\")
        parts.append(line.removesuffix("\\").strip())
        if not continues:
            yield first, " ".join(parts)
            parts = []
    if parts:
        raise Malformed(f"line {first}: continues, and there is nothing more")
