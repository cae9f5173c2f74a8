"""Every link between documents leads somewhere, and every file that they name is there."""

import re
from pathlib import Path

import pytest

from tests.documents import LINKED, ROOT, name_of, prose, spans

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
#: Files of the repository, as texts name them: from its root, or from relayd/ in ARCHITECTURE.md.
_FILE = re.compile(r"(?:[\w.-]+/)+[\w.-]+\.(?:md|py|toml|json|service|socket|sh)")
_FOLDERS = {each.name for each in ROOT.iterdir() if each.is_dir() and not each.name.startswith(".")} | {"cli", "config"}
#: Pages that are being written elsewhere at the moment; to be empty before a release.
COMING: set[str] = set()
#: Names with a part that stands for something else.
_PATTERNS = {"bench/results/TIME.json"}


def anchors(page: Path) -> set[str]:
    """What GitHub makes of its headings."""
    found: dict[str, int] = {}
    names = set()
    for heading in _HEADING.findall(prose(page)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return names


def links(page: Path) -> list[str]:
    """The targets of the links of a page to this repository."""
    return [target for target in _LINK.findall(prose(page)) if "://" not in target]


@pytest.mark.parametrize(
    ("page", "link"), [(page, link) for page in LINKED for link in links(page)], ids=lambda value: str(value)[-40:]
)
def test_a_link_leads_somewhere(page: Path, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        assert name_of(target) in COMING
        return
    if anchor:
        assert anchor in anchors(target)


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    named = [(place, text) for place, text in spans(page) if _FILE.fullmatch(text)]
    ours = [(place, text) for place, text in named if text.split("/")[0] in _FOLDERS]
    missing = [
        (place, text)
        for place, text in ours
        if not (ROOT / text).exists() and not (ROOT / "relayd" / text).exists() and text not in COMING | _PATTERNS
    ]
    assert missing == []


def test_every_page_of_docs_is_linked() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve() for page in LINKED for link in links(page) if link[0] != "#"
    }
    pages = {page for page in LINKED if page.is_relative_to(ROOT / "docs")}
    assert {name_of(page) for page in pages - linked} == set()
