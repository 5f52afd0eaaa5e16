"""The README's table, from the JSON of the comparison: `python -m bench.comparison.page.readme_table`."""

from pathlib import Path
from typing import Any

from bench import results_file
from bench.markdown import filled, table

README = Path(__file__).parents[3] / "README.md"


def readme() -> str:
    """The README with the table of the committed run between its marks."""
    return filled(README.read_text(), {"comparison": comparison()})


def comparison() -> str:
    found, crash = results_file.read("comparison")["summary"], results_file.read("comparison_crash")
    pipeline = found["diffusers"]["systems"]
    head = [
        *("one core, 16 callers", "images/s, diffusers' pipeline", "images/s, our sampler"),
        *("p50, p99 at 70% load", "calls lost at kill −9"),
    ]
    rows = []
    for name, one in found["sampler"]["systems"].items():
        replay = one["replay"]
        waits = f"{replay['p50_ms'][0]:.0f}, {replay['p99_ms'][0]:.0f} ms"
        killed = crash["systems"].get(name)
        lost = f"{killed['lost']} of {killed['calls']}" if killed else "not run"
        plain = f"{_rate(pipeline[name]):.1f}" if name in pipeline else "–"
        rows.append([name, plain, f"{_rate(one):.1f}", waits, lost])
    return table(head, rows)


def _rate(system: dict[str, Any]) -> float:
    """Images a second at saturation."""
    return list(system["images_per_s"].values())[-1][0]


if __name__ == "__main__":
    README.write_text(readme())
