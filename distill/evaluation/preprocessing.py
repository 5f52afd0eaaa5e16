"""Pictures as a Hugging Face vision model takes them, by the `preprocessor_config.json` of its folder."""

import json
from pathlib import Path
from typing import Self

import torch
from transformers import CLIPImageProcessorPil

FILE = "preprocessor_config.json"
REQUIRED = ("size", "image_mean", "image_std")
RESAMPLINGS = {2: "bilinear", 3: "bicubic"}


class Preprocessing:
    """uint8 [B, H, W, 3] → float32 [B, 3, h, w] on the same device: resized by Pillow, cropped, normalised.

    CLIP's processor does what the files of other models say, too; those of newer models would need torchvision.
    """

    def __init__(self, processor: CLIPImageProcessorPil) -> None:
        self._processor = processor

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises ValueError when the file is missing, lacks a field, or asks for another resampling."""
        if not (folder / FILE).is_file():
            raise ValueError(f"{folder} holds no {FILE}")
        settings = json.loads((folder / FILE).read_text())
        if missing := [name for name in REQUIRED if name not in settings]:
            raise ValueError(f"{folder / FILE}: lacks {', '.join(missing)}")
        if settings.get("resample", 3) not in RESAMPLINGS:
            raise ValueError(f"{folder / FILE}: resample {settings['resample']} is none of {RESAMPLINGS}")
        crops = bool(settings.get("do_center_crop"))
        return cls(CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True, do_center_crop=crops))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        pictures = list(images.cpu().numpy())
        made = self._processor(pictures, input_data_format="channels_last", return_tensors="pt")
        return made["pixel_values"].to(images.device)
