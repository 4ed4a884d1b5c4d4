"""Every link of the documents that points into the repository leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
LINK = re.compile(r"\]\((?!https?://)([^)#]+)")


def test_the_documents_are_all_in_their_list():
    listed = set(LINK.findall((ROOT / "docs/README.md").read_text(encoding="utf-8")))
    assert {p.name for p in ROOT.glob("docs/*.md")} - {"README.md"} == {
        link for link in listed if not link.startswith("..")
    }


@pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_links_lead_to_files(page):
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
