"""Train the SD3-architecture teacher on the emoji latents by flow matching with exact targets.

The data set is finite, so the velocity that flow matching learns in the mean is known in closed
form: E[x | z_t, caption] is a softmax-weighted mean of the pictures that fit the caption. Training
on it instead of on single samples takes nearly all noise out of the gradient.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import SD3Transformer2DModel
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from distill import training_loop
from distill.emoji.captions import Captions
from distill.emoji.text_encoders import PROJECTION, T5_WIDTH
from distill.noise_schedule import FLOW
from distill.prompt_embeddings import PromptEmbeddings

BATCH = 48
WIDTH_PER_HEAD, HEADS, DEPTH = 32, 6, 6
LEARNING_RATE = 5e-4
NOISE_SHIFT = 2.0
"""Draws more noise levels where the picture's subject is decided, t = s·u / (1 + (s−1)·u) for uniform u."""


def build() -> SD3Transformer2DModel:
    """The network with its modulation and output at zero, as DiT training expects and diffusers leaves undone."""
    torch.manual_seed(0)
    model = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
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


def train(
    model: SD3Transformer2DModel,
    captions: Captions,
    latents: torch.Tensor,
    embeddings: PromptEmbeddings,
    folder: Path,
    steps: int,
    sample: Callable[[nn.Module, Path], None],
    compile_blocks: bool = True,
) -> SD3Transformer2DModel:
    """Train `model` (or go on training) in `folder`; returns the averaged weights.

    `latents` float32 [pictures, 4, 16, 16]; `embeddings` holds every wording of every caption, in order;
    `sample(model, path)` draws a grid.
    """
    average = AveragedModel(model, multi_avg_fn=_average)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: min(1.0, (done + 1) / 300))
    stream = training_loop.RandomStream(2)
    wordings = len(captions.wordings[0])
    if compile_blocks:
        for block in model.transformer_blocks:
            block.compile(fullgraph=True)

    def step(index: int) -> dict[str, float]:
        pictures = torch.randint(len(latents), (BATCH,), generator=stream.generator)
        drawn = captions.draw(pictures, stream.generator)
        wording = torch.randint(wordings, (BATCH,), generator=stream.generator)
        u = torch.rand(BATCH, generator=stream.generator)
        t = NOISE_SHIFT * u / (1 + (NOISE_SHIFT - 1) * u)
        noise = torch.randn(BATCH, *latents.shape[1:], generator=stream.generator)
        s = t[:, None, None, None]
        state = FLOW.noised(latents[pictures], noise, t)
        target = (state - exact_mean(state, t, latents, captions.posterior[drawn])) / s
        prompt, pooled = embeddings.rows(drawn * wordings + wording)
        with torch.autocast("cpu", torch.bfloat16):
            velocity = model(state, prompt, pooled, FLOW.timestep(t), return_dict=False)[0]
        loss = F.mse_loss(velocity.float(), target)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        average.update_parameters(model)
        return {"loss": loss.item(), "grad_norm": norm.item()}

    stateful = {"model": model, "average": average, "optimizer": optimizer, "schedule": schedule, "stream": stream}
    training_loop.run(
        folder,
        stateful,
        step,
        steps,
        save_every=500,
        sample=lambda done: sample(average.module, folder / f"grid-{done:06}.png"),
    )
    return average.module


def exact_mean(state: torch.Tensor, t: torch.Tensor, latents: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """E[x | z_t = state] when x is one of `latents` with probabilities `prior`.

    `state` float32 [B, …], `t` float32 [B] in (0, 1], `latents` float32 [N, …], `prior` float32 [B, N].
    z_t = (1−t)·x + t·ε, so the weights are softmax(log prior − |z_t − (1−t)·x|² / 2t²).
    """
    flat, all_x = state.flatten(1), latents.flatten(1)
    keep = 1 - t[:, None]
    squared = keep.square() * all_x.square().sum(1) - 2 * keep * (flat @ all_x.T)
    weights = torch.softmax(prior.log() - squared / (2 * t[:, None].square()), dim=1)
    return (weights @ all_x).view_as(state)


@torch.no_grad()
def _average(averaged, current, count) -> None:
    """An exponential moving average whose horizon grows to 1,000 steps."""
    decay = min(0.999, (1 + int(count)) / (10 + int(count)))
    torch._foreach_lerp_(averaged, current, 1 - decay)
