"""DMD with an adversarial term: a head on the fake score's features is the discriminator (DMD2)."""

from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat

from distill.method.adversary import Adversary, GanLoss, Head
from distill.method.base import Batch, Networks, NoSettings, frozen
from distill.method.dp_dmd import Hyperparameters, Term
from distill.method.variants import Dmd

if TYPE_CHECKING:
    from distill.config import DistillConfig


class Gan(BaseModel):
    """Weights of the adversarial loss in the student's turn and in the fake score's, and of R1 in the latter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    loss: GanLoss = "softplus"
    student_weight: PositiveFloat = 5e-3
    critic_weight: PositiveFloat = 1e-2
    r1: NonNegativeFloat = 0.0
    r1_noise: PositiveFloat = 0.01


class GanSettings(NoSettings):
    gan: Gan | None = None


class DmdGan(Dmd):
    name = "dmd-gan"
    Settings = GanSettings
    data_parallel = False

    def __init__(self, config: "DistillConfig", hparams: Hyperparameters, networks: Networks) -> None:
        super().__init__(config, hparams, networks)
        self.gan: Gan = config.section("gan") or Gan()
        self.critic_weights = networks.critic
        self.head = networks.prepare(Head(networks.width))
        self.adversary = Adversary(networks.layer, self.head, self.gan.loss, self.gan.r1, self.gan.r1_noise)

    @classmethod
    def check(cls, config: "DistillConfig") -> None:
        super().check(config)
        if config.lora_rank is not None and config.gradient_checkpointing:
            raise ValueError(
                "gradient_checkpointing: dmd-gan differentiates two adapters at once, one alone is repeated"
            )

    def critic_terms(self, batch: Batch) -> dict[str, Term]:
        def discriminator(x: torch.Tensor) -> torch.Tensor:
            real = batch.teacher_sample(torch.randn(x.shape, generator=batch.generator).to(x))
            return self.adversary.discriminator(batch.critic, x, real, batch.generator, self.hparams)

        return {"discriminator": (self.gan.critic_weight, discriminator)}

    def student_terms(self, batch: Batch, noise: torch.Tensor) -> dict[str, Term]:
        def adversarial(x: torch.Tensor) -> torch.Tensor:
            with frozen(self.critic_weights, self.head):
                return self.adversary.generator(batch.critic, x, batch.generator, self.hparams)

        return {"adversarial": (self.gan.student_weight, adversarial)}
