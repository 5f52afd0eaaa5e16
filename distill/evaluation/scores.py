"""Scores of pictures for their prompts, each by a published network in a local folder.

A missing file is an error before anything is sampled; there are no scores in place of it.
"""

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPModel

from distill.evaluation.feature_spaces import BATCH, check_folder, frozen, load_each
from distill.evaluation.image_reward import image_reward
from distill.evaluation.preprocessing import Preprocessing
from worker.model_folder.networks import read_network

Score = Callable[[Sequence[str], torch.Tensor], torch.Tensor]
"""Prompts [P] and their pictures uint8 [P, R, H, W, 3] → float32 [P, R]; higher is better."""


def load(folders: Mapping[str, Path]) -> dict[str, Score]:
    """Load the scores in `folders`, each by its name; any other name's is made by a factory "package.module:factory".

    Raises ValueError for an unknown name and for a folder without the network's files.
    """
    loaders: dict[str, Callable[[Path], Score]] = {
        "clipscore": partial(clip_score, scale="cosine"),
        "pickscore": partial(clip_score, scale="logit"),
        "imagereward": image_reward,
    }
    for name, place in folders.items():
        if name not in loaders and ":" in str(place):
            loaders[name] = _made
    return load_each("--scores", loaders, folders)


def _made(factory: Path) -> Score:
    """Call the factory; what it returns is the score. Raises ValueError when there is none."""
    try:
        return pkgutil.resolve_name(str(factory))()
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--scores: {factory} cannot be loaded: {error}") from error


class ClipPair:
    """Both halves of a CLIP: pictures and texts as unit vectors float32 [B, D]. Raises ValueError for other folders."""

    def __init__(self, option: str, folder: Path) -> None:
        check_folder(option, folder, ("clip",))
        self.network = frozen(read_network(CLIPModel, folder, option))
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.preprocessing = Preprocessing.load(folder)
        self.length = self.network.config.text_config.max_position_embeddings

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        read = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.length, return_tensors="pt"
        ).to(self.network.device)
        pooled = self.network.text_model(read.input_ids, attention_mask=read.attention_mask).pooler_output
        return F.normalize(self.network.text_projection(pooled), dim=-1).cpu()

    @torch.no_grad()
    def pictures(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, H, W, 3] → [B, D]."""
        pixels = (self.preprocessing(part.to(self.network.device)) for part in images.split(BATCH))
        parts = [self.network.visual_projection(self.network.vision_model(part).pooler_output) for part in pixels]
        return F.normalize(torch.cat(parts), dim=-1).cpu()


def clip_score(folder: Path, scale: Literal["cosine", "logit"]) -> Score:
    """CLIPScore (arXiv 2104.08718), 2.5·max(cosine, 0); or, as PickScore (arXiv 2305.01569) is read, the cosine times
    the network's own logit scale."""
    pair = ClipPair("--scores clipscore" if scale == "cosine" else "--scores pickscore", folder)
    logit_scale = pair.network.logit_scale.exp().item()

    def score(prompts: Sequence[str], images: torch.Tensor) -> torch.Tensor:
        pictures = pair.pictures(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        cosines = torch.einsum("prd,pd->pr", pictures, pair.texts(prompts))
        return 2.5 * cosines.clamp_min(0) if scale == "cosine" else logit_scale * cosines

    return score
