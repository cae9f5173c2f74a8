"""`packaging/dev manual`: write the pages. With `--check`: say which are not current, with exit code 1."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from manual import catalog, completions, pages, reference

ROOT = Path(__file__).resolve().parents[2]
#: What is made, by path from the root of the repository.
PAGES: dict[str, Callable[[], str]] = {
    "docs/reference.md": reference.page,
    "packaging/man/relayd.8": pages.relayd_8,
    "packaging/man/relay.toml.5": pages.relay_toml_5,
    "packaging/relayd.catalog": catalog.page,
    "packaging/completions/relayd.bash": completions.bash,
    "packaging/completions/relayd.fish": completions.fish,
    "packaging/completions/relayd.zsh": completions.zsh,
}


def stale(root: Path = ROOT) -> list[str]:
    """The pages that are not as the code has them, or are missing."""
    return [name for name, make in PAGES.items() if not _says(root / name, make())]


def main() -> int:
    """Writes what is stale, or, with --check, says so. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="packaging/dev manual", description="Make the pages that repeat the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is not current")
    check = parser.parse_args().check
    names = stale()
    for name in names:
        if not check:
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_text(PAGES[name]())
        print(f"{name}: {'not current' if check else 'written'}")
    return 1 if check and names else 0


def _says(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main())
