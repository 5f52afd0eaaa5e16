"""Captions of the emoji artwork, and which pictures fit a caption how well.

A caption is a subject (a name, a vague phrase or nothing) with or without a style word. Since every
picture draws its captions with known probabilities, the posterior P(picture | caption) is exact.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

from distill.emoji.artwork import Artwork
from distill.emoji.words import vague
from distill.emoji.words.wordings import DICE, plain, worded
from distill.emoji.world import EMOJI, EMPTY, STYLES

NAME_SHARE, VAGUE_SHARE, EMPTY_SHARE = 0.50, 0.40, 0.10
STYLED_SHARE = 1 / 3
STYLE_WORDS = tuple(STYLES.values())


@dataclass(frozen=True)
class Captions:
    """All captions of an artwork set; caption c = (subject s, style k) has number s·(styles+1) + k, k = 0: none."""

    artwork: Artwork

    @cached_property
    def subjects(self) -> list[str]:
        """The empty one, the names, the vague phrases."""
        names = [name for emoji in EMOJI for name in emoji.names]
        return [EMPTY, *names, *dict.fromkeys(phrase for emoji in EMOJI for phrase in vague.phrases(emoji))]

    @cached_property
    def subject_given_emoji(self) -> torch.Tensor:
        """float32 [emoji, subjects]: how an emoji draws its subject; rows sum to 1."""
        number = {subject: index for index, subject in enumerate(self.subjects)}
        shares = torch.zeros(len(EMOJI), len(self.subjects))
        for row, emoji in zip(shares, EMOJI, strict=True):
            row[number[EMPTY]] = EMPTY_SHARE
            row[[number[name] for name in emoji.names]] = NAME_SHARE / len(emoji.names)
            for phrase, share in vague.phrases(emoji).items():
                row[number[phrase]] = VAGUE_SHARE * share
        return shares

    @cached_property
    def posterior(self) -> torch.Tensor:
        """float32 [captions, pictures]: P(picture | caption); rows sum to 1."""
        fits_subject = self.subject_given_emoji[torch.from_numpy(self.artwork.emoji)].T
        style = torch.from_numpy(self.artwork.style)
        fits_style = torch.stack([torch.ones(len(style)), *[(style == k).float() for k in range(len(STYLES))]])
        weights = (fits_subject[:, None] * fits_style[None]).flatten(0, 1)
        return weights / weights.sum(1, keepdim=True).clamp_min(1e-12)

    def draw(self, pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One caption number for each of `pictures` (int64 [B] → int64 [B]). The empty one never has a style."""
        emoji = torch.from_numpy(self.artwork.emoji)[pictures]
        style = torch.from_numpy(self.artwork.style)[pictures]
        subject = torch.multinomial(self.subject_given_emoji[emoji], 1, generator=generator)[:, 0]
        styled = (torch.rand(len(pictures), generator=generator) < STYLED_SHARE) & (subject != 0)
        return subject * (len(STYLES) + 1) + torch.where(styled, style + 1, 0)

    def say(self, captions: torch.Tensor, generator: torch.Generator, nonsense: bool = True) -> list[str]:
        """A wording drawn for each of `captions`, int64 [B]; without `nonsense`, of known words alone."""
        dice = torch.randint(2**31, (len(captions), DICE), generator=generator).tolist()
        meant = [self.meaning(number) for number in captions.tolist()]
        return [
            worded(subject, style, thrown, nonsense) if subject else EMPTY
            for (subject, style), thrown in zip(meant, dice, strict=True)
        ]

    def meaning(self, caption: int) -> tuple[str, str | None]:
        """Subject and style of the caption numbered `caption`."""
        subject, style = divmod(caption, len(STYLES) + 1)
        return self.subjects[subject], STYLE_WORDS[style - 1] if style else None

    def prompt_lines(self) -> list[str]:
        """Prompts to distil with: every name plain and worded in one style, every vague phrase so in every style."""
        generator = torch.Generator().manual_seed(5)
        names = {name for emoji in EMOJI for name in emoji.names}
        lines: list[str] = []
        for number, subject in enumerate(self.subjects[1:], start=1):
            one = 1 + number % len(STYLE_WORDS)
            styles = (0, one) if subject in names else range(1 + len(STYLES))
            drawn = torch.tensor([number * (1 + len(STYLES)) + style for style in styles])
            lines += [plain(subject, None), *self.say(drawn, generator, nonsense=False)]
        return list(dict.fromkeys(lines))
