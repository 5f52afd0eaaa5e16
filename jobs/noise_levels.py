"""The step at which a picture enters a few-step sampler."""

from collections.abc import Sequence

from jobs.models import ModelCard


def entry_step(noise_levels: Sequence[float], strength: float) -> int:
    """Return the step at which a picture enters that is to change by `strength`, 0 to 1; past the last for none at all.

    `noise_levels` are the shares of noise with which each step begins, then 0. The nearest counts; for 1 the first.
    """
    if strength == 1:
        return 0
    apart = [abs(level - strength) for level in noise_levels]
    return apart.index(min(apart))


def levels_at(card: ModelCard, size: tuple[int, int]) -> list[float]:
    """Return the noise levels of images of `size`, (height, width), one of the card's."""
    return card.noise_levels if card.size_noise_levels is None else card.size_noise_levels[card.sizes.index(size)]
