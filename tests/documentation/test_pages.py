"""Pages are short, each stands in the site's menu, and those that are made from the code are up to date."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from docs.scripts import reference
from service.schemas.generate_request import GenerateRequest
from tests.documentation.pages import DOCS, PAGES, ROOT, words

CONFIG = DOCS / "site" / "mkdocs.yml"
MENU = {title: [page if isinstance(page, str) else next(iter(page.values())) for page in pages]
        for part in yaml.safe_load(CONFIG.read_text())["nav"] for title, pages in part.items()}  # fmt: skip
ELSEWHERE = {
    "index.md": "../README.md",
    "contributing.md": "../CONTRIBUTING.md",
    "changelog.md": "../CHANGELOG.md",
    "model-card.md": "../models/README.md",
}
LONG = ("Reference", "Results")
MOST_OF_README, MOST_OF_A_PAGE = 900, 1200


def test_the_readme_is_short() -> None:
    assert words(ROOT / "README.md") <= MOST_OF_README


@pytest.mark.parametrize("part", [part for part in MENU if part not in LONG])
def test_a_page_that_is_read_is_short(part: str) -> None:
    lengths = {page: words(DOCS / ELSEWHERE.get(page, page)) for page in MENU[part]}
    assert {page: length for page, length in lengths.items() if length > MOST_OF_A_PAGE} == {}


def test_words_are_those_of_prose_and_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Two words\n\n| a | [b](c d) |\n|---|---|\n\n```\nno word\n```\n<!-- nor this -->\n")
    assert words(page) == 4


def test_every_page_stands_in_the_menu_once() -> None:
    listed = [page for pages in MENU.values() for page in pages]
    assert sorted(listed) == sorted(
        [*ELSEWHERE, *(page.name for page in DOCS.glob("*.md") if page.name != "README.md")]
    )


def test_the_index_on_github_is_the_menu() -> None:
    parts = re.split("^## ", (DOCS / "README.md").read_text(), flags=re.MULTILINE)[1:]
    index = {part.partition("\n")[0]: re.findall(r"^- \[.*?\]\((.*?)\)", part, flags=re.MULTILINE) for part in parts}
    assert index == {part: [ELSEWHERE.get(page, page) for page in pages] for part, pages in MENU.items()}


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_reference_page_is_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text() == reference.PAGES[name](), "python -m docs.scripts.reference writes it anew"


def test_every_error_stands_on_the_page_of_http() -> None:
    text = "".join(path.read_text() for path in sorted((ROOT / "service").rglob("*.py")))
    names = {
        *re.findall(r'(?:Problem|__init__)\(\s*\d{3},\s*"([a-z-]+)"', text),
        *re.findall(r'overloaded\(\s*"([a-z-]+)"', text),
    }
    page = (DOCS / "http.md").read_text()
    assert len(names) > 25
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


def test_every_endpoint_and_field_stands_on_the_page_of_http() -> None:
    text = "".join(path.read_text() for path in sorted((ROOT / "service").glob("*/*.py")))
    endpoints = {re.sub(r"{.*?}", "{}", path) for path in re.findall(r'@router\.(?:get|post|delete)\(\s*"(.+?)"', text)}
    page = (DOCS / "http.md").read_text()
    told = re.sub(r"{.*?}", "{}", page)
    assert len(endpoints) > 12
    assert [path for path in sorted(endpoints) if f"{path}`" not in told] == []
    assert [field for field in GenerateRequest.model_fields if f"`{field}`" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_a_list_or_table_follows_an_empty_line(page: Path) -> None:
    """GitHub needs none, the site does."""
    text = re.sub(r"```.*?```", "```", page.read_text(), flags=re.S)
    item, row = r"(?:[-*]|\d+\.) ", r"\|"
    runs_on = [
        *re.findall(rf"^(?!{item}|\s|<!--).+\n{item}.*", text, flags=re.MULTILINE),
        *re.findall(rf"^(?!{row}|<!--).+\n{row}.*", text, flags=re.MULTILINE),
    ]
    assert runs_on == []


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs the extra `docs`: pip install --editable '.[docs]'")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(CONFIG), "-d", str(tmp_path)]
    result = subprocess.run(build, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    loads = r'<(?:script|img|iframe|source|video)\b[^>]*\bsrc="(?:https?:)?//|<link\b[^>]*\bhref="(?:https?:)?//'
    pages = [*tmp_path.rglob("*.html")]
    assert len(pages) >= len(PAGES)
    assert [page.name for page in pages if re.search(loads, page.read_text())] == []
    copies = {path.relative_to(tmp_path / "source").parts[0] for path in (tmp_path / "source").rglob("*.txt")}
    assert "worker" in copies
    assert "docs" not in copies
