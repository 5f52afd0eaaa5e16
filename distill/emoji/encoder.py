"""A frozen reader of emoji pictures for evaluation: which emoji, which style, and a feature vector."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from distill import image_grid
from distill.emoji.artwork import Artwork
from distill.emoji.autoencoder import to_float
from distill.emoji.world import EMOJI, STYLES
from distill.training import training_loop
from distill.training.checkpoints import Stateful
from worker.pixels import to_uint8

FEATURES = 128
SIDE = 64
"""Pixels a side of what the encoder sees; larger pictures are reduced to it, so that one encoder reads all models."""
BATCH = 64
CPU = torch.device("cpu")
MAX_SHIFT = 4
"""Pixels by which training pictures are moved."""


@dataclass(frozen=True)
class Reading:
    """The reading of B pictures: `features` float [B, 128], probabilities `emoji` float [B, 207] and `style` [B, 5]."""

    features: torch.Tensor
    emoji: torch.Tensor
    style: torch.Tensor


class EmojiEncoder(nn.Module):
    """Five strided convolutions; 0.4 million weights."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128, FEATURES)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.GELU())
            for before, after in pairwise(widths)
        )
        self.emoji = nn.Linear(FEATURES, len(EMOJI))
        self.style = nn.Linear(FEATURES, len(STYLES))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """float [B, 3, H, W] in [−1, 1] → features and the two sets of logits."""
        images = reduced(images)
        for stage in self.stages:
            images = stage(images)
        features = images.mean((2, 3))
        return features, self.emoji(features), self.style(features)

    @torch.no_grad()
    def read(self, images: torch.Tensor) -> Reading:
        """Read pictures uint8 [B, H, W, 3]."""
        parts = [self(to_float(part)) for part in images.split(256)]
        features, emoji, style = (torch.cat(part) for part in zip(*parts, strict=True))
        return Reading(features, emoji.softmax(-1), style.softmax(-1))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.half() for name, value in self.state_dict().items()}, folder / "model.safetensors")

    @classmethod
    def load(cls, folder: Path) -> "EmojiEncoder":
        """Raises OSError when the file is missing."""
        encoder = cls().eval().requires_grad_(False)
        encoder.load_state_dict(
            {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
        )
        return encoder


class StageMaps(nn.Module):
    """An encoder's feature maps, for `dmd-perceptual`: float [B, 3, H, W] in [−1, 1] → [B, channels, h, w] of each
    stage."""

    def __init__(self, encoder: EmojiEncoder) -> None:
        super().__init__()
        self.stages = encoder.stages

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        images = reduced(images)
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps


def perceptual_network() -> StageMaps:
    """The bundled encoder, as a configuration's `perceptual.network` names it. Raises OSError when it is missing."""
    return StageMaps(EmojiEncoder.load(Path("models/emoji-encoder")))


def train(
    artwork: Artwork, reconstructed: torch.Tensor, folder: Path, steps: int, device: torch.device = CPU
) -> EmojiEncoder:
    """Train (or go on training) in `folder` on `device`; returns the encoder on the CPU.

    `reconstructed` uint8 [N, H, W, 3] are the pictures as the autoencoder gives them back: its softness must not
    be taken for a wrong picture, so half of every batch comes from there.
    """
    torch.manual_seed(0)
    originals, soft_ones = (reduced(to_float(part)) for part in (torch.from_numpy(artwork.images), reconstructed))
    emoji, style = (torch.from_numpy(part).to(device) for part in (artwork.emoji, artwork.style))
    encoder = EmojiEncoder().to(device)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    stream = training_loop.RandomStream(3)

    def step(index: int) -> dict[str, float]:
        rows = torch.randint(len(originals), (BATCH,), generator=stream.generator)
        soft = torch.rand(BATCH, generator=stream.generator) < 0.5
        images = torch.where(soft[:, None, None, None], soft_ones[rows], originals[rows])
        _, emoji_logits, style_logits = encoder(disturbed(images, stream.generator).to(device))
        rows = rows.to(device)
        loss = F.cross_entropy(emoji_logits, emoji[rows]) + F.cross_entropy(style_logits, style[rows])
        training_loop.update(loss, optimizer, schedule)
        right = (emoji_logits.argmax(1) == emoji[rows]).float().mean()
        return {"loss": loss.item(), "accuracy": right.item()}

    def sample(done: int) -> None:
        generator = torch.Generator().manual_seed(0)
        shown = disturbed(originals[:: len(originals) // 32][:32], generator)
        image_grid.save_grid(to_uint8(shown).numpy(), 16, folder / f"grid-{done:06}.png")

    parts: dict[str, Stateful] = {"encoder": encoder, "optimizer": optimizer, "schedule": schedule, "stream": stream}
    training_loop.run(folder, parts, step, steps, save_every=500, sample=sample, samples=BATCH)
    return encoder.cpu().eval().requires_grad_(False)


def reduced(images: torch.Tensor) -> torch.Tensor:
    """Pictures float [B, 3, H, W] of at most `SIDE` pixels a side, by averages."""
    return images if images.shape[-1] <= SIDE else F.adaptive_avg_pool2d(images, SIDE)


def disturbed(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each picture moved, its colours shifted and noise laid over it: float [B, 3, H, W] → the same."""
    batch, _, height, width = images.shape
    padded = F.pad(images, (MAX_SHIFT,) * 4, value=1.0)
    moves = torch.randint(2 * MAX_SHIFT + 1, (batch, 2), generator=generator).tolist()
    moved = torch.stack(
        [picture[:, y : y + height, x : x + width] for picture, (y, x) in zip(padded, moves, strict=True)]
    )
    tint = 0.15 * torch.randn(batch, 3, 1, 1, generator=generator)
    noise = 0.15 * torch.rand(batch, 1, 1, 1, generator=generator) * torch.randn(moved.shape, generator=generator)
    return (moved + tint + noise).clamp(-1, 1)
