"""``make chaos``: 600 acknowledged images while everything breaks; exit code 1 unless each has one honest end.

A worker is killed with SIGKILL for every 40 images, one of them three times, two are stopped past their leases, and a
prompt takes down whoever draws it. The clocks of two workers and an API copy are ten minutes off. The model is
exchanged under its name. Redis is killed (with an append-only file, once in the midst of writing to it), full,
stopped, slow, without a disk, and holds records of the previous release and unreadable ones. API copies are killed and
stopped, connections are cut, and calls are sent three times at once. All answers are a history, which is judged after
the run (`judge.py`).

With ``--image-store s3`` the images are in a bucket, whose server is away three times; the other faults are those that
meet it.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.chaos.faults import EVERY_FAULT, WITH_BUCKET
from tests.chaos.trial import trial


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--kill-every", type=int, default=40, metavar="IMAGES")
    parser.add_argument("--image-store", choices=("redis", "s3"), default="redis", help="where the images are kept")
    parser.add_argument("--folder", type=Path, help="where logs are kept; a temporary folder without it")
    parser.add_argument("--out", type=Path, help="where the verdict is written as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fourstep-chaos-") as temporary:
        folder = arguments.folder or Path(temporary)
        store = arguments.image_store
        program = WITH_BUCKET if store == "s3" else EVERY_FAULT
        verdict = asyncio.run(trial(folder, arguments.images, arguments.kill_every, program, pause_s=2.0, store=store))
    report = json.dumps(verdict.as_json(), indent=2) + "\n"
    sys.stdout.write(report)
    if arguments.out:
        arguments.out.write_text(report)
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main())
