"""Train a teacher on the emoji latents with exact targets: an SD3 transformer, or whatever else a family denoises by.

The data set is finite, so what flow matching and ε-prediction learn in the mean is known in closed
form: E[x | z_t, caption] is a softmax-weighted mean of the pictures that fit the caption. Training
on it instead of on single samples takes nearly all noise out of the gradient.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin, SD3Transformer2DModel
from torch import nn
from torch.nn import functional as F

from distill import prompt_embeddings
from distill.emoji import autoencoder, sample_grid
from distill.emoji.artwork import SIZE
from distill.emoji.average import averaged
from distill.emoji.captions import Captions
from distill.emoji.text_encoders import PROJECTION, T5_WIDTH, TOKENS
from distill.method.guidance import conditional
from distill.training import training_loop
from worker.device.bfloat16 import has_native_bfloat16
from worker.families import registry
from worker.families.base import Family, Size
from worker.families.prompt_embeddings import PromptEmbedding
from worker.families.registry import STABLE_DIFFUSION_3
from worker.sampling.noise_schedule import FLOW, NoiseSchedule

BATCH = 48
SAVE_EVERY, SAMPLE_EVERY = 100, 500
"""Steps. A checkpoint costs a second; on a core that others need it is all that a kill leaves."""
CPU = torch.device("cpu")
WIDTH_PER_HEAD, HEADS, DEPTH = 32, 8, 4
"""Wide for its depth: a patch of these latents has 64 values in and 64 out. A step costs what 6 × 192 costs."""
LEARNING_RATE = 5e-4
NOISE_SHIFT = 3.0
"""Draw more noise levels where the picture's subject is decided, t = s·u / (1 + (s−1)·u) for uniform u.

The posterior's entropy over the pictures of an animal is 5.2 bits at σ = .95, 1.4 at .9, .3 at .85 and .1 at .8, in the
latents of an autoencoder after 600 steps."""
MAX_WEIGHT = 10.0
"""Largest weight of a sample in the loss of an ε-predicting teacher."""


def build() -> SD3Transformer2DModel:
    """The network with its modulation and output at zero, as DiT training expects and diffusers leaves undone."""
    torch.manual_seed(0)
    model = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=autoencoder.LATENT_CHANNELS,
        out_channels=autoencoder.LATENT_CHANNELS,
        num_layers=DEPTH,
        attention_head_dim=WIDTH_PER_HEAD,
        num_attention_heads=HEADS,
        joint_attention_dim=T5_WIDTH,
        caption_projection_dim=WIDTH_PER_HEAD * HEADS,
        pooled_projection_dim=2 * PROJECTION,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )
    modulations = [block.norm1.linear for block in model.transformer_blocks]
    modulations += [block.norm1_context.linear for block in model.transformer_blocks]
    for layer in (*modulations, model.norm_out.linear, model.proj_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


def make(
    pipeline: Any,
    captions: Captions,
    folder: Path,
    steps: int,
    out: Path,
    grid: tuple[float, ...] = sample_grid.GRID,
    latents: torch.Tensor | None = None,
    device: torch.device = CPU,
    **options: Any,
) -> None:
    """Train the denoiser of `pipeline` in `folder` on `device`, with the `options` of `train`; save the whole to `out`.

    Denoiser and autoencoder are stored in bfloat16. The grids of pictures are sampled along `grid`. `latents` are those
    of the artwork; encoded here where they are not given.
    """
    family = registry.of(pipeline)
    schedule = family.noise_schedule(pipeline)
    pipeline.vae.float()
    pipeline.to(device)
    if latents is None:
        latents = autoencoder.encode_all(pipeline.vae, captions.artwork)
    shown = prompt_embeddings.encode(pipeline, sample_grid.PROMPTS, TOKENS)

    def ask(drawn: torch.Tensor, generator: torch.Generator) -> PromptEmbedding:
        texts = captions.say(drawn, generator)
        return prompt_embeddings.encode(pipeline, texts, TOKENS, batch=len(texts)).rows(torch.arange(len(texts)))

    def sample(model: nn.Module, path: Path) -> None:
        sample_grid.draw(model.eval(), pipeline.vae, shown, path, family=family, schedule=schedule, grid=grid)

    denoiser = getattr(pipeline, family.denoiser).train()
    options |= {"family": family, "schedule": schedule, "size": family.native_size(pipeline)}
    model = train(denoiser, captions, latents.to(device), ask, folder, steps, sample, **options)
    pipeline.to("cpu")
    pipeline.vae.to(torch.bfloat16)
    pipeline.register_modules(**{family.denoiser: model.to("cpu", torch.bfloat16)})
    pipeline.save_pretrained(out, safe_serialization=True)


def train(
    model: ModelMixin,
    captions: Captions,
    latents: torch.Tensor,
    ask: Callable[[torch.Tensor, torch.Generator], PromptEmbedding],
    folder: Path,
    steps: int,
    sample: Callable[[nn.Module, Path], None],
    compile_blocks: bool | None = None,
    *,
    family: Family = STABLE_DIFFUSION_3,
    schedule: NoiseSchedule = FLOW,
    size: Size = (SIZE, SIZE),
    batch: int = BATCH,
    noise_shift: float = NOISE_SHIFT,
) -> nn.Module:
    """Train `model` (or go on training) in `folder`; returns the averaged weights.

    Blocks are compiled on a GPU by default: on a CPU that gains a tenth at most, and costs minutes at every start.
    `latents` float32 [pictures, channels, 16, 16], on the model's device; `ask(captions, generator)` embeds a wording
    of each of `captions`, int64 [B]; `sample(model, path)` draws a grid.
    """
    device = latents.device
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=has_native_bfloat16(device))
    average = averaged(model, 0.999)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, betas=(0.9, 0.99))
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _rate(done, steps))
    stream, noise_stream = training_loop.RandomStream(2), training_loop.RandomStream(3, device)
    posterior = captions.posterior.to(device)
    if device.type == "cuda" if compile_blocks is None else compile_blocks:
        for block in family.blocks(model):
            block.compile(fullgraph=True)

    def step(index: int) -> dict[str, float]:
        pictures = torch.randint(len(latents), (batch,), generator=stream.generator)
        drawn = captions.draw(pictures, stream.generator)
        prompts = ask(drawn, stream.generator)
        u = torch.rand(batch, generator=noise_stream.generator, device=device)
        t = schedule.t_of_fraction(noise_shift * u / (1 + (noise_shift - 1) * u))
        noise = torch.randn(batch, *latents.shape[1:], generator=noise_stream.generator, device=device)
        state = schedule.noised(latents[pictures.to(device)], noise, t)
        target = exact_target(state, t, latents, posterior[drawn.to(device)], schedule)
        with mixed:
            prediction = conditional(model, prompts, size=size, family=family, schedule=schedule)(state, t)
        loss = (_weight(t, schedule) * F.mse_loss(prediction, target, reduction="none").mean((1, 2, 3))).mean()
        norm = training_loop.update(loss, optimizer, rate, clip=1.0)
        average.update_parameters(model)
        return {"loss": loss.item(), "grad_norm": norm}

    def draw(done: int) -> None:
        sample(average.module, folder / f"grid-{done:06}.png")

    stateful = {"model": model, "average": average, "optimizer": optimizer, "schedule": rate}
    stateful |= {"stream": stream, "noise_stream": noise_stream}
    training_loop.run(
        folder, stateful, step, steps, save_every=SAVE_EVERY, sample_every=SAMPLE_EVERY, sample=draw, samples=batch
    )
    return average.module


def _rate(done: int, steps: int) -> float:
    """The share of LEARNING_RATE: rises over 300 steps, falls to 0 over the last third, which sharpens the pictures."""
    return max(0.0, min(1.0, (done + 1) / 300, (steps - done) / (steps / 3)))


def exact_target(
    state: torch.Tensor, t: torch.Tensor, latents: torch.Tensor, prior: torch.Tensor, schedule: NoiseSchedule
) -> torch.Tensor:
    """The prediction of the best possible network at z_t = `state` float32 [B, …], when x is one of `latents` float32
    [N, …] with probabilities `prior` float32 [B, N]; like `state`."""
    alpha, sigma = (level.to(state.dtype)[:, None] for level in schedule.levels(t))
    mean = exact_mean(state, alpha, sigma, latents, prior)
    noise = (state.flatten(1) - alpha * mean.flatten(1)) / sigma
    return schedule.target(mean, noise.view_as(state), t)


def exact_mean(
    state: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor, latents: torch.Tensor, prior: torch.Tensor
) -> torch.Tensor:
    """E[x | z_t = state] when x is one of `latents` with probabilities `prior`.

    `state` float32 [B, …], `alpha` and `sigma` float32 [B, 1], `latents` float32 [N, …], `prior` float32 [B, N].
    z_t = α·x + σ·ε, so the weights are softmax(log prior − |z_t − α·x|² / 2σ²).
    """
    flat, all_x = state.flatten(1), latents.flatten(1)
    squared = alpha.square() * all_x.square().sum(1) - 2 * alpha * (flat @ all_x.T)
    weights = torch.softmax(prior.log() - squared / (2 * sigma.square()), dim=1)
    return (weights @ all_x).view_as(state)


def _weight(t: torch.Tensor, schedule: NoiseSchedule) -> torch.Tensor:
    """Weight of a sample at `t` [B]: 1/ᾱ for errors of ε, which makes them errors of x over σ as for flow and v.

    Without it ε hardly notices the caption where the noise is strong; up to MAX_WEIGHT, since 1/ᾱ reaches 214.
    """
    if schedule.prediction != "epsilon":
        return torch.ones_like(t)
    return (1 / schedule.levels(t)[0].square()).clamp_max(MAX_WEIGHT).to(t.dtype)
