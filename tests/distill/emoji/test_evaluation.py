"""Reading pictures: the bundled encoder knows the artwork's things, and the report knows a good model from noise."""

import torch

from distill.emoji import benchmark as emoji
from distill.emoji.encoder import EmojiEncoder, Reading
from distill.emoji.world import EMOJI, STYLES
from distill.evaluation import metrics

PROMPTS = emoji.prompts()
SEEDS = tuple(range(9))


def reading(kind: torch.Tensor) -> Reading:
    """A reading that is certain of `kind` int64 [pictures], each kind with a feature direction of its own."""
    certain = torch.nn.functional.one_hot(kind, len(EMOJI)).float()
    style = torch.nn.functional.one_hot(torch.zeros_like(kind), len(STYLES)).float()
    return Reading(certain, certain, style)


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


def varied_and_collapsed() -> tuple[Reading, Reading]:
    """Nine pictures of each prompt, all of them right: of all that fits, and of one thing alone."""
    fits = [fitting(prompt) for prompt in PROMPTS]
    varied = [of_prompt[i % len(of_prompt)] for of_prompt in fits for i in range(len(SEEDS))]
    collapsed = [of_prompt[0] for of_prompt in fits for _ in SEEDS]
    return reading(torch.tensor(varied)), reading(torch.tensor(collapsed))


def test_a_varied_model_and_a_collapsed_one() -> None:
    rich, poor = (emoji.describe(PROMPTS, one) for one in varied_and_collapsed())
    assert (rich["prompt_match_vague"], rich["prompt_match"], rich["unsure"]) == (1, 1, 0)
    assert rich["distinct_emoji_vague"] > 4
    assert rich["reached_of_reachable_vague"] == 1
    assert rich["emoji_entropy_vague"] > 2
    assert (poor["prompt_match_vague"], poor["distinct_emoji_vague"], poor["emoji_entropy_vague"]) == (1, 1, 0)
    assert poor["reached_of_reachable_vague"] < 0.4


def test_unsure_pictures_are_no_modes() -> None:
    even = torch.full((len(PROMPTS) * len(SEEDS), len(EMOJI)), 1 / len(EMOJI))
    unsure = emoji.describe(PROMPTS, Reading(even, even, even[:, : len(STYLES)]))
    assert (unsure["distinct_emoji_vague"], unsure["emoji_entropy_vague"], unsure["unsure"]) == (0, 0, 1)


def test_a_collapsed_models_histogram_is_far_from_the_teachers() -> None:
    rich, poor = (emoji.kinds(one.emoji, len(PROMPTS))[emoji.VAGUE] for one in varied_and_collapsed())
    assert metrics.histogram_distance(rich, rich).abs().max() < 1e-6
    assert metrics.histogram_distance(poor, rich).mean() > 0.4


def test_the_encoder_sees_a_larger_picture_as_it_sees_the_reduced_one() -> None:
    torch.manual_seed(0)
    encoder = EmojiEncoder().eval()
    small = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    large = small.repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(encoder.read(large).features, encoder.read(small).features)


def test_the_encoder_survives_saving(tmp_path) -> None:
    torch.manual_seed(0)
    encoder = EmojiEncoder().eval()
    encoder.save(tmp_path)
    images = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    before, after = encoder.read(images), EmojiEncoder.load(tmp_path).read(images)
    torch.testing.assert_close(before.features, after.features, rtol=0, atol=1e-2)
    assert torch.equal(before.emoji.argmax(1), after.emoji.argmax(1))
