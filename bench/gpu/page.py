"""The table of docs/gpu-results.md, from the figures of a run on a GPU: `python -m bench.gpu.page [FOLDER]`.

With a folder, the figures in it become the committed ones.
"""

import shutil
import sys
from pathlib import Path

from bench import results_file
from bench.gpu.figures import FILE, Figure, read
from bench.markdown import filled, table

PAGE = Path("docs/gpu-results.md")
COMMITTED = "gpu.jsonl"
NOT_MEASURED = "Not measured on a GPU yet."
ABOUT = ("figure", "model", "size", "rows", "how")


def main() -> None:
    if folder := sys.argv[1:]:
        shutil.copyfile(Path(folder[0]) / FILE, results_file.RESULTS / COMMITTED)
    PAGE.write_text(filled(PAGE.read_text(), {"gpu": rendered()}))


def rendered(folder: Path | None = None) -> str:
    """The table of the committed figures; a sentence where there are none, or none of a GPU."""
    figures = read((folder or results_file.RESULTS) / COMMITTED)
    facts = next((figure for figure in figures if figure["figure"] == "facts"), None)
    if facts is None or facts.get("device", "cpu") == "cpu":
        return NOT_MEASURED
    rows = [[*(figure.get(name, "") for name in ABOUT), _found(figure)] for figure in figures if figure is not facts]
    machine = f"{facts['device']}, PyTorch {facts['torch']}, CUDA {facts['cuda']}, random weights but for the service:"
    return f"{machine}\n\n{table([*ABOUT, 'measured'], rows)}"


def _found(figure: Figure) -> str:
    results = {name: value for name, value in figure.items() if name not in (*ABOUT, "seconds")}
    return ", ".join(f"{name} {value}" for name, value in results.items()).replace("|", "/")


if __name__ == "__main__":
    main()
