"""Reading pictures: the bundled encoder knows the artwork's things, and the report knows a good model from noise."""

import numpy as np
import torch

from distill.emoji.encoder import EmojiEncoder, Reading
from distill.emoji.world import EMOJI, STYLES
from distill.evaluation import emoji
from distill.evaluation.pictures import PictureSet

PROMPTS = (*emoji.VAGUE_PROMPTS, *emoji.name_prompts())
SEEDS = tuple(range(9))


def reading(kind: torch.Tensor) -> Reading:
    """A reading that is certain of `kind` int64 [pictures], each kind with a feature direction of its own."""
    certain = torch.nn.functional.one_hot(kind, len(EMOJI)).float()
    style = torch.nn.functional.one_hot(torch.zeros_like(kind), len(STYLES)).float()
    return Reading(certain, certain, style)


def pictures() -> PictureSet:
    images = np.zeros((len(PROMPTS), len(SEEDS), 64, 64, 3), dtype=np.uint8)
    return PictureSet("0" * 64, PROMPTS, SEEDS, images)


def fitting(prompt: str) -> list[int]:
    """The emoji that a prompt may mean: those with the most specific word in it."""
    found = {
        i: [word for word in (*one.names, *one.classes) if f" {word} " in f" {prompt} "] for i, one in enumerate(EMOJI)
    }
    most = max(len(word) for words in found.values() for word in words)
    return [i for i, words in found.items() if any(len(word) == most for word in words)]


def test_the_longest_word_decides_what_a_prompt_means() -> None:
    sunglasses = next(i for i, one in enumerate(EMOJI) if one.char == "😎")
    other_face = next(i for i, one in enumerate(EMOJI) if one.char == "😀")
    prompts = ("an icon of a cool face with sunglasses", "one happy face please")
    match = emoji.prompt_match(prompts, reading(torch.tensor([sunglasses, other_face, sunglasses, other_face])))
    assert match.tolist() == [[1.0, 0.0], [1.0, 1.0]]


def test_an_unsure_picture_matches_nothing() -> None:
    even = torch.full((2, len(EMOJI)), 1 / len(EMOJI))
    unsure = Reading(even, even, even[:, : len(STYLES)])
    assert emoji.prompt_match(("a red apple",), unsure).tolist() == [[0.0, 0.0]]


def test_a_varied_model_and_a_collapsed_one() -> None:
    varied, collapsed = [], []
    for prompt in PROMPTS:
        fits = fitting(prompt)
        varied += [fits[i % len(fits)] for i in range(len(SEEDS))]
        collapsed += [fits[0]] * len(SEEDS)
    made = pictures()
    rich, poor = (reading(torch.tensor(kinds)) for kinds in (varied, collapsed))
    assert emoji.describe(made, rich)["prompt_match_vague"] == 1.0
    assert emoji.describe(made, rich)["distinct_emoji_vague"] > 4
    assert emoji.describe(made, poor)["distinct_emoji_vague"] == 1
    assert emoji.describe(made, poor)["diversity_vague"] < 1e-6
    ratio = emoji.compare(poor, rich, made, made)["diversity_ratio_vague"]
    assert ratio["high"] < 0.01


def test_the_encoder_survives_saving(tmp_path) -> None:
    torch.manual_seed(0)
    encoder = EmojiEncoder().eval()
    encoder.save(tmp_path)
    images = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    before, after = encoder.read(images), EmojiEncoder.load(tmp_path).read(images)
    torch.testing.assert_close(before.features, after.features, rtol=0, atol=1e-2)
    assert torch.equal(before.emoji.argmax(1), after.emoji.argmax(1))
