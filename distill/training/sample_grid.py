"""Sixteen prompts with four seeds each, always the same: what a run shows and measures of itself at every save.

The teacher draws the same prompts and seeds once, so that there is something to compare with.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from distill import image_grid
from distill.evaluation.metrics import pairwise_diversity
from worker.pixels import to_uint8

GRID_PROMPTS = 16
GRID_SAMPLES = 4
TEACHER = "teacher-samples.safetensors"

Follow = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(numbers of prompts int64 [B], their noise float32 [B, C, h, w] on the device) → latents like the noise."""


class SampleGrid:
    """The grid's prompts and noise, split over the processes of `accelerator`.

    `prompts` int64 [rows] and `noise` float32 [rows, C, h, w] lie seed after seed, each with all prompts in order.
    """

    def __init__(self, prompts: int, latent_shape: tuple[int, int, int], batch: int, accelerator: Accelerator) -> None:
        self.prompts = torch.linspace(0, prompts - 1, GRID_PROMPTS).long().repeat(GRID_SAMPLES)
        self.noise = torch.randn(len(self.prompts), *latent_shape, generator=torch.Generator().manual_seed(0))
        self.batch, self.accelerator = batch, accelerator

    @torch.no_grad()
    def solve(self, follow: Follow) -> torch.Tensor:
        """Let every process follow its share, in batches no larger than in training; all get all of it, on the CPU.

        Every process must call it. Shares are equally large, as sharded networks need: the last repeats its rows.
        """
        share = -(-len(self.prompts) // self.accelerator.num_processes)
        start = share * self.accelerator.process_index
        own = torch.arange(start, start + share).clamp_max(len(self.prompts) - 1)
        device = self.accelerator.device
        solved = [follow(self.prompts[rows], self.noise[rows].to(device)) for rows in own.split(self.batch)]
        gathered = self.accelerator.gather(torch.cat(solved))
        return gathered[: len(self.prompts)].cpu()

    def by_prompt(self, latents: torch.Tensor) -> torch.Tensor:
        """[rows, …] → [prompts, seeds, width]."""
        return latents.flatten(1).unflatten(0, (GRID_SAMPLES, GRID_PROMPTS)).transpose(0, 1)

    def save(self, latents: torch.Tensor, decode: Callable[[torch.Tensor], torch.Tensor], path: Path) -> None:
        """Write the pictures of `latents` as a PNG, a column for each prompt; decoded one at a time, for their size."""
        with torch.no_grad():
            decoded = (decode(one.to(self.accelerator.device)) for one in latents.split(1))
            pixels = [image_grid.shrunk(to_uint8(one).cpu().numpy()) for one in decoded]
        image_grid.save_grid(np.concatenate(pixels), GRID_PROMPTS, path, scale=2)


class TeacherSamples:
    """The guided teacher's part of the grid: `latents` at the end of its ODE and `anchors`, the targets x̃ of the
    student's first step; float32 [rows, C, h, w] on the CPU."""

    def __init__(self, latents: torch.Tensor, anchors: torch.Tensor) -> None:
        self.latents, self.anchors = latents, anchors

    @classmethod
    def kept(cls, folder: Path, grid: SampleGrid, sample: Follow, anchor: Follow) -> "TeacherSamples":
        """Read them from `folder`, or draw and keep them there. Every process must call it."""
        path = folder / TEACHER
        found = [load_file(path)] if path.is_file() else []
        if grid.accelerator.num_processes > 1:
            # The first process may be about to write it: all read, or all draw.
            have = torch.tensor([len(found)], device=grid.accelerator.device)
            found = found if bool(grid.accelerator.gather(have).all()) else []
        if found and found[0]["latents"].shape == grid.noise.shape:
            return cls(**found[0])
        drawn = cls(grid.solve(sample), grid.solve(anchor))
        if grid.accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            save_file({"latents": drawn.latents, "anchors": drawn.anchors}, path.with_suffix(".partial"))
            path.with_suffix(".partial").rename(path)
        return drawn


def anchor_r2(first: torch.Tensor, anchors: torch.Tensor) -> float:
    """R² of how the student's first step depends on the noise: [prompts, seeds, width] of its clean estimates and of
    their targets x̃, each less its mean over the seeds. 1: it follows the teacher; 0: as good as no dependence."""
    centred, wanted = (part - part.mean(1, keepdim=True) for part in (first, anchors))
    return 1 - float((centred - wanted).square().sum() / wanted.square().sum())


def energy_distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Energy distance (Székely & Rizzo 2013) of a prompt's samples from the teacher's, as a share of the mean distance
    between two of the teacher's; mean over the prompts. [prompts, seeds, width] each.

    2·E‖x − y‖ − E‖x − x′‖ − E‖y − y′‖ is 0 for equal distributions alone: it grows with lost diversity as with blur,
    noise or a shift. Samples of equal noise are alike and not compared.
    """
    between, within, own = (_mean_distance(*pair) for pair in ((ours, theirs), (ours, ours), (theirs, theirs)))
    return float(((2 * between - within - own) / own).mean())


def diversity(latents: torch.Tensor) -> float:
    """The pairwise diversity (Eq. 9) of [prompts, seeds, width], as a mean over the prompts."""
    return pairwise_diversity(latents).mean().item()


def _mean_distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The mean distance of a prompt's samples at different places: [prompts]."""
    # Without matrix products: those of nearly equal vectors lose the digits that matter here.
    each = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
    samples = first.shape[1]
    return (each.sum((1, 2)) - each.diagonal(dim1=1, dim2=2).sum(1)) / (samples * (samples - 1))
