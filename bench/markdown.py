"""Markdown tables, and pages with tables made by scripts, between `<!-- NAME -->` and `<!-- end of NAME -->`."""

from collections.abc import Iterable, Mapping, Sequence


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table without a line break at its end."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def filled(page: str, tables: Mapping[str, str]) -> str:
    """`page` with every table between the marks of its name. Raises ValueError when a mark is missing."""
    for name, text in tables.items():
        before, start, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"\n<!-- end of {name} -->")
        if not (start and end):
            raise ValueError(f"the page has no marks <!-- {name} --> and <!-- end of {name} -->")
        page = before + start + text + end + after
    return page
