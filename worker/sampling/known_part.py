"""Inpainting: the part of a picture that stays, put back after every step at the noise level of the next."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class KnownPart:
    """The latents `clean` of a picture, with the `noise` of its image, fp32 [C, h, w] each, and `painted` fp32 [h, w]:
    1 where the image is painted anew, 0 where the picture stays, and between the two at an edge.

    `levels` fp32 [steps + 1, 2] are those of the step table.
    """

    clean: torch.Tensor
    noise: torch.Tensor
    painted: torch.Tensor
    levels: torch.Tensor

    def put_back(self, latents: torch.Tensor, step: int) -> torch.Tensor:
        """Return `latents` [C, h, w], with which step number `step` begins, with the known part in its place."""
        return self._mixed(latents, entered(self.clean, self.noise, self.levels[step]))

    def put_back_clean(self, pred_x0: torch.Tensor) -> torch.Tensor:
        """Return predicted clean latents with the known part in its place."""
        return self._mixed(pred_x0, self.clean)

    def _mixed(self, made: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return torch.lerp(known, made, self.painted.expand_as(made))


def entered(clean: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Return the state of `clean` latents at a noise level (α, σ), fp32 [2]: α·x + σ·ε."""
    alpha, sigma = level.unbind()
    return alpha * clean + sigma * noise
