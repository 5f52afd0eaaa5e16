"""Train a student by DP-DMD: alternate critic and student turns, clip, average, log, checkpoint."""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from diffusers import ModelMixin
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distill import embedding_cache, image_grid, teacher_pipeline
from distill.config import DistillConfig, Gan, read_prompts
from distill.evaluation.metrics import pairwise_diversity
from distill.method import dp_dmd, perceptual
from distill.method.adversary import Adversary, Head
from distill.method.dp_dmd import Losses, Term
from distill.method.guidance import conditional, guided
from distill.training import processes, roles, sharding, training_loop
from distill.training.compilation import compile_blocks
from distill.training.critic_samples import CriticSamples, is_drawing
from distill.training.roles import Role
from worker.families import registry
from worker.families.prompt_embeddings import PromptEmbedding
from worker.pixels import to_uint8
from worker.sampling.noise_schedule import Predict

Prompt = PromptEmbedding
"""Embeddings of a batch, in float32."""

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
        if (found := teacher_pipeline.family(config.teacher).name) != config.family:
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
        self.family = registry.of(pipeline)
        self.schedule = self.family.noise_schedule(pipeline)
        self.method = config.method(self.schedule)
        self.vae = pipeline.vae.float().requires_grad_(False).to(self.accelerator.device)
        network = getattr(pipeline, self.family.denoiser).float()
        self.size = self.family.native_size(pipeline)
        self.latent_shape = self.family.latent_shape(pipeline, self.size)
        rank, targets = config.lora_rank, self.family.lora_targets
        teacher, student, critic = roles.adapters(network, rank, targets) if rank else roles.copies(network)
        self.average = AveragedModel(student.weights, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
        self.average.requires_grad_(False)
        roles.freeze((teacher, student, critic), config.precision)
        if config.compile:
            compile_blocks([block for role in (teacher, student, critic) for block in self.family.blocks(role.network)])
        if config.gradient_checkpointing:
            for role in (student, critic):
                cast(ModelMixin, role.network).enable_gradient_checkpointing()
        self.feature_network: nn.Module | None = None
        if config.perceptual:
            self.feature_network = perceptual.feature_network(config.perceptual.network).to(self.accelerator.device)
        self.gan = (config.gan or Gan()) if config.method_ == "dmd-gan" else None
        layer, width = self.family.features(critic.network)
        head = Head(width) if self.gan else nn.Identity()
        parts, blocks = (teacher, student, critic), self.family.blocks
        prepared = processes.prepared(self.accelerator, config, parts, self.average.module, blocks)
        self.teacher, self.student, self.critic = prepared
        self.head = self.accelerator.prepare_model(head) if self.gan else head
        learners = [*critic.weights.parameters(), *head.parameters()]
        self.critic_optimizer = _adamw(learners, config.critic_learning_rate)
        self.student_optimizer = _adamw(student.weights.parameters(), config.student_learning_rate)
        if self.gan:
            self.adversary = Adversary(layer, self.head, self.gan.loss, self.gan.r1, self.gan.r1_noise)
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
            "head": self.accelerator.unwrap_model(self.head),
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
        exit_step = dp_dmd.draw_exit_step(self.method, self.common_stream.generator)
        draws = not self.critic_samples or is_drawing(turn, self.config.rollouts, self.config.critic_updates)
        metrics = self._update(partial(self._critic_losses, draws, exit_step), self.critic, self.critic_optimizer)
        # "total" and "grad_norm" are the student's in the log.
        return {
            "critic_grad_norm" if name == "grad_norm" else name: metrics[name] for name in metrics if name != "total"
        }

    def student_turn(self) -> dict[str, float]:
        exit_step = dp_dmd.draw_exit_step(self.method, self.common_stream.generator)
        telemetry = self._update(partial(self._student_losses, exit_step), self.student, self.student_optimizer)
        self.average.update_parameters(self.student.weights)
        return telemetry

    def _critic_losses(self, draws: bool, exit_step: int | None, number: int) -> Losses:
        if draws:
            noise, prompt = self._draw()
            x = dp_dmd.sample(self._predict(self.student, prompt), noise, self.method, exit_step)
            self.critic_samples[number] = x, prompt
        x, prompt = self.critic_samples[number]
        critic, generator = self._predict(self.critic, prompt), self.stream.generator
        loss = dp_dmd.critic_loss(critic, x, generator, self.method)
        total, parts = loss, {"critic": loss}
        if self.gan:
            real = self._teacher_sample(torch.randn(x.shape, generator=generator).to(x), prompt)
            apart = self.adversary.discriminator(critic, x, real, generator, self.method)
            total, parts = loss + self.gan.critic_weight * apart, {"critic": loss, "discriminator": apart}
        return Losses(total, parts, x)

    def _student_losses(self, exit_step: int | None, number: int) -> Losses:
        noise, prompt = self._draw()
        found = dp_dmd.student_losses(
            self._predict(self.student, prompt),
            self._predict(self.critic, prompt),
            self._guided_teacher(prompt),
            noise,
            self.stream.generator,
            self.method,
            exit_step=exit_step,
            terms=self._terms(noise, prompt),
        )
        self.critic_samples[number] = found.sample, prompt
        return found

    def _terms(self, noise: torch.Tensor, prompt: Prompt) -> dict[str, Term]:
        """The losses of the student's sample that the baselines add to distribution matching."""

        def near_the_teacher(x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                reference = self.decode(self._teacher_sample(noise, prompt))
            assert self.feature_network is not None
            return perceptual.distance(self.feature_network, self.decode(x), reference)

        def taken_for_the_teacher(x: torch.Tensor) -> torch.Tensor:
            # Not through a wrapper: it would wait for gradients of the critic, which has none in this turn.
            critic = replace(self.critic, network=self.accelerator.unwrap_model(self.critic.network))
            with roles.frozen(critic.weights, self.head):
                return self.adversary.generator(self._predict(critic, prompt), x, self.stream.generator, self.method)

        if self.config.perceptual:
            return {"perceptual": (self.config.perceptual.weight, near_the_teacher)}
        return {"adversarial": (self.gan.student_weight, taken_for_the_teacher)} if self.gan else {}

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
                student = self._predict(alone, self.embeddings.rows(rows).to(device=device))
                solved.append(self.schedule.solve(student, state.to(device), self.method.student_grid))
        if not self.accelerator.is_main_process:
            return {}
        pixels = torch.cat([to_uint8(self.decode(part)).cpu() for part in solved]).numpy()
        latents = torch.cat(solved)
        image_grid.save_grid(pixels, GRID_PROMPTS, self.folder / f"grid-{done:06}.png", scale=2)
        by_prompt = latents.flatten(1).unflatten(0, (GRID_SAMPLES, GRID_PROMPTS)).transpose(0, 1)
        return {"latent_diversity": pairwise_diversity(by_prompt).mean().item()}

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """float32 latents → float32 images [B, 3, H, W] in about [−1, 1]; keeps gradients."""
        return self.family.decode(self.vae, latents)

    @torch.no_grad()
    def _teacher_sample(self, noise: torch.Tensor, prompt: Prompt) -> torch.Tensor:
        """The guided teacher's whole ODE from `noise`."""
        return self.schedule.solve(self._guided_teacher(prompt), noise, self.method.teacher_grid)

    def _guided_teacher(self, prompt: Prompt) -> Predict:
        positive, negative = self._predict(self.teacher, prompt), self._unconditional()
        return guided(positive, negative, self.config.guidance_scale, self.family.guide)

    def _predict(self, network: Role, prompt: Prompt) -> Predict:
        return conditional(network, prompt, size=self.size, family=self.family, schedule=self.schedule)

    def _draw(self) -> tuple[torch.Tensor, Prompt]:
        """Initial noise float32 [B, C, H, W] and the embeddings of a batch of prompts."""
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
