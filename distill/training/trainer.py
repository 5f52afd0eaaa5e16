"""Train a student: alternate critic and student turns, clip gradients, average weights, log, checkpoint."""

import hashlib
import logging
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill import embedding_cache, teacher_pipeline
from distill.config import DistillConfig, read_prompts
from distill.method import dp_dmd
from distill.method.base import Batch, Networks
from distill.method.dp_dmd import Losses
from distill.method.guidance import conditional, guided
from distill.method.registry import METHODS
from distill.training import advice, best_students, models, processes, sharding, training_loop
from distill.training.balance import Balance
from distill.training.critic_samples import CriticSamples, is_drawing
from distill.training.measures import Measures
from distill.training.roles import Role
from worker.families import registry
from worker.families.prompt_embeddings import PromptEmbedding
from worker.sampling.noise_schedule import Predict

Prompt = PromptEmbedding
"""Embeddings of a batch, in float32."""

log = logging.getLogger(__name__)

FREE = {"steps", "save_every", "log_every", "embeddings", "keep_students"}
"""Settings that may change when a run resumes."""


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
        # Every process encodes its share, and no collective waits meanwhile.
        embeddings = config.embeddings or folder / "embeddings"
        self.accelerator.print(f"encoding those of {len(prompts)} prompts that {embeddings} lacks")
        self.embeddings = embedding_cache.fill(embeddings, config.teacher, prompts, config.max_sequence_length)
        pipeline = teacher_pipeline.load(config.teacher, text_encoders=False)
        self.family = registry.of(pipeline)
        self.schedule = self.family.noise_schedule(pipeline)
        self.vae = pipeline.vae.float().requires_grad_(False).to(self.accelerator.device)
        network = getattr(pipeline, self.family.denoiser).float()
        self.size = self.family.native_size(pipeline)
        self.latent_shape = self.family.latent_shape(pipeline, self.size)
        self.negative = self._negative(pipeline)
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
        self.measures = Measures(self)
        self.balance = Balance(self)

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
        if config.is_balanced:
            stateful["balance"] = self.balance
        if config.rollouts == 0:  # otherwise every cycle starts with new samples
            stateful["critic_samples"] = self.critic_samples
        settings = config.model_dump(mode="json", by_alias=True, exclude=FREE)
        slow = "; the first one takes long: it compiles the networks" if config.compile else ""
        self.accelerator.print(f"training {self.folder} to update {config.steps}{slow}")
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

    def sample(self, done: int) -> dict[str, float]:
        """Draw the sample grid, keep the student if it is among the best, and warn of what is not as it should be;
        returns what was measured. Every process must call it."""
        measured = self.measures.sample(done)
        best_students.keep(self.folder, self.average, done, measured, self.config.keep_students)
        if self.accelerator.is_main_process:
            for sentence in advice.warnings(self.config, done, measured):
                log.warning("step %d: %s. See docs/run-health.md", done, sentence)
        return measured

    def cycle(self, index: int) -> dict[str, float]:
        """Run the critic turns and one student turn; returns the telemetry.

        The first cycle includes the critic's warm-up. A warm start's cycles are the student's turn alone.
        """
        self.hparams = self.balance.hyperparameters(index)
        turns = self.config.critic_updates if self.hparams.distribution_matching else 0
        if turns and index == self.balance.matching_from:
            turns += self.config.critic_warmup
        metrics = [self.critic_turn(turn) for turn in range(turns)]
        critic = {name: sum(turn[name] for turn in metrics) / turns for name in metrics[0]} if turns else {}
        changing = {"lambda": self.hparams.lambda_} if self.config.lambda_ratio else {}
        return critic | self.student_turn() | changing

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
            x = dp_dmd.sample(self.predict(self.student, prompt), noise, self.hparams, exit_step)
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
        batch = self._batch(self.unwrapped(self.critic), prompt)
        found = dp_dmd.student_losses(
            self.predict(self.student, prompt),
            self.predict(self.critic, prompt),
            self.guided_teacher(prompt),
            noise,
            self.stream.generator,
            self.hparams,
            exit_step=exit_step,
            terms=self.method.student_terms(batch, noise),
        )
        self.critic_samples[number] = found.sample, prompt
        return found

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode float32 latents to float32 images [B, 3, H, W] in about [−1, 1]; keeps gradients."""
        return self.family.decode(self.vae, latents)

    def _negative(self, pipeline: Any) -> Prompt:
        """The embedding that guidance leads away from, as a batch of 1; an empty prompt is the family's own."""
        embedding = self.embeddings.of(self.config.negative_prompt).to(device=self.accelerator.device)
        return embedding if self.config.negative_prompt else self.family.negative(pipeline, embedding)

    def _networks(self) -> Networks:
        network: Any = self.unwrapped(self.critic).network
        layer, width = self.family.features(network)
        prepare, device = self.accelerator.prepare_model, self.accelerator.device
        return Networks(self.critic.weights, layer, width, self.decode, prepare, device)

    def unwrapped(self, role: Role) -> Role:
        """Strip the wrapper for data parallelism, which waits for other ranks and for gradients."""
        return replace(role, network=self.accelerator.unwrap_model(role.network))

    def _batch(self, critic: Role, prompt: Prompt) -> Batch:
        """Bind the models to the embeddings of a batch, for the method's terms."""
        teacher_sample = partial(self.teacher_sample, prompt=prompt)
        return Batch(self.predict(critic, prompt), teacher_sample, self.stream.generator)

    @torch.no_grad()
    def teacher_sample(self, noise: torch.Tensor, prompt: Prompt) -> torch.Tensor:
        """Follow the guided teacher's whole ODE from `noise` float32 [B, C, H, W]."""
        return self.schedule.solve(self.guided_teacher(prompt), noise, self.hparams.teacher_grid)

    def guided_teacher(self, prompt: Prompt) -> Predict:
        rows = len(prompt.tokens)
        negative = self.predict(self.teacher, self.negative.map(lambda part: part.expand(rows, *part.shape[1:])))
        return guided(self.predict(self.teacher, prompt), negative, self.config.guidance_scale, self.family.guide)

    def predict(self, network: Role, prompt: Prompt) -> Predict:
        return conditional(network, prompt, size=self.size, family=self.family, schedule=self.schedule)

    def _draw(self) -> tuple[torch.Tensor, Prompt]:
        return self.draw(self.stream.generator)

    def draw(self, generator: torch.Generator) -> tuple[torch.Tensor, Prompt]:
        """Draw initial noise float32 [B, C, H, W] and the embeddings of a batch of prompts."""
        batch = self.config.batch
        rows = torch.randint(len(self.embeddings.prompts) - 1, (batch,), generator=generator)
        noise = torch.randn(batch, *self.latent_shape, generator=generator)
        return noise.to(self.accelerator.device), self.prompt(rows)

    def prompt(self, rows: torch.Tensor) -> Prompt:
        """The embeddings of the prompts numbered `rows` int64 [B], on the device."""
        return self.embeddings.rows(rows).to(device=self.accelerator.device)

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
