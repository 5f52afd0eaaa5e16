"""Plain words about measures of a run that promise nothing good."""

from collections.abc import Iterator, Mapping

from distill.config import DistillConfig

EARLY = 40
"""Updates after which the first step should follow its anchor somewhat."""

LEAST_R2 = 0.2
LEAST_DIVERSITY = 0.6
RATIOS = (0.01, 3.0)
"""λ·|gradient of the diversity loss| / |that of distribution matching|: below, it is not heard; above, it drowns it."""


def warnings(config: DistillConfig, done: int, measured: Mapping[str, float]) -> Iterator[str]:
    """Yield a sentence for each of the measures after `done` updates that a run of `config` should not have."""
    anchored = config.lambda_ > 0
    if anchored and done >= EARLY and measured["anchor_r2"] < LEAST_R2:
        yield (
            f"the first step does not learn its anchor: anchor_r2 is {measured['anchor_r2']:.2f}, and should be above"
            f" {LEAST_R2} by now. Diversity will be lost as without one. Try warm_start_updates, a larger lambda"
            " or another anchor_k"
        )
    if done >= EARLY and measured["diversity_kept"] < LEAST_DIVERSITY:
        yield (
            f"the seeds of a prompt make much the same picture: diversity_kept is {measured['diversity_kept']:.2f} of"
            " the teacher's. Compare grid-*.png with grid-teacher.png"
        )
    low, high = RATIOS
    ratio = measured.get("gradient_ratio")
    if ratio is not None and not low <= ratio <= high:
        loud, silent = ("diversity loss", "distribution matching") if ratio > high else (
            "distribution matching", "diversity loss",
        )  # fmt: skip
        yield (
            f"the {silent} is hardly heard beside the {loud}: gradient_ratio is {ratio:.3g}. Change lambda, or set"
            " lambda_ratio"
        )
