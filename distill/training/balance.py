"""The balance of the losses as a run goes on: a warm start, λ by the ratio of the gradients, high noise first."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distill.method.dp_dmd import Hyperparameters

if TYPE_CHECKING:
    from distill.training.trainer import Trainer


class Balance:
    """The hyperparameters of `trainer`'s updates; those of its method where the configuration asks for nothing else.

    What it decides is measured every `log_every` updates, on weights and random numbers that a resumed run has, too.
    """

    def __init__(self, trainer: "Trainer") -> None:
        self.trainer = trainer
        self.lambda_ = trainer.method.hparams.lambda_
        self.matching_from = None if trainer.config.warm_start_updates else 0
        """The first update that is no warm start."""

    def hyperparameters(self, index: int) -> Hyperparameters:
        """Return those of update `index`. Every process must call it once an update."""
        config, hparams = self.trainer.config, self.trainer.method.hparams
        due = index % config.log_every == 0
        if self.matching_from is None and (index >= config.warm_start_updates or (due and self._anchor_is_learnt())):
            self.matching_from = index
        if self.matching_from is None:
            return replace(hparams, distribution_matching=False)
        if config.lambda_ratio and due:
            ratio = self.trainer.measures.gradient_ratio(replace(hparams, lambda_=self.lambda_), index)
            # Half of the way, on a logarithmic scale: the ratio is that of one batch.
            self.lambda_ *= (config.lambda_ratio / ratio) ** 0.5
        first = config.first_noise_range if index - self.matching_from < config.first_noise_updates else None
        return replace(hparams, lambda_=self.lambda_, noise_range=first or hparams.noise_range)

    def state_dict(self) -> dict[str, Any]:
        return {"lambda": self.lambda_, "matching_from": self.matching_from}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.lambda_, self.matching_from = state_dict["lambda"], state_dict["matching_from"]

    def _anchor_is_learnt(self) -> bool:
        return self.trainer.measures.anchor_r2() >= self.trainer.config.warm_start_r2
