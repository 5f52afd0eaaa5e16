"""The emoji benchmark: prompts, and a frozen encoder that says which emoji and which style a picture shows.

The encoder was trained on the artwork, not on any model's samples. This module registers it as a feature space.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from distill.emoji.encoder import EmojiEncoder, Reading
from distill.emoji.world import EMOJI, STYLES
from distill.evaluation import feature_spaces, metrics
from distill.evaluation.benchmark import Benchmark, Judge
from distill.evaluation.feature_spaces import FeatureSpace
from distill.evaluation.measuring import fingerprint

NAME = "emoji"
ENCODER = Path("models/emoji-encoder")
VAGUE_PROMPTS = (
    "animal", "fruit", "a happy face", "a vehicle", "a flower", "food", "a bird", "a heart",
    "weather", "a sad face", "a monster", "a wild animal", "a vegetable", "a dessert", "a ball", "a plant",
    "a farm animal", "a sea animal", "an insect", "a drink", "a car", "a tree", "the sky", "a cat",
)  # fmt: skip
VAGUE = slice(0, len(VAGUE_PROMPTS))
NAMES = slice(len(VAGUE_PROMPTS), None)
GROUPS = {"vague": VAGUE, "names": NAMES}
SURE = 0.5
"""A picture counts as something only when the encoder gives it at least this probability."""


def benchmark(folder: Path = ENCODER) -> Benchmark:
    """Prompt match and mode coverage, by the encoder in `folder`. Raises OSError when its file is missing."""
    encoder = EmojiEncoder.load(folder)

    def read(part: slice, images: torch.Tensor) -> torch.Tensor:
        reading = encoder.read(images.flatten(0, 1))
        return torch.cat([reading.emoji, reading.style], dim=-1).unflatten(0, images.shape[:2])

    return Benchmark(NAME, prompts(), GROUPS, Judge(f"{NAME}-{fingerprint(folder)}", read, judge))


def feature_space(folder: Path) -> FeatureSpace:
    """The features of the encoder in `folder`. D = 128."""
    encoder = EmojiEncoder.load(folder)
    return lambda images: encoder.read(images).features


feature_spaces.register(NAME, feature_space)


def prompts() -> tuple[str, ...]:
    """The vague prompts, then one for every third emoji in wordings that no model was trained on."""
    forms = ("an icon of a {}", "one {} please", "the {}", "drawing: {}")
    names = (forms[i % len(forms)].format(emoji.names[0]) for i, emoji in enumerate(EMOJI[::3]))
    return (*VAGUE_PROMPTS, *names)


def judge(ours: torch.Tensor, theirs: torch.Tensor) -> dict[str, Any]:
    """Prompt match and mode coverage of pictures of `prompts()`, by the probabilities of things and styles that the
    encoder gives them, float [P, R, things + styles]."""
    texts = prompts()
    mine, its = (Reading(one, *one.split([len(EMOJI), len(STYLES)], -1)) for one in map(_flat, (ours, theirs)))
    my_match, its_match = (prompt_match(texts, one)[NAMES].mean(1) for one in (mine, its))
    return {
        "model": describe(texts, mine),
        "teacher": describe(texts, its),
        "prompt_match_ratio": asdict(metrics.paired_ratio(my_match, its_match)),
        "emoji_distance_vague": _apart(mine.emoji, its.emoji, len(texts)),
        "styles_distance_vague": _apart(mine.style, its.style, len(texts)),
    }


def _flat(read: torch.Tensor) -> torch.Tensor:
    return read.flatten(0, 1)


def describe(texts: tuple[str, ...], reading: Reading) -> dict[str, float]:
    """Summarise one model's pictures of the prompts `texts`. Counts are means over the vague prompts; entropies are in
    bits."""
    match = prompt_match(texts, reading)
    shown_things, shown_styles = (kinds(one, len(texts))[VAGUE] for one in (reading.emoji, reading.style))
    things, styles = _shares(shown_things, len(EMOJI)), _shares(shown_styles, len(STYLES))
    fits = torch.stack([_fitting(prompt) for prompt in VAGUE_PROMPTS])
    reachable = fits.sum(1).clamp_max(match.shape[1])
    return {
        "prompt_match": float(match[NAMES].mean()),
        "prompt_match_vague": float(match[VAGUE].mean()),
        "unsure": float((reading.emoji.max(-1).values < SURE).float().mean()),
        "distinct_emoji_vague": float((things > 0).sum(1).float().mean()),
        "distinct_styles_vague": float((styles > 0).sum(1).float().mean()),
        "reached_of_reachable_vague": float(((things * fits > 0).sum(1) / reachable).mean()),
        "repeats_vague": float(metrics.repeats(shown_things).mean()),
        "emoji_entropy_vague": float(metrics.entropy(things).mean()),
        "styles_entropy_vague": float(metrics.entropy(styles).mean()),
    }


def kinds(probability: torch.Tensor, prompt_count: int) -> torch.Tensor:
    """Readings float [P · R, K] → the kind that each picture surely shows, or K for none: int64 [P, R]."""
    best, kind = probability.max(-1)
    return torch.where(best >= SURE, kind, probability.shape[1]).view(prompt_count, -1)


def _shares(shown: torch.Tensor, count: int) -> torch.Tensor:
    """Kinds int64 [P, R] → the share of each among a prompt's sure pictures: [P, count]."""
    counts = F.one_hot(shown, count + 1)[..., :count].sum(1).float()
    return counts / counts.sum(1, keepdim=True).clamp_min(1)


def _apart(ours: torch.Tensor, theirs: torch.Tensor, prompt_count: int) -> dict[str, float]:
    """The mean distance of a vague prompt's histogram from the teacher's."""
    mine, its = (kinds(one, prompt_count)[VAGUE] for one in (ours, theirs))
    return asdict(metrics.mean_and_interval(metrics.histogram_distance(mine, its)))


def prompt_match(texts: tuple[str, ...], reading: Reading) -> torch.Tensor:
    """float [prompts, seeds]: 1 where the picture surely shows something that its prompt names, else 0."""
    probability = reading.emoji.view(len(texts), -1, len(EMOJI))
    fits = torch.stack([_fitting(prompt) for prompt in texts])
    return ((probability * fits[:, None]).sum(-1) >= SURE).float()


def _fitting(prompt: str) -> torch.Tensor:
    """Mark the emoji that a prompt may mean, 0 or 1 for each: those of the longest name or class word in it."""
    words = {word for emoji in EMOJI for word in (*emoji.names, *emoji.classes) if f" {word} " in f" {prompt} "}
    longest = max(words, key=len)
    return torch.tensor([float(longest in (*emoji.names, *emoji.classes)) for emoji in EMOJI])
