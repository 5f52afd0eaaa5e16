"""The Markdown pages of this repository."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "models/README.md")),
    *sorted(DOCS.glob("*.md")),
]


def words(page: Path) -> int:
    """Words of prose and tables: what stands between spaces and holds a letter or digit, without blocks of code."""
    text = re.sub(r"```.*?```|<!--.*?-->", "", page.read_text(), flags=re.S)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return sum(any(map(str.isalnum, word)) for word in text.split())
