"""Train a student: alternate critic and student turns, clip gradients, average weights, log, checkpoint."""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill import embedding_cache, image_grid, teacher_pipeline
from distill.config import DistillConfig, read_prompts
from distill.evaluation.metrics import pairwise_diversity
from distill.method import dp_dmd
from distill.method.base import Batch, Networks
from distill.method.dp_dmd import Losses
from distill.method.guidance import conditional, guided
from distill.method.registry import METHODS
from distill.training import models, processes, sharding, training_loop
from distill.training.critic_samples import CriticSamples, is_drawing
from distill.training.roles import Role
from worker.families import registry
from worker.families.prompt_embeddings import PromptEmbedding
from worker.pixels import to_uint8
from worker.sampling.noise_schedule import Predict

Prompt = PromptEmbedding
"""Embeddings of a batch, in float32."""

FREE = {"steps", "save_every", "log_every", "embeddings"}
"""Settings that may change when a run resumes."""

GRID_PROMPTS = 16
GRID_SAMPLES = 4


class Trainer:
    """Teacher, student and fake score ("critic") with their optimisers, and a turn of each of the latter two.

    Raises ValueError, before any work, for an empty prompt file or a teacher folder of an unknown kind.
    """

    def __init__(self, config: DistillConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        torch.manual_seed(config.seed)
        if (found := teacher_pipeline.family(config.teacher).name) != config.family:
            raise ValueError(f"family: {config.family}, but {config.teacher} is of family {found}")
        prompts = [*read_prompts(config.prompts), config.negative_prompt]
        self.accelerator = processes.accelerator(config)
        with self.accelerator.main_process_first():
            embeddings = config.embeddings or folder / "embeddings"
            self.embeddings = embedding_cache.fill(embeddings, config.teacher, prompts, config.max_sequence_length)
        pipeline = teacher_pipeline.load(config.teacher, text_encoders=False)
        self.family = registry.of(pipeline)
        self.schedule = self.family.noise_schedule(pipeline)
        self.vae = pipeline.vae.float().requires_grad_(False).to(self.accelerator.device)
        network = getattr(pipeline, self.family.denoiser).float()
        self.size = self.family.native_size(pipeline)
        self.latent_shape = self.family.latent_shape(pipeline, self.size)
        self.teacher, self.student, self.critic, self.average = models.build(
            network, self.family, config, self.accelerator
        )
        self.hparams = config.hyperparameters(self.schedule)
        self.method = METHODS[config.method](config, self.hparams, self._networks())
        learners = [*self.critic.weights.parameters(), *self.method.head.parameters()]
        self.critic_optimizer = _adamw(learners, config.critic_learning_rate)
        self.student_optimizer = _adamw(self.student.weights.parameters(), config.student_learning_rate)
        # A stream for each rank: with equal noise on all ranks, the batch would be no larger than one rank's.
        self.stream = training_loop.RandomStream(config.seed * 100_003 + self.accelerator.process_index)
        # The same on all ranks, for decisions that they share.
        self.common_stream = training_loop.RandomStream(config.seed)
        self.critic_samples = CriticSamples(self.accelerator.device)

    def train(self) -> None:
        """Train, or resume, up to the configured number of student updates, after which there is a checkpoint."""
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
        if config.rollouts == 0:  # otherwise every cycle starts with new samples
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
        """Run the critic turns and one student turn; returns the telemetry. The first cycle includes the warm-up."""
        turns = self.config.critic_updates + (self.config.critic_warmup if index == 0 else 0)
        metrics = [self.critic_turn(turn) for turn in range(turns)]
        critic = {name: sum(turn[name] for turn in metrics) / turns for name in metrics[0]} if turns else {}
        return critic | self.student_turn()

    def critic_turn(self, turn: int = 0) -> dict[str, float]:
        """Run critic turn number `turn` of a cycle; returns the telemetry."""
        exit_step = dp_dmd.draw_exit_step(self.hparams, self.common_stream.generator)
        draws = not self.critic_samples or is_drawing(turn, self.config.rollouts, self.config.critic_updates)
        metrics = self._update(partial(self._critic_losses, draws, exit_step), self.critic, self.critic_optimizer)
        # "total" and "grad_norm" are the student's in the log.
        return {
            "critic_grad_norm" if name == "grad_norm" else name: metrics[name] for name in metrics if name != "total"
        }

    def student_turn(self) -> dict[str, float]:
        """Run one student turn; returns the telemetry."""
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
        # Unwrapped: the critic has no gradients in this turn.
        batch = self._batch(self._unwrapped(self.critic), prompt)
        found = dp_dmd.student_losses(
            self._predict(self.student, prompt),
            self._predict(self.critic, prompt),
            self._guided_teacher(prompt),
            noise,
            self.stream.generator,
            self.hparams,
            exit_step=exit_step,
            terms=self.method.student_terms(batch, noise),
        )
        self.critic_samples[number] = found.sample, prompt
        return found

    @torch.no_grad()
    def sample(self, done: int) -> dict[str, float]:
        """Save a grid of the averaged student's images: four seeds (rows) of 16 prompts spread over the prompt file.

        Returns the pairwise diversity of the seeds' latents (Eq. 9) as a mean over the prompts.
        """
        if not (self.accelerator.is_main_process or sharding.is_sharded(self.student.network)):
            return {}
        batches = self._grid_latents()
        if not self.accelerator.is_main_process:
            return {}
        pixels = torch.cat([to_uint8(self.decode(batch)).cpu() for batch in batches]).numpy()
        latents = torch.cat(batches)
        image_grid.save_grid(pixels, GRID_PROMPTS, self.folder / f"grid-{done:06}.png", scale=2)
        by_prompt = latents.flatten(1).unflatten(0, (GRID_SAMPLES, GRID_PROMPTS)).transpose(0, 1)
        return {"latent_diversity": pairwise_diversity(by_prompt).mean().item()}

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode float32 latents to float32 images [B, 3, H, W] in about [−1, 1]; keeps gradients."""
        return self.family.decode(self.vae, latents)

    def _grid_latents(self) -> list[torch.Tensor]:
        """Sample the averaged student: float32 [B, C, H, W], seed after seed, in batches."""
        prompts = torch.linspace(0, len(self.embeddings.prompts) - 2, GRID_PROMPTS).long().repeat(GRID_SAMPLES)
        noise = torch.randn(len(prompts), *self.latent_shape, generator=torch.Generator().manual_seed(0))
        device, batch = self.accelerator.device, self.config.batch
        student = self._unwrapped(self.student)
        solved = []
        with self.student.holding(self.average.module):
            # In batches no larger than in training: large images would not fit otherwise.
            for rows, state in zip(prompts.split(batch), noise.split(batch), strict=True):
                predict = self._predict(student, self.embeddings.rows(rows).to(device=device))
                solved.append(self.schedule.solve(predict, state.to(device), self.hparams.student_grid))
        return solved

    def _networks(self) -> Networks:
        network: Any = self._unwrapped(self.critic).network
        layer, width = self.family.features(network)
        prepare, device = self.accelerator.prepare_model, self.accelerator.device
        return Networks(self.critic.weights, layer, width, self.decode, prepare, device)

    def _unwrapped(self, role: Role) -> Role:
        """Strip the wrapper for data parallelism, which waits for other ranks and for gradients."""
        return replace(role, network=self.accelerator.unwrap_model(role.network))

    def _batch(self, critic: Role, prompt: Prompt) -> Batch:
        """Bind the models to the embeddings of a batch, for the method's terms."""
        teacher_sample = partial(self._teacher_sample, prompt=prompt)
        return Batch(self._predict(critic, prompt), teacher_sample, self.stream.generator)

    @torch.no_grad()
    def _teacher_sample(self, noise: torch.Tensor, prompt: Prompt) -> torch.Tensor:
        """Follow the guided teacher's whole ODE from `noise` float32 [B, C, H, W]."""
        return self.schedule.solve(self._guided_teacher(prompt), noise, self.hparams.teacher_grid)

    def _guided_teacher(self, prompt: Prompt) -> Predict:
        positive, negative = self._predict(self.teacher, prompt), self._unconditional()
        return guided(positive, negative, self.config.guidance_scale, self.family.guide)

    def _predict(self, network: Role, prompt: Prompt) -> Predict:
        return conditional(network, prompt, size=self.size, family=self.family, schedule=self.schedule)

    def _draw(self) -> tuple[torch.Tensor, Prompt]:
        """Draw initial noise float32 [B, C, H, W] and the embeddings of a batch of prompts."""
        batch, generator, device = self.config.batch, self.stream.generator, self.accelerator.device
        rows = torch.randint(len(self.embeddings.prompts) - 1, (batch,), generator=generator)
        noise = torch.randn(batch, *self.latent_shape, generator=generator)
        return noise.to(device), self.embeddings.rows(rows).to(device=device)

    def _unconditional(self) -> Predict:
        negative = self.embeddings.of(self.config.negative_prompt).to(device=self.accelerator.device)
        batch = negative.map(lambda part: part.expand(self.config.batch, *part.shape[1:]))
        return self._predict(self.teacher, batch)

    def _update(
        self, losses_of_batch: Callable[[int], Losses], role: Role, optimizer: torch.optim.Optimizer
    ) -> dict[str, float]:
        """Accumulate gradients, clip, step; returns the telemetry, averaged over the accumulated batches."""
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
        # Not by accelerate, which compares sharded parameters by value. torch's function includes all ranks' shards.
        norm = sharding.whole(nn.utils.clip_grad_norm_(learners, self.config.max_grad_norm))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return processes.mean(self.accelerator, telemetry | {"grad_norm": norm.item()})


def _adamw(learners: Iterable[nn.Parameter], rate: float) -> torch.optim.AdamW:
    # Fused: a quarter of the time of a loop over parameters, on a CPU, too.
    return torch.optim.AdamW(learners, rate, weight_decay=0.0, fused=True)
