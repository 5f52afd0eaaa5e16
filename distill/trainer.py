"""Train a student by DP-DMD: alternate critic and student turns, clip, average, log, checkpoint."""

import copy
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import SD3Transformer2DModel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distill import dp_dmd, flow, image_grid, prompt_embeddings, teacher_pipeline, training_loop
from distill.config import DistillConfig, read_prompts
from distill.guidance import conditional, guided
from distill.prompt_embeddings import PromptEmbeddings

GRID_PROMPTS = 16
GRID_SAMPLES = 4


class Trainer:
    """Teacher, student and fake score ("critic") with their optimisers, and the two kinds of turn.

    Raises ValueError, before any work, for an empty prompt file or a teacher folder of an unknown kind.
    """

    def __init__(self, config: DistillConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.method = config.method()
        torch.manual_seed(config.seed)
        self.embeddings = _embeddings(config, folder)
        pipeline = teacher_pipeline.load(config.teacher, text_encoders=False)
        self.vae = pipeline.vae.float()
        teacher = pipeline.transformer.float().requires_grad_(False)
        size = teacher.config.sample_size
        self.latent_shape = (teacher.config.in_channels, size, size)
        student, critic = (copy.deepcopy(teacher).requires_grad_(True) for _ in range(2))
        self.average = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
        if config.compile:
            _compile_blocks(teacher, student, critic)
        student_optimizer = torch.optim.AdamW(student.parameters(), config.student_learning_rate, weight_decay=0.0)
        critic_optimizer = torch.optim.AdamW(critic.parameters(), config.critic_learning_rate, weight_decay=0.0)
        self.accelerator = Accelerator(mixed_precision=config.precision)
        self.teacher, self.student, self.critic, self.student_optimizer, self.critic_optimizer = (
            self.accelerator.prepare(teacher, student, critic, student_optimizer, critic_optimizer)
        )
        # A stream of its own for every rank: equal noise on all of them would shrink the batch to one rank's.
        self.stream = training_loop.RandomStream(config.seed * 100_003 + self.accelerator.process_index)

    def train(self) -> SD3Transformer2DModel:
        """Train (or go on training) to the configured number of student updates; returns the averaged student."""
        stateful = {
            "student": self.accelerator.unwrap_model(self.student),
            "critic": self.accelerator.unwrap_model(self.critic),
            "average": self.average,
            "student_optimizer": self.student_optimizer,
            "critic_optimizer": self.critic_optimizer,
            "stream": self.stream,
        }
        config = self.config
        training_loop.run(
            self.folder,
            stateful,
            self.cycle,
            config.steps,
            save_every=config.save_every,
            log_every=config.log_every,
            sample=self.sample,
        )
        return self.average.module

    def cycle(self, index: int) -> dict[str, float]:
        """All critic turns, then one student turn; returns the telemetry."""
        critic_losses = [self.critic_turn() for _ in range(self.config.critic_updates)]
        return {"critic": sum(critic_losses) / len(critic_losses), **self.student_turn()}

    def critic_turn(self) -> float:
        noise, prompt = self._draw()
        loss = dp_dmd.critic_loss(
            conditional(self.student, *prompt),
            conditional(self.critic, *prompt),
            noise,
            self.stream.generator,
            self.method,
        )
        self._update(loss, self.critic, self.critic_optimizer)
        return loss.item()

    def student_turn(self) -> dict[str, float]:
        noise, prompt = self._draw()
        losses = dp_dmd.student_losses(
            conditional(self.student, *prompt),
            conditional(self.critic, *prompt),
            guided(conditional(self.teacher, *prompt), self._unconditional(), self.config.guidance_scale),
            noise,
            self.stream.generator,
            self.method,
        )
        norm = self._update(losses.total, self.student, self.student_optimizer)
        self.average.update_parameters(self.accelerator.unwrap_model(self.student))
        return {"grad_norm": norm, **{name: value.item() for name, value in vars(losses).items()}}

    @torch.no_grad()
    def sample(self, done: int) -> None:
        """Draw the averaged student's pictures: four seeds (rows) of 16 prompts spread over the prompt file."""
        prompts = torch.linspace(0, len(self.embeddings.prompts) - 2, GRID_PROMPTS).long().repeat(GRID_SAMPLES)
        noise = torch.randn(len(prompts), *self.latent_shape, generator=torch.Generator().manual_seed(0))
        student = conditional(self.average.module.cpu(), *self.embeddings.rows(prompts))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bf16"):
            latents = flow.euler(student, noise, self.method.student_sigmas)
        scaling, shift = self.vae.config.scaling_factor, self.vae.config.shift_factor or 0.0
        pixels = self.vae.decode(latents / scaling + shift).sample
        image_grid.save_grid(image_grid.to_uint8(pixels), GRID_PROMPTS, self.folder / f"grid-{done:06}.png", scale=2)

    def _draw(self) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Initial noise float32 [B, C, H, W] and the embeddings of a batch of prompts."""
        batch, generator, device = self.config.batch, self.stream.generator, self.accelerator.device
        rows = torch.randint(len(self.embeddings.prompts) - 1, (batch,), generator=generator)
        noise = torch.randn(batch, *self.latent_shape, generator=generator)
        prompt, pooled = self.embeddings.rows(rows)
        return noise.to(device), (prompt.to(device), pooled.to(device))

    def _unconditional(self) -> flow.Velocity:
        prompt, pooled = (part.to(self.accelerator.device) for part in self.embeddings.of(self.config.negative_prompt))
        batch = self.config.batch
        return conditional(self.teacher, prompt.expand(batch, -1, -1), pooled.expand(batch, -1))

    def _update(self, loss: torch.Tensor, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> float:
        """Backward, clip, step; returns the gradient norm before clipping."""
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(network.parameters(), self.config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(norm)


def _compile_blocks(*networks: SD3Transformer2DModel) -> None:
    """Compile every transformer block in place."""
    blocks = [block for network in networks for block in network.transformer_blocks]
    # All blocks share one code object, and so one limit, beyond which they would run eager: each block is compiled
    # with and without gradients.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 2 * len(blocks))
    for block in blocks:
        block.compile(fullgraph=True)


def _embeddings(config: DistillConfig, folder: Path) -> PromptEmbeddings:
    """All prompts and, last, the negative one; from the run's own cache after the first time."""
    path = folder / "prompt_embeddings.safetensors"
    if not path.exists():
        prompts = [*read_prompts(config.prompts), config.negative_prompt]
        folder.mkdir(parents=True, exist_ok=True)
        pipeline = teacher_pipeline.load(config.teacher)
        prompt_embeddings.encode(pipeline, prompts, config.max_sequence_length).save(path)
    return PromptEmbeddings.load(path)
