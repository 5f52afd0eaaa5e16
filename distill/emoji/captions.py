"""Captions of the emoji artwork, and which pictures fit a caption how well.

A caption is a subject (a name, a class word or nothing) with or without a style word. Since every
picture draws its captions with known probabilities, the posterior P(picture | caption) is exact.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

from distill.emoji.artwork import Artwork
from distill.emoji.world import EMOJI, EMPTY, STYLES

NAME_SHARE, CLASS_SHARE, EMPTY_SHARE = 0.55, 0.35, 0.10
STYLED_SHARE = 1 / 3
PLAIN_WORDINGS = (
    "{subject}",
    "a {subject}",
    "A {subject}",
    "a picture of a {subject}",
    "draw a {subject}",
    "some {subject}",
    "my nice {subject}",
    "this is a {subject}",
    "{subject} for me",
    "i want a {subject}",
    "a small {subject} on white",
    "image of a {subject}",
)
STYLED_WORDINGS = (
    "{style} {subject}",
    "a {style} {subject}",
    "{subject}, {style} style",
    "A {subject} in {style} style",
    "draw a {style} {subject}",
    "some {style} {subject}",
    "my {subject}, {style}",
    "this is a {subject}, {style} style",
    "{style} {subject} for me",
    "i want a {style} {subject}",
    "a small {style} {subject} on white",
    "{style} image of a {subject}",
)
STYLE_WORDS = tuple(STYLES.values())


@dataclass(frozen=True)
class Captions:
    """All captions of an artwork set; caption c = (subject s, style k) has number s·(styles+1) + k, k = 0: none."""

    artwork: Artwork

    @cached_property
    def subjects(self) -> list[str]:
        names = [name for emoji in EMOJI for name in emoji.names]
        classes = list(dict.fromkeys(word for emoji in EMOJI for word in emoji.classes))
        return [EMPTY, *names, *classes]

    @cached_property
    def subject_given_emoji(self) -> torch.Tensor:
        """float32 [emoji, subjects]: how an emoji draws its subject; rows sum to 1."""
        number = {subject: index for index, subject in enumerate(self.subjects)}
        shares = torch.zeros(len(EMOJI), len(self.subjects))
        for row, emoji in zip(shares, EMOJI, strict=True):
            row[number[EMPTY]] = EMPTY_SHARE
            row[[number[name] for name in emoji.names]] = NAME_SHARE / len(emoji.names)
            row[[number[word] for word in emoji.classes]] = CLASS_SHARE / len(emoji.classes)
        return shares

    @cached_property
    def posterior(self) -> torch.Tensor:
        """float32 [captions, pictures]: P(picture | caption); rows sum to 1."""
        fits_subject = self.subject_given_emoji[torch.from_numpy(self.artwork.emoji)].T
        style = torch.from_numpy(self.artwork.style)
        fits_style = torch.stack([torch.ones(len(style)), *[(style == k).float() for k in range(len(STYLES))]])
        weights = (fits_subject[:, None] * fits_style[None]).flatten(0, 1)
        return weights / weights.sum(1, keepdim=True).clamp_min(1e-12)

    @cached_property
    def wordings(self) -> list[tuple[str, ...]]:
        """Every caption's wordings; all captions have the same number of them."""
        return [wordings(subject, style) for subject in self.subjects for style in (None, *STYLE_WORDS)]

    def draw(self, pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One caption number for each of `pictures` (int64 [B] → int64 [B]). The empty one never has a style."""
        emoji = torch.from_numpy(self.artwork.emoji)[pictures]
        style = torch.from_numpy(self.artwork.style)[pictures]
        subject = torch.multinomial(self.subject_given_emoji[emoji], 1, generator=generator)[:, 0]
        styled = (torch.rand(len(pictures), generator=generator) < STYLED_SHARE) & (subject != 0)
        return subject * (len(STYLES) + 1) + torch.where(styled, style + 1, 0)

    def prompt_lines(self) -> list[str]:
        """Prompts to distil with: every name plain and in one style, every class word in two wordings of all."""
        names = {name for emoji in EMOJI for name in emoji.names}
        lines: list[str] = []
        styles: tuple[str | None, ...]
        for number, subject in enumerate(self.subjects):
            if subject in names:
                styles, forms = (None, STYLE_WORDS[number % len(STYLE_WORDS)]), 1
            elif subject != EMPTY:
                styles, forms = (None, *STYLE_WORDS), 2
            else:
                continue
            for turn, style in enumerate(styles):
                said = wordings(subject, style)
                lines += [said[(number + turn + form) % len(said)] for form in range(forms)]
        return lines


def wordings(subject: str, style: str | None) -> tuple[str, ...]:
    """The ways to say it."""
    if subject == EMPTY:
        return (EMPTY,) * len(PLAIN_WORDINGS)
    forms = STYLED_WORDINGS if style else PLAIN_WORDINGS
    return tuple(form.format(subject=subject, style=style) for form in forms)
