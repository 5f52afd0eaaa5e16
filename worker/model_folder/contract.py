"""Check a loaded pipeline against its sampling contract, and make the contract of one that has none."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from jobs.sampling_contract import SamplingContract
from worker.errors import FolderRefusedError
from worker.families import registry
from worker.families.base import Size
from worker.sampling import step_table
from worker.sampling.schedulers import refuse_other_scheduler, sampler_fields
from worker.sampling.step_table import StepTable


def own_contract(
    pipeline: Any, steps: int, guidance_scale: float = 1.0, sizes: Sequence[Size] = ()
) -> SamplingContract:
    """Return the contract of a pipeline without sampling.json: its scheduler's sampler and grid of `steps`.

    A denoiser that is told its guidance is told `guidance_scale`, where that is above 1. `sizes` are (height, width) in
    pixels, by default the native one. Raises FolderRefusedError for a scheduler that cannot be served.
    """
    family, scheduler = registry.of(pipeline), pipeline.scheduler
    sizes = list(sizes) or [family.native_size(pipeline)]
    told = family.told_guidance(pipeline)
    if told is not None and guidance_scale > 1:
        told, guidance_scale = guidance_scale, 1.0
    refuse_other_scheduler(scheduler)
    try:
        prediction = family.prediction(pipeline)
        grids = [family.own_grid(pipeline, size, steps) for size in sizes]
        return SamplingContract(
            method="none",
            family=family.name,
            prediction=prediction,
            steps=steps,
            guidance_scale=guidance_scale,
            told_guidance=told,
            negative_prompt=family.negative_prompt,
            max_sequence_length=family.default_sequence_length(pipeline),
            sizes=sizes,
            size_sigmas=None if all(grid == grids[0] for grid in grids) else grids,
            **sampler_fields(scheduler),
            **family.contract_grid(grids[0]),
        )
    except FolderRefusedError:
        raise
    except ValidationError as error:
        faults = "; ".join(part["msg"] for part in error.errors())
        raise FolderRefusedError(f"scheduler: the {steps} steps of {type(scheduler).__name__}: {faults}") from error
    except ValueError as error:
        raise FolderRefusedError(f"scheduler: {error}") from error


def resized(contract: SamplingContract, sizes: Sequence[Size], pipeline: Any) -> SamplingContract:
    """Return `contract` with other `sizes`.

    Where its noise levels are those of the pipeline's own scheduler, each size gets the scheduler's. Raises
    FolderRefusedError for a size whose levels are not known.
    """
    sigmas = contract.sigmas
    if sigmas is None:
        return contract.model_copy(update={"sizes": list(sizes)})
    grids = dict(zip(contract.sizes, contract.size_sigmas or [sigmas] * len(contract.sizes), strict=True))
    if any(size not in grids for size in sizes):
        family = registry.of(pipeline)
        own = {size: family.own_grid(pipeline, size, contract.steps) for size in (contract.sizes[0], *sizes)}
        if np.allclose(own[contract.sizes[0]], sigmas, atol=1e-6):
            grids = own | grids
        elif contract.size_sigmas is None:
            grids |= dict.fromkeys(sizes, sigmas)
        else:
            unknown = next(size for size in sizes if size not in grids)
            raise FolderRefusedError(f"sizes: {unknown}, but size_sigmas has no noise levels for it")
    chosen = [grids[size] for size in sizes]
    apart = any(grid != chosen[0] for grid in chosen)
    update = {"sizes": list(sizes), "sigmas": chosen[0], "size_sigmas": chosen if apart else None}
    return contract.model_copy(update=update)


def check_contract(contract: SamplingContract, pipeline: Any) -> dict[Size, StepTable]:
    """Return the sampler's table for each size, given a pipeline that fits `contract`; sizes of one grid share one.

    Raises FolderRefusedError, naming the field.
    """
    registry.of(pipeline).check(contract, pipeline)
    alphas_cumprod = getattr(pipeline.scheduler, "alphas_cumprod", None)
    try:
        if contract.size_sigmas is None:
            return dict.fromkeys(contract.sizes, step_table.from_contract(contract, alphas_cumprod))
        return {size: step_table.from_contract(contract, alphas_cumprod, size) for size in contract.sizes}
    except ValueError as error:
        raise FolderRefusedError(str(error)) from error
