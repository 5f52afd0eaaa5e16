"""An image classifier of the operator's choice, whose verdict some pictures must not have."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from worker.device import accelerator
from worker.errors import FolderRefusedError
from worker.model_folder.networks import read_network

log = logging.getLogger(__name__)


class SafetyModel:
    """A transformers folder for image classification: it refuses pictures that are likely to have one of `labels`.

    They are refused from a probability of `threshold` on, of all these labels together.
    """

    def __init__(self, folder: str, labels: Collection[str], threshold: float, device: torch.device) -> None:
        """Raise FolderRefusedError for a folder that is none, holds code or pickles, or lacks a weight or label."""
        try:
            # Weights that are code, and code beside them, are not loaded.
            self._processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, use_fast=False)
        except (OSError, ValueError, ImportError) as error:
            reason = str(error).partition("\n")[0]
            raise FolderRefusedError(f"FOURSTEP_SAFETY_MODEL: {folder} is no image classifier: {reason}") from error
        model = read_network(AutoModelForImageClassification, Path(folder), "FOURSTEP_SAFETY_MODEL")
        known = {label: index for index, label in model.config.id2label.items()}
        if unknown := sorted(set(labels) - set(known)):
            message = f"the model has no {', '.join(unknown)}, only {', '.join(known)}"
            raise FolderRefusedError(f"FOURSTEP_SAFETY_LABELS: {message}")
        self._model = model.to(device).eval()
        self._refused = {known[label]: label for label in labels}
        self._threshold = threshold

    @torch.inference_mode()
    def verdicts(self, pictures: Sequence[np.ndarray]) -> list[str | None]:
        """Return for each picture, uint8 [height, width, 3], the label it is refused for, None for those that pass.

        Those that do not fit into the device's memory together are judged in halves; when one alone does not, the model
        moves to the CPU.
        """
        try:
            return self._verdicts_together(pictures)
        except RuntimeError as error:
            if not accelerator.is_out_of_memory(error):
                raise
        accelerator.free_memory(self._model.device)
        if len(pictures) == 1:
            log.warning("out of memory: pictures are judged on the CPU from now on")
            self._model.to("cpu")
            return self._verdicts_together(pictures)
        half = len(pictures) // 2
        return self.verdicts(pictures[:half]) + self.verdicts(pictures[half:])

    def _verdicts_together(self, pictures: Sequence[np.ndarray]) -> list[str | None]:
        inputs = self._processor(images=[Image.fromarray(picture) for picture in pictures], return_tensors="pt")
        logits = self._model(inputs["pixel_values"].to(self._model.device)).logits.float()
        several = self._model.config.problem_type == "multi_label_classification"
        likely = (logits.sigmoid() if several else logits.softmax(-1))[:, list(self._refused)]
        together = likely.max(-1).values if several else likely.sum(-1)
        labels = list(self._refused.values())
        return [
            labels[int(row.argmax())] if total >= self._threshold else None
            for row, total in zip(likely, together, strict=True)
        ]
