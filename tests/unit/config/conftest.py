"""Configurations written by a test, and what comes of them."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.config import ConfigError, Loaded, Problem, load

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(text, name="relay.toml")` puts a file in the test's directory and returns its path."""

    def write_file(text: str, name: str = "relay.toml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write_file


@pytest.fixture
def loaded(write: Write) -> Callable[[str], Loaded]:
    """The configuration in a text."""
    return lambda text: load(write(text))


@pytest.fixture
def problems(write: Write) -> Callable[[str], tuple[Problem, ...]]:
    """Everything that is wrong with a text. A text that nothing is wrong with fails the test."""

    def problems_of(text: str) -> tuple[Problem, ...]:
        with pytest.raises(ConfigError) as caught:
            load(write(text))
        return caught.value.problems

    return problems_of
