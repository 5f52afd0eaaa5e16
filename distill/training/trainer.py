"""Train a student by DP-DMD: alternate critic and student turns, clip, average, log, checkpoint."""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import nn

from distill import embedding_cache, families, image_grid, teacher_pipeline
from distill.config import DistillConfig, read_prompts
from distill.evaluation.metrics import pairwise_diversity
from distill.method import dp_dmd
from distill.method.base import Batch, Networks
from distill.method.dp_dmd import Losses
from distill.method.guidance import conditional, guided
from distill.method.registry import METHODS
from distill.noise_schedule import Predict
from distill.training import models, processes, sharding, training_loop
from distill.training.critic_samples import CriticSamples, is_drawing
from distill.training.roles import Role

Prompt = tuple[torch.Tensor, torch.Tensor]
"""Embeddings of a batch: float32 [B, tokens, width] and pooled float32 [B, width]."""

FREE = {"steps", "save_every", "log_every", "embeddings"}
"""Settings that may change when a run goes on."""

GRID_PROMPTS = 16
GRID_SAMPLES = 4


class Trainer:
    """Teacher, student and fake score ("critic") with their optimisers, and the two kinds of turn.

    Raises ValueError, before any work, for an empty prompt file or a teacher folder of an unknown kind.
    """

    def __init__(self, config: DistillConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        torch.manual_seed(config.seed)
        if (found := teacher_pipeline.family(config.teacher)) != config.family:
            raise ValueError(f"family: {config.family}, but {config.teacher} is of family {found}")
        prompts = [*read_prompts(config.prompts), config.negative_prompt]
        self.accelerator = Accelerator(
            mixed_precision=config.precision,
            # A broadcast in every forward pass would overwrite what earlier steps of the rollout need in theirs.
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
        processes.check(self.accelerator, config)
        with self.accelerator.main_process_first():
            embeddings = config.embeddings or folder / "embeddings"
            self.embeddings = embedding_cache.fill(embeddings, config.teacher, prompts, config.max_sequence_length)
        pipeline = teacher_pipeline.load(config.teacher, text_encoders=False)
        self.family = families.of(pipeline)
        self.schedule = self.family.schedule(pipeline)
        self.vae = pipeline.vae.float().requires_grad_(False).to(self.accelerator.device)
        network = getattr(pipeline, self.family.denoiser).float()
        size = network.config.sample_size
        self.latent_shape = (network.config.in_channels, size, size)
        self.teacher, self.student, self.critic, self.average = models.build(
            network, self.family.blocks, config, self.accelerator
        )
        self.hparams = config.hyperparameters(self.schedule)
        self.method = METHODS[config.method](config, self.hparams, self._networks())
        learners = [*self.critic.weights.parameters(), *self.method.head.parameters()]
        self.critic_optimizer = _adamw(learners, config.critic_learning_rate)
        self.student_optimizer = _adamw(self.student.weights.parameters(), config.student_learning_rate)
        # A stream of its own for every rank: equal noise on all of them would shrink the batch to one rank's.
        self.stream = training_loop.RandomStream(config.seed * 100_003 + self.accelerator.process_index)
        # What all ranks must decide alike.
        self.common_stream = training_loop.RandomStream(config.seed)
        self.critic_samples = CriticSamples(self.accelerator.device)

    def train(self) -> None:
        """Train (or go on training) to the configured number of student updates; the last checkpoint has them all."""
        stateful = {
            "student": self.student.weights,
            "critic": self.critic.weights,
            "head": self.accelerator.unwrap_model(self.method.head),
            "average": self.average,
            "student_optimizer": self.student_optimizer,
            "critic_optimizer": self.critic_optimizer,
            "stream": self.stream,
            "common_stream": self.common_stream,
        }
        config = self.config
        if config.rollouts == 0:  # otherwise every cycle begins with samples of its own
            stateful["critic_samples"] = self.critic_samples
        settings = config.model_dump(mode="json", by_alias=True, exclude=FREE)
        prompts = hashlib.sha256("\n".join(self.embeddings.prompts).encode()).hexdigest()
        training_loop.run(
            self.folder,
            stateful,
            self.cycle,
            config.steps,
            save_every=config.save_every,
            log_every=config.log_every,
            sample=self.sample,
            settings=settings | {"prompts_sha256": prompts},
        )

    def cycle(self, index: int) -> dict[str, float]:
        """All critic turns, then one student turn; returns the telemetry. The first cycle begins with the warm-up."""
        turns = self.config.critic_updates + (self.config.critic_warmup if index == 0 else 0)
        metrics = [self.critic_turn(turn) for turn in range(turns)]
        critic = {name: sum(turn[name] for turn in metrics) / turns for name in metrics[0]} if turns else {}
        return critic | self.student_turn()

    def critic_turn(self, turn: int = 0) -> dict[str, float]:
        """The critic turn number `turn` of a cycle."""
        exit_step = dp_dmd.draw_exit_step(self.hparams, self.common_stream.generator)
        draws = not self.critic_samples or is_drawing(turn, self.config.rollouts, self.config.critic_updates)
        metrics = self._update(partial(self._critic_losses, draws, exit_step), self.critic, self.critic_optimizer)
        # "total" and "grad_norm" are the student's in the log.
        return {
            "critic_grad_norm" if name == "grad_norm" else name: metrics[name] for name in metrics if name != "total"
        }

    def student_turn(self) -> dict[str, float]:
        exit_step = dp_dmd.draw_exit_step(self.hparams, self.common_stream.generator)
        telemetry = self._update(partial(self._student_losses, exit_step), self.student, self.student_optimizer)
        self.average.update_parameters(self.student.weights)
        return telemetry

    def _critic_losses(self, draws: bool, exit_step: int | None, number: int) -> Losses:
        if draws:
            noise, prompt = self._draw()
            x = dp_dmd.sample(self._predict(self.student, prompt), noise, self.hparams, exit_step)
            self.critic_samples[number] = x, prompt
        x, prompt = self.critic_samples[number]
        batch = self._batch(self.critic, prompt)
        loss = dp_dmd.critic_loss(batch.critic, x, batch.generator, self.hparams)
        total, parts = loss, {"critic": loss}
        for name, (weight, term) in self.method.critic_terms(batch).items():
            parts[name] = term(x)
            total = total + weight * parts[name]
        return Losses(total, parts, x)

    def _student_losses(self, exit_step: int | None, number: int) -> Losses:
        noise, prompt = self._draw()
        # Not through a wrapper: it would wait for gradients of the critic, which has none in this turn.
        alone = replace(self.critic, network=self.accelerator.unwrap_model(self.critic.network))
        found = dp_dmd.student_losses(
            self._predict(self.student, prompt),
            self._predict(self.critic, prompt),
            self._guided_teacher(prompt),
            noise,
            self.stream.generator,
            self.hparams,
            exit_step=exit_step,
            terms=self.method.student_terms(self._batch(alone, prompt), noise),
        )
        self.critic_samples[number] = found.sample, prompt
        return found

    @torch.no_grad()
    def sample(self, done: int) -> dict[str, float]:
        """Draw the averaged student's pictures: four seeds (rows) of 16 prompts spread over the prompt file.

        Returns how far apart the seeds' latents are, by the paper's measure (Eq. 9), as a mean over the prompts.
        """
        if not (self.accelerator.is_main_process or sharding.is_sharded(self.student.network)):
            return {}
        prompts = torch.linspace(0, len(self.embeddings.prompts) - 2, GRID_PROMPTS).long().repeat(GRID_SAMPLES)
        noise = torch.randn(len(prompts), *self.latent_shape, generator=torch.Generator().manual_seed(0))
        device, batch = self.accelerator.device, self.config.batch
        # Not through a wrapper, whose ranks would wait for each other.
        alone = replace(self.student, network=self.accelerator.unwrap_model(self.student.network))
        # No more at once than a training pass has: large images would not fit.
        solved = []
        with self.student.holding(self.average.module):
            for rows, state in zip(prompts.split(batch), noise.split(batch), strict=True):
                prompt, pooled = self.embeddings.rows(rows)
                student = self._predict(alone, (prompt.to(device), pooled.to(device)))
                solved.append(self.schedule.solve(student, state.to(device), self.hparams.student_grid))
        if not self.accelerator.is_main_process:
            return {}
        pixels, latents = torch.cat([self.decode(part).cpu() for part in solved]), torch.cat(solved)
        image_grid.save_grid(image_grid.to_uint8(pixels), GRID_PROMPTS, self.folder / f"grid-{done:06}.png", scale=2)
        by_prompt = latents.flatten(1).unflatten(0, (GRID_SAMPLES, GRID_PROMPTS)).transpose(0, 1)
        return {"latent_diversity": pairwise_diversity(by_prompt).mean().item()}

    def _networks(self) -> Networks:
        network: Any = self.accelerator.unwrap_model(self.critic.network)
        layer, width = self.family.features(network)
        prepare, device = self.accelerator.prepare_model, self.accelerator.device
        return Networks(self.critic.weights, layer, width, self.decode, prepare, device)

    def _batch(self, critic: Role, prompt: Prompt) -> Batch:
        teacher_sample = partial(self._teacher_sample, prompt=prompt)
        return Batch(self._predict(critic, prompt), teacher_sample, self.stream.generator)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """float32 latents → float32 images [B, 3, H, W] in about [−1, 1]; keeps gradients."""
        scaling, shift = self.vae.config.scaling_factor, self.vae.config.get("shift_factor") or 0.0
        return self.vae.decode(latents / scaling + shift).sample

    @torch.no_grad()
    def _teacher_sample(self, noise: torch.Tensor, prompt: Prompt) -> torch.Tensor:
        """The guided teacher's whole ODE from `noise`."""
        return self.schedule.solve(self._guided_teacher(prompt), noise, self.hparams.teacher_grid)

    def _guided_teacher(self, prompt: Prompt) -> Predict:
        return guided(self._predict(self.teacher, prompt), self._unconditional(), self.config.guidance_scale)

    def _predict(self, network: Role, prompt: Prompt) -> Predict:
        return conditional(network, *prompt, family=self.family, schedule=self.schedule)

    def _draw(self) -> tuple[torch.Tensor, Prompt]:
        """Initial noise float32 [B, C, H, W] and the embeddings of a batch of prompts."""
        batch, generator, device = self.config.batch, self.stream.generator, self.accelerator.device
        rows = torch.randint(len(self.embeddings.prompts) - 1, (batch,), generator=generator)
        noise = torch.randn(batch, *self.latent_shape, generator=generator)
        prompt, pooled = self.embeddings.rows(rows)
        return noise.to(device), (prompt.to(device), pooled.to(device))

    def _unconditional(self) -> Predict:
        prompt, pooled = (part.to(self.accelerator.device) for part in self.embeddings.of(self.config.negative_prompt))
        batch = self.config.batch
        return self._predict(self.teacher, (prompt.expand(batch, -1, -1), pooled.expand(batch, -1)))

    def _update(
        self, losses_of_batch: Callable[[int], Losses], role: Role, optimizer: torch.optim.Optimizer
    ) -> dict[str, float]:
        """Backward for every accumulated batch, clip, step; returns the telemetry, averaged over these batches."""
        telemetry: dict[str, float] = {}
        batches = self.config.accumulate
        for number in range(batches):
            last = number == batches - 1
            with nullcontext() if last else self.accelerator.no_sync(role.network):
                losses = losses_of_batch(number)
                role.activate()
                self.accelerator.backward(losses.total / batches)
            for name, value in {"total": losses.total, **losses.parts}.items():
                telemetry[name] = telemetry.get(name, 0.0) + value.item() / batches
        learners = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if self.config.lora_rank:
            processes.average_gradients(self.accelerator, role.weights)
        # Not by accelerate, which compares sharded parameters by value. torch's own counts the shards of all ranks.
        norm = sharding.whole(nn.utils.clip_grad_norm_(learners, self.config.max_grad_norm))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return processes.mean(self.accelerator, telemetry | {"grad_norm": norm.item()})


def _adamw(learners: Iterable[nn.Parameter], rate: float) -> torch.optim.AdamW:
    # Fused: on a CPU, too, a quarter of the time that it takes parameter by parameter.
    return torch.optim.AdamW(learners, rate, weight_decay=0.0, fused=True)
