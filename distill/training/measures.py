"""Measures of a run at every save, beside its teacher's of the same prompts and noise."""

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn

from distill.method import dp_dmd
from distill.method.dp_dmd import Hyperparameters
from distill.training import processes, sample_grid, sharding
from distill.training.sample_grid import SampleGrid, TeacherSamples
from worker.sampling.noise_schedule import full_t

if TYPE_CHECKING:
    from distill.training.trainer import Trainer


class Measures:
    """Measures of the averaged student of `trainer`. Every process must ask for each of them."""

    def __init__(self, trainer: "Trainer") -> None:
        self.trainer = trainer
        prompts = len(trainer.embeddings.prompts) - 1
        self.grid = SampleGrid(prompts, trainer.latent_shape, trainer.config.batch, trainer.accelerator)

    @torch.no_grad()
    def sample(self, done: int) -> dict[str, float]:
        """Save the grid of the averaged student's pictures; returns measures of it, beside the teacher's."""
        trainer = self.trainer
        with trainer.student.holding(trainer.average.module):
            latents, r2 = self.grid.solve(self._student_sample), self.anchor_r2()
        ours, theirs = self.grid.by_prompt(latents), self.grid.by_prompt(self.teacher.latents)
        if trainer.accelerator.is_main_process:
            self.grid.save(latents, trainer.decode, trainer.folder / f"grid-{done:06}.png")
        measured = {
            "latent_diversity": sample_grid.diversity(ours),
            "diversity_kept": sample_grid.diversity(ours) / sample_grid.diversity(theirs),
            "energy_distance": sample_grid.energy_distance(ours, theirs),
            "anchor_r2": r2,
        }
        if trainer.hparams.distribution_matching and trainer.hparams.lambda_ > 0:
            with torch.enable_grad():
                measured["gradient_ratio"] = self.gradient_ratio(trainer.hparams, done)
        return measured

    def gradient_ratio(self, hparams: Hyperparameters, seed: int) -> float:
        """λ·|gradient of the diversity loss| / |gradient of distribution matching|, over the student's parameters.

        For one batch of each process, whose random numbers follow from `seed` and leave the run's own as they are.
        """
        alone = (replace(hparams, distribution_matching=False), replace(hparams, lambda_=0.0))
        diversity, matching = (self._gradient_norm(one, seed) for one in alone)
        return diversity / max(matching, 1e-12)

    def _gradient_norm(self, hparams: Hyperparameters, seed: int) -> float:
        trainer = self.trainer
        generator = torch.Generator().manual_seed(seed * 100_003 + trainer.accelerator.process_index)
        student, critic = trainer.unwrapped(trainer.student), trainer.unwrapped(trainer.critic)
        noise, prompt = trainer.draw(generator)
        exit_step = dp_dmd.draw_exit_step(hparams, torch.Generator().manual_seed(seed))
        found = dp_dmd.student_losses(
            trainer.predict(student, prompt),
            trainer.predict(critic, prompt),
            trainer.guided_teacher(prompt),
            noise,
            generator,
            hparams,
            exit_step=exit_step,
        )
        student.activate()
        found.total.backward()
        learners = list(student.weights.parameters())
        norm = sharding.whole(nn.utils.get_total_norm([each.grad for each in learners if each.grad is not None])).item()
        for each in learners:
            each.grad = None
        return processes.mean(trainer.accelerator, {"norm": norm})["norm"]

    @torch.no_grad()
    def anchor_r2(self) -> float:
        """R² of how the first step of the student, as its weights are, depends on the noise: see `sample_grid`."""
        first = self.grid.solve(self._first_step)
        return sample_grid.anchor_r2(self.grid.by_prompt(first), self.grid.by_prompt(self.teacher.anchors))

    @cached_property
    def teacher(self) -> TeacherSamples:
        """The guided teacher's samples and anchors of the grid, drawn once in a run."""
        trainer = self.trainer
        drawn = TeacherSamples.kept(trainer.folder, self.grid, self._teacher_sample, self._anchor)
        path = trainer.folder / "grid-teacher.png"
        if trainer.accelerator.is_main_process and not path.exists():
            self.grid.save(drawn.latents, trainer.decode, path)
        return drawn

    def _student_sample(self, rows: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        trainer = self.trainer
        predict = trainer.predict(trainer.unwrapped(trainer.student), trainer.prompt(rows))
        return trainer.schedule.solve(predict, noise, trainer.hparams.student_grid)

    def _first_step(self, rows: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        trainer = self.trainer
        t = full_t(trainer.hparams.student_grid[0], noise)
        predict = trainer.predict(trainer.unwrapped(trainer.student), trainer.prompt(rows))
        return trainer.schedule.to_x0(noise, predict(noise, t), t)

    def _teacher_sample(self, rows: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return self.trainer.teacher_sample(noise, self.trainer.prompt(rows))

    def _anchor(self, rows: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        trainer = self.trainer
        return dp_dmd.anchor_target(trainer.guided_teacher(trainer.prompt(rows)), noise, trainer.hparams)
