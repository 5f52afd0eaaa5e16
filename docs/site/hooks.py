"""MkDocs hooks: pages and files from outside docs/, so that a link that works on GitHub works on the site too."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "models/README.md": "model-card.md",
}
"""Pages from outside docs/: path in the repository → path on the site."""
ORIGINS = {name: path for path, name in PAGES.items()}
PLACES = PAGES | {"docs/README.md": "index.md"}  # the index of GitHub is the site's menu
LINK = re.compile(r"(?<=\]\()(?![a-z]+:)[^)#\s]+")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    folder = posixpath.dirname(ORIGINS.get(page.file.src_uri, f"docs/{page.file.src_uri}"))
    return LINK.sub(lambda link: _on_site(posixpath.normpath(posixpath.join(folder, link[0])), config, files), markdown)


def _on_site(path: str, config: MkDocsConfig, files: Files) -> str:
    """The place on the site of a file of the repository; a file that is no page becomes a text file there."""
    if path in PLACES:
        return PLACES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    copy = f"source/{path}.txt"
    if files.get_file_from_path(copy) is None and (ROOT / path).is_file():
        files.append(File.generated(config, copy, abs_src_path=str(ROOT / path)))
    return copy
