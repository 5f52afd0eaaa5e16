"""Check a loaded pipeline against its sampling contract, and make the contract of one that has none."""

from typing import Any

from diffusers import FlowMatchLCMScheduler, LCMScheduler
from pydantic import ValidationError

from jobs.sampling_contract import SamplingContract
from worker.errors import FolderRefusedError
from worker.families import registry
from worker.sampling import step_table
from worker.sampling.step_table import StepTable


def own_contract(pipeline: Any, steps: int, guidance_scale: float = 1.0) -> SamplingContract:
    """Return the contract of a pipeline without sampling.json: its scheduler's grid of `steps`, its native size.

    Raises FolderRefusedError for a scheduler whose grid cannot be served.
    """
    family, scheduler = registry.of(pipeline), pipeline.scheduler
    size = family.native_size(pipeline)
    renoise = isinstance(scheduler, LCMScheduler | FlowMatchLCMScheduler)
    try:
        return SamplingContract(
            method="none",
            family=family.name,
            prediction=family.prediction(pipeline),
            steps=steps,
            sampler="re-noise" if renoise else "ode",
            guidance_scale=guidance_scale,
            max_sequence_length=family.default_sequence_length(pipeline),
            sizes=[size],
            **family.contract_grid(family.own_grid(pipeline, size, steps)),
        )
    except FolderRefusedError:
        raise
    except ValidationError as error:
        faults = "; ".join(part["msg"] for part in error.errors())
        raise FolderRefusedError(f"scheduler: the {steps} steps of {type(scheduler).__name__}: {faults}") from error
    except ValueError as error:
        raise FolderRefusedError(f"scheduler: {error}") from error


def check_contract(contract: SamplingContract, pipeline: Any) -> StepTable:
    """Return the sampler's table for a pipeline that fits `contract`. Raises FolderRefusedError, naming the field."""
    registry.of(pipeline).check(contract, pipeline)
    try:
        return step_table.from_contract(contract, getattr(pipeline.scheduler, "alphas_cumprod", None))
    except ValueError as error:
        raise FolderRefusedError(str(error)) from error
