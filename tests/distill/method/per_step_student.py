"""A student that shows which of its steps a gradient came to, and its DP-DMD losses."""

import torch
from torch import nn

from distill.method import dp_dmd
from distill.method.dp_dmd import Hyperparameters
from worker.sampling.noise_schedule import Predict, shifted_grid

METHOD = Hyperparameters(
    student_grid=shifted_grid(4, 3.0), teacher_grid=shifted_grid(30, 3.0), anchor_k=5, lambda_=0.05, norm="xt"
)


class PerStepStudent(nn.Module):
    """A velocity field with weights of its own for every noise level of the student's grid, so that a
    gradient shows which step it came to."""

    def __init__(self, sigmas: tuple[float, ...]) -> None:
        super().__init__()
        self.sigmas = sigmas[:-1]
        self.steps = nn.ModuleList(nn.Linear(6, 6) for _ in self.sigmas)

    def forward(self, state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        step = min(range(len(self.sigmas)), key=lambda i: abs(self.sigmas[i] - float(t[0])))
        return torch.tanh(self.steps[step](state))

    def gradients(self) -> list[float]:
        return [0.0 if step.weight.grad is None else float(step.weight.grad.abs().sum()) for step in self.steps]


def field(seed: int) -> Predict:
    layer = nn.Linear(6, 6, bias=False).requires_grad_(False)
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(seed))
    return lambda state, t: torch.tanh(layer(state)) * t[:, None]


def student_losses(student: nn.Module, method: Hyperparameters, **options) -> dp_dmd.Losses:
    noise = torch.randn(8, 6, generator=torch.Generator().manual_seed(3))
    return dp_dmd.student_losses(
        student, field(1), field(2), noise, torch.Generator().manual_seed(4), method, **options
    )
