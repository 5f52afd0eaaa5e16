"""The runs of the mixture setting, by the tables they belong to."""

from dataclasses import replace

from distill.replicate.mixture_run import STUDENT_GRID, Run, through
from worker.sampling.noise_schedule import shifted_grid

DMD = Run("dmd", method="dmd")
PAPER = Run("dp-dmd")
"""The paper's setting: λ = .05, K = 5 of 30."""

AT_GRID_POINT = through(STUDENT_GRID[1], before=8, after=22)
"""The teacher's grid, 30 steps, that visits the noise level where the student's first step ends, after 8 of them."""

METHODS = (
    DMD,
    replace(PAPER, name="dmd-detached", lambda_=(0.0, 0.0)),
    Run("dmd-perceptual", method="dmd-perceptual"),
    Run("dmd-gan", method="dmd-gan"),
    PAPER,
    Run("dp-dmd-nodetach", method="dp-dmd-nodetach"),
    Run("step1-regression", method="step1-regression"),
)
"""Table 1, with the controls of Figure 5."""

ANCHORS = tuple(PAPER if k == 5 else replace(PAPER, name=f"k{k}", k=(k, k)) for k in (1, 3, 5, 10, 30))
"""Table 3."""

WEIGHTS = tuple(
    PAPER if weight == 0.05 else replace(PAPER, name=f"lambda{weight}", lambda_=(weight, weight))
    for weight in (0.01, 0.05, 0.1, 0.5)
)
"""Table 4. Its row λ = 0 is dmd-detached, the same but for the anchor, or dmd, which the paper shows."""

GRID_POINT = replace(PAPER, name="at-grid-point", k=(8, 8), teacher_grid=AT_GRID_POINT)

STRONG = (
    replace(GRID_POINT, name="strong-anchor", lambda_=(0.5, 0.5)),
    replace(GRID_POINT, name="strong-anchor-one-rollout", lambda_=(0.5, 0.5), critic_rollouts=1),
)
"""λ ten times the paper's, to an anchor at the end of the student's first step."""

SHORT_PATH = through(STUDENT_GRID[1], before=8, after=2)
WHOLE_PATH = replace(PAPER, name="whole-path", k=(10, 10), teacher_grid=SHORT_PATH)
"""The anchor is where the teacher ends, in 10 steps: short ones while the mode is decided, two long ones after."""

BEYOND = (
    GRID_POINT,
    replace(PAPER, name="k-drawn", k=(3, 15)),
    replace(PAPER, name="x0-anchor", anchor_target="x0"),
    replace(PAPER, name="lambda-falls", lambda_=(0.5, 0.01)),
    replace(PAPER, name="lambda-rises", lambda_=(0.01, 0.5)),
    replace(PAPER, name="late-grid", student_grid=shifted_grid(4, 3.0)),
    replace(PAPER, name="idle-last-step", student_grid=shifted_grid(4, 3.0, last=0.003)),
    replace(PAPER, name="critic-2", critic_updates=2, critic_rollouts=2),
    replace(PAPER, name="critic-10", critic_updates=10, critic_rollouts=10),
    replace(PAPER, name="one-rollout", critic_rollouts=1),
    replace(PAPER, name="unguided-anchor", anchor_guidance=1.0),
    *STRONG,
    WHOLE_PATH,
    replace(WHOLE_PATH, name="whole-path-light", lambda_=(0.01, 0.01)),
    replace(WHOLE_PATH, name="whole-path-one-rollout", critic_rollouts=1),
)
"""Variations on the paper's hyperparameters: one change each, then combinations."""

LONG_STEP = (1.0, 0.4, 0.25, 0.1, 0.0)
COLLAPSE = (
    replace(DMD, name="dmd-16", dimension=16),
    replace(PAPER, name="dp-dmd-16", dimension=16),
    replace(DMD, name="dmd-16-long-step", dimension=16, student_grid=LONG_STEP),
    replace(PAPER, name="dp-dmd-16-long-step", dimension=16, student_grid=LONG_STEP, k=(18, 18)),
    replace(DMD, name="dmd-64", dimension=64),
    replace(PAPER, name="dp-dmd-64", dimension=64),
    replace(DMD, name="dmd-late-grid", student_grid=shifted_grid(4, 3.0)),
    replace(DMD, name="dmd-unguided", guidance=1.0, anchor_guidance=1.0),
    replace(PAPER, name="dp-dmd-unguided", guidance=1.0, anchor_guidance=1.0),
)
"""Plain DMD and DP-DMD where modes are lost differently: in fewer dimensions, where modes are decided later; there also
with a longer first step and a later anchor; with a first step that ends earlier; without guidance."""

CHOSEN = "k30"
"""The best on world and seeds 0: the preset for small models."""

_CHOSEN = next(run for run in (*ANCHORS, *BEYOND) if run.name == CHOSEN)
CONFIRMED = (
    replace(DMD, name="dmd-again", seed=100),
    replace(PAPER, name="dp-dmd-again", seed=100),
    replace(_CHOSEN, name="preset", seed=100),
)
"""Runs with another seed of the world, of the initial weights and of all noise, to judge the chosen one."""


def every() -> tuple[Run, ...]:
    """Every run once, in the order of training: first the runs that the gates need."""
    runs: dict[str, Run] = {}
    for run in (*METHODS, *STRONG, *ANCHORS, *WEIGHTS, *COLLAPSE, *BEYOND):
        runs.setdefault(run.name, run)
    return tuple(runs.values())
