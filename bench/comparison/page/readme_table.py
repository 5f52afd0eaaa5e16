"""The README's table, from the JSON of the comparison: `python -m bench.comparison.page.readme_table`."""

from pathlib import Path

from bench import results_file
from bench.markdown import filled, table

README = Path(__file__).parents[3] / "README.md"


def readme() -> str:
    """The README with the table of the committed run between its marks."""
    return filled(README.read_text(), {"comparison": comparison()})


def comparison() -> str:
    sampler, crash = results_file.read("comparison")["summary"]["sampler"], results_file.read("comparison_crash")
    head = ["with our sampler, one core", "images/s, 16 callers", "p50, p99 at 70% load", "calls lost at kill −9"]
    rows = []
    for name, one in sampler["systems"].items():
        rate, replay = list(one["images_per_s"].values())[-1][0], one["replay"]
        waits = f"{replay['p50_ms'][0]:.0f}, {replay['p99_ms'][0]:.0f} ms"
        killed = crash["systems"].get(name)
        lost = f"{killed['lost']} of {killed['calls']}" if killed else "not run"
        rows.append([name, f"{rate:.1f}", waits, lost])
    return table(head, rows)


if __name__ == "__main__":
    README.write_text(readme())
