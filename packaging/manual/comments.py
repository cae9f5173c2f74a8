"""What stands in the code as `#:` above a name: the one line that the manual says of it. Reads source, runs nothing."""

import ast
from collections.abc import Iterator
from pathlib import Path

_MARK = "#:"


class NoComment(ValueError):
    """A name that the manual has to explain has no `#:` above it."""


def of_class(path: Path, name: str) -> dict[str, str]:
    """By attribute, in their order, of the class `name` in the module at `path`. Raises NoComment."""
    lines = path.read_text().splitlines()
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            # In an enum an annotation says what each member has, and is no member.
            members = [(each, at) for each, at, annotated, _ in _assigned(node.body) if not (annotated and node.bases)]
            return {each: _above(path, lines, each, at) for each, at in members}
    raise NoComment(f"{path} has no class {name}")


def of_constants(path: Path, prefix: str) -> dict[int, str]:
    """By value, of the integer constants of the module at `path` that begin with `prefix`. Raises NoComment."""
    lines = path.read_text().splitlines()
    found = _assigned(ast.parse("\n".join(lines)).body)
    return {
        value.value: _above(path, lines, name, at)
        for name, at, _, value in found
        if name.startswith(prefix) and isinstance(value, ast.Constant) and isinstance(value.value, int)
    }


def _assigned(body: list[ast.stmt]) -> Iterator[tuple[str, int, bool, ast.expr | None]]:
    """Name, line counted from 1, whether it is annotated, and value."""
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.lineno, True, node.value
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.lineno, False, node.value


def _above(path: Path, lines: list[str], name: str, at: int) -> str:
    texts: list[str] = []
    while (line := lines[at - 2 - len(texts)].strip()).startswith(_MARK):
        texts.insert(0, line.removeprefix(_MARK).strip())
    if not texts:
        raise NoComment(f"{path}:{at}: {name} has no comment that begins with {_MARK}")
    return " ".join(texts)
