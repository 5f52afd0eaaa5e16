"""The one recorded trace that every system is given: `python -m bench.comparison.trace` writes trace.json.

Times have no unit of the machine: arrivals count in the time that one image takes at full capacity, deadlines in the
latency of one image alone. Replayed at a share of the bare engine's capacity, it is the same load on any machine.
"""

import json
import random
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

FILE = Path(__file__).parent / "trace.json"
CALLS, SEED = 400, 20261127
IMAGES = [1] * 8 + [2, 4]
"""Eight calls of ten are for one image, one for two, one for four."""

DEADLINE = 10.0
SIZES = ["tiny", "small", "big", "huge"]
MOODS = ["happy", "sad", "angry", "sleepy", "shy", "proud", "calm", "wild"]
COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "white", "black", "brown", "pink"]
THINGS = [
    "cat", "dog", "fox", "bear", "frog", "bird", "fish", "sun", "moon", "star", "heart", "flower", "tree", "apple",
]  # fmt: skip


@dataclass(frozen=True)
class Call:
    """`images` pictures of `prompt` for the seeds from `seed` on.

    `at` is its arrival in units of the mean time between two images, `deadline` in units of the solo latency.
    """

    at: float
    prompt: str
    seed: int
    images: int
    deadline: float


def record(calls: int = CALLS, seed: int = SEED) -> list[Call]:
    """Poisson arrivals of one image a unit of time on average; no prompt comes twice."""
    dice = random.Random(seed)
    prompts = dice.sample(all_prompts(), calls)
    mean_images = sum(IMAGES) / len(IMAGES)
    at, recorded = 0.0, []
    for prompt in prompts:
        at += dice.expovariate(1 / mean_images)
        recorded.append(Call(round(at, 4), prompt, dice.randrange(2**31), dice.choice(IMAGES), DEADLINE))
    return recorded


def all_prompts() -> list[str]:
    return [f"a {' '.join(words)}" for words in product(SIZES, MOODS, COLOURS, THINGS)]


def load() -> list[Call]:
    return [Call(**call) for call in json.loads(FILE.read_text())]


def singles(count: int, seed: int) -> list[Call]:
    """Calls for one image each, for closed loops; other prompts for each `seed`."""
    dice = random.Random(f"singles {seed}")
    return [
        Call(0.0, f"{prompt} {seed}", dice.randrange(2**31), 1, 1e6) for prompt in dice.sample(all_prompts(), count)
    ]


def main() -> None:
    FILE.write_text("[\n" + ",\n".join(json.dumps(asdict(call)) for call in record()) + "\n]\n")


if __name__ == "__main__":
    main()
