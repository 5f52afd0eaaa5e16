"""The trainer with the exact teacher of the emoji latents in the place of a trained one.

The artwork is finite, so the prediction of a perfect teacher is known in closed form. Student and fake score still
start from the trained teacher of the run's folder, because the exact one has no weights.
"""

import re
from pathlib import Path

import torch

from distill.config import DistillConfig
from distill.emoji import autoencoder, teacher
from distill.emoji.artwork import Artwork
from distill.emoji.captions import STYLE_WORDS, Captions
from distill.emoji.world import EMPTY, STYLES
from distill.training.trainer import Prompt, Trainer
from worker.sampling.noise_schedule import FLOW, Predict


class ExactTeacher:
    """The flow to the pictures that fit a caption, for batches of captions.

    It is not guided. Guidance corrects a network that mixes captions up, and the exact teacher does not. Guidance adds
    (w − 1)·(E[x | z_t, caption] − E[x | z_t]). This does not vanish at low noise where the nearest picture does not fit
    the caption, so that samples would end far from every picture.
    """

    def __init__(self, captions: Captions, latents: torch.Tensor) -> None:
        """`latents` float32 [pictures, channels, 16, 16]."""
        self.captions, self.latents = captions, latents

    def caption(self, prompt: str) -> int:
        """Return the number of the caption that `prompt` means: the longest subject and the style named in it.

        Raises ValueError when it names no subject.
        """
        words = re.findall(r"[\w'-]+", prompt.lower())
        text = f" {' '.join(words)} "
        named = [subject for subject in self.captions.subjects if subject != EMPTY and f" {subject} " in text]
        if not named:
            raise ValueError(f"no picture fits the prompt {prompt!r}")
        styles = [number for number, style in enumerate(STYLE_WORDS, start=1) if f" {style} " in text]
        return self.captions.subjects.index(max(named, key=len)) * (len(STYLES) + 1) + max(styles, default=0)

    def conditional(self, captions: torch.Tensor) -> Predict:
        """The flow for `captions` int64 [B], as numbered by `caption`."""
        prior = self.captions.posterior[captions]

        def predict(state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return teacher.exact_target(state, t, self.latents, prior, FLOW)

        return predict


class ExactTrainer(Trainer):
    """Trains a student of the exact teacher of `artwork`; everything else is the shipped trainer's.

    Raises ValueError for a guidance scale other than 1.
    """

    def __init__(self, config: DistillConfig, folder: Path, artwork: Artwork) -> None:
        if config.guidance_scale != 1:
            raise ValueError(
                f"guidance_scale: {config.guidance_scale}, but the exact teacher is not guided; set it to 1"
            )
        super().__init__(config, folder)
        latents = autoencoder.encode_all(self.vae, artwork)
        self.exact = ExactTeacher(Captions(artwork), latents)
        self.prompt_captions = torch.tensor([self.exact.caption(prompt) for prompt in self.embeddings.prompts])

    def prompt(self, rows: torch.Tensor) -> Prompt:
        self.drawn_captions = self.prompt_captions[rows]
        return super().prompt(rows)

    def guided_teacher(self, prompt: Prompt) -> Predict:
        return self.exact.conditional(self.drawn_captions)
