"""Gains and costs of a GPU, in about nine minutes on one H200: `make bench-gpu`, or `python -m bench.gpu`.

Each figure is a line in `--out`/figures.jsonl as soon as it is known. A run goes on where the last one was cut, and
begins nothing more after `--seconds`. `python -m bench.gpu.page FOLDER` makes the table of docs/gpu-results.md of it.

`--device cpu --tiny` runs all of it on a CPU with tiny networks: what it finds says nothing, but that it runs.

docs/gpu-results.md says what must travel to a machine that has PyTorch alone.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.gpu.device import Device
from bench.gpu.figures import Figures
from bench.gpu.networks import Networks
from bench.gpu.service import service
from worker import startup


def main(arguments: Sequence[str] | None = None) -> None:
    """Run by `arguments`, by default those of the command line. Exits with 3 when no time was left for some figures."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to try that all of it runs")
    parser.add_argument("--seconds", type=float, default=540.0, help="after which no further figure is begun")
    parser.add_argument("--parts", nargs="+", metavar="NAME", help="only these, as facts, graphs or service")
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("bench-gpu: not run: torch sees no CUDA device here")
        return
    startup.quiet_libraries()
    if options.tiny:
        torch.set_num_threads(1)
    device, figures = Device(options.device, hasty=options.tiny), Figures(options.out, options.seconds)
    networks = Networks(device, figures, options.tiny)
    parts = {part.__name__: part for part in networks.parts()}
    parts["service"] = lambda: service(device, figures, options.tiny)
    for name in options.parts or parts:
        parts[name]()
    if figures.left:
        print(f"bench-gpu: no time was left for {len(figures.left)} figures: run it again with the same --out")
        sys.exit(3)


if __name__ == "__main__":
    main()
