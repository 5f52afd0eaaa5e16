"""Result files of the replication: one JSON file a run."""

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, content: Any) -> None:
    """Write the whole file or none."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(partial, path)


def gathered(out: Path, digits: int = 4) -> dict[str, Any]:
    """Every finished run of a folder, rounded: run name → its JSON."""
    files = sorted(path for path in out.glob("*.json") if path.name != "gates.json")
    return {path.stem: rounded(json.loads(path.read_text()), digits) for path in files}


def rounded(value: Any, digits: int = 4) -> Any:
    """JSON with its numbers rounded to `digits` decimals."""
    return json.loads(json.dumps(value), parse_float=lambda number: round(float(number), digits))
