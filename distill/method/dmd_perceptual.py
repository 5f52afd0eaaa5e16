"""DMD with a perceptual term: the student's image near the teacher's from the same noise."""

from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel, ConfigDict, PositiveFloat

from distill.method import perceptual
from distill.method.base import Batch, Networks, NoSettings
from distill.method.dp_dmd import Hyperparameters, Term
from distill.method.variants import Dmd

if TYPE_CHECKING:
    from distill.config import DistillConfig


class Perceptual(BaseModel):
    """`network` is "package.module:factory", see `distill.method.perceptual.feature_network`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str
    weight: PositiveFloat = 1.0


class PerceptualSettings(NoSettings):
    perceptual: Perceptual


class DmdPerceptual(Dmd):
    name = "dmd-perceptual"
    Settings = PerceptualSettings

    def __init__(self, config: "DistillConfig", hparams: Hyperparameters, networks: Networks) -> None:
        super().__init__(config, hparams, networks)
        settings: Perceptual = config.section("perceptual")
        self.weight = settings.weight
        self.features = perceptual.feature_network(settings.network).to(networks.device)
        self.decode = networks.decode

    def student_terms(self, batch: Batch, noise: torch.Tensor) -> dict[str, Term]:
        def near_the_teacher(x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                reference = self.decode(batch.teacher_sample(noise))
            return perceptual.distance(self.features, self.decode(x), reference)

        return {"perceptual": (self.weight, near_the_teacher)}
