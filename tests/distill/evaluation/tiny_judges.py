"""Vision networks of a few thousand random weights in folders like the published ones."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    SwinConfig,
)

from worker.testing import tiny_pipelines

SIDE = 28


def dinov2(folder: Path) -> Path:
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=7)
    Dinov2Model(config).save_pretrained(folder)
    return _preprocessor(
        folder, size={"shortest_edge": 32}, crop_size={"height": SIDE, "width": SIDE}, do_center_crop=True
    )


def dinov3(folder: Path) -> Path:
    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=7
    )
    DINOv3ViTModel(config).save_pretrained(folder)
    return _preprocessor(folder, size={"height": SIDE, "width": SIDE}, resample=2)


def clip(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = tiny_pipelines.build().tokenizer
    part = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = part | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tiny_pipelines.TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = part | {"image_size": SIDE, "patch_size": 7}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return _preprocessor(folder, size={"shortest_edge": SIDE}, crop_size=SIDE, do_center_crop=True)


def mask2former(folder: Path) -> Path:
    """Save a network that finds five things in every picture, each a mouse or a dog."""
    torch.manual_seed(0)
    swin = SwinConfig(
        image_size=64, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=32, num_queries=5,
        id2label={0: "mouse", 1: "dog"}, label2id={"mouse": 0, "dog": 1},
    )  # fmt: skip
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    return _preprocessor(folder, size={"shortest_edge": 64}, resample=2)


def _preprocessor(folder: Path, **settings: object) -> Path:
    common = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28], "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(common | settings))
    return folder


def brightness() -> Callable[[Sequence[str], torch.Tensor], torch.Tensor]:
    """A score by a factory: the mean of the pixels."""
    return lambda prompts, images: images.float().mean((2, 3, 4))
