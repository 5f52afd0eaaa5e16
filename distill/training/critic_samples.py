"""The student's samples that the fake score learns from: new ones, or the last ones again."""

from collections.abc import Mapping
from typing import Any

import torch

from distill.training import checkpoints
from worker.families.prompt_embeddings import PromptEmbedding

Samples = tuple[torch.Tensor, PromptEmbedding]
"""The student's samples float32 [B, C, H, W], and their prompts' embeddings."""


def is_drawing(turn: int, rollouts: int, turns: int) -> bool:
    """Return whether critic turn `turn` of a cycle draws new samples: `rollouts` draws are spread over `turns`."""
    return turn * rollouts // turns > (turn - 1) * rollouts // turns


class CriticSamples(dict[int, Samples]):
    """This rank's last samples on `device`, keyed by the number of the accumulated batch."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def state_dict(self) -> dict[str, Any]:
        """The samples of all ranks; every rank must call it."""
        own = {number: (x.cpu(), prompt.to(device="cpu").parts) for number, (x, prompt) in self.items()}
        return {"ranks": checkpoints.of_all_ranks(own)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        for number, samples in state_dict["ranks"][checkpoints.rank()].items():
            x, parts = samples
            self[number] = x.to(self.device), PromptEmbedding(**parts).to(device=self.device)
