"""The captions of training: vague phrases, colours, many wordings, and none of the evaluation's."""

import numpy as np
import torch

from distill.emoji import benchmark
from distill.emoji.artwork import Artwork
from distill.emoji.captions import STYLE_WORDS, Captions
from distill.emoji.words import vague, wordings
from distill.emoji.world import EMOJI, STYLES

CAPTIONS = Captions(
    Artwork(np.zeros((len(EMOJI), 8, 8, 3), np.uint8), np.arange(len(EMOJI)), np.arange(len(EMOJI)) % 5)
)
PICTURES = torch.arange(len(EMOJI)).repeat(8)


def said(seed: int) -> tuple[torch.Tensor, list[str]]:
    """Captions drawn for every picture eight times, and a wording of each."""
    generator = torch.Generator().manual_seed(seed)
    drawn = CAPTIONS.draw(PICTURES, generator)
    return drawn, CAPTIONS.say(drawn, generator)


def caption(subject: str, style: str | None = None) -> int:
    number = STYLE_WORDS.index(style) + 1 if style else 0
    return CAPTIONS.subjects.index(subject) * (len(STYLES) + 1) + number


def test_no_wording_of_the_evaluation_is_ever_said() -> None:
    held_out = [form.format("").split() for form in ("an icon of a {}", "one {} please", "drawing: {}")]
    _, texts = said(0)
    for text in texts:
        words = text.lower().split()
        assert not any(set(form) <= set(words) for form in held_out), text
        assert words[:1] != ["the"], text
    assert not {text.lower() for text in (*texts, *CAPTIONS.prompt_lines())} & set(benchmark.prompts()[benchmark.NAMES])


def test_a_text_names_its_subject_and_the_same_dice_say_the_same() -> None:
    drawn, texts = said(1)
    assert texts == said(1)[1]
    for number, text in zip(drawn.tolist(), texts, strict=True):
        subject, _ = CAPTIONS.meaning(number)
        assert f" {subject} " in f" {text.lower().replace(',', '')} "
    assert len(set(texts)) > 0.6 * len(texts)


def test_vague_phrases_mean_every_thing_of_their_class_or_colour() -> None:
    def meant(subject: str, style: str | None = None) -> set[str]:
        return {EMOJI[number].char for number in (CAPTIONS.posterior[caption(subject, style)] > 0).nonzero()[:, 0]}

    of_class = {word: {one.char for one in EMOJI if word in one.classes} for one in EMOJI for word in one.classes}
    assert meant("something to eat") == of_class["food"]
    assert meant("bug") == of_class["insect"]
    assert meant("red fruit") == set("🍎🍓🍒")
    assert meant("red heart") == {"❤"}, "a name stays a name"
    assert 0 < len(meant("something green", "flat")) < len(meant("something green"))


def test_every_word_for_a_class_or_colour_is_of_the_world_and_no_name() -> None:
    names = {name for one in EMOJI for name in one.names}
    classes = {word for one in EMOJI for word in one.classes}
    assert vague.SYNONYMS.keys() == classes
    assert not names & {phrase for phrases in vague.SYNONYMS.values() for phrase in phrases}
    assert {char for chars in vague.COLOURS.values() for char in chars} <= {one.char for one in EMOJI}
    assert wordings.OTHER_STYLE_WORDS.keys() == set(STYLE_WORDS)
