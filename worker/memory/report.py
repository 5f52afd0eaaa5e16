"""The answer of `fourstep models check --gpu-memory`."""

from pydantic import ByteSize, TypeAdapter, ValidationError

from jobs.cli import read_settings
from jobs.settings import WorkerSettings
from worker.memory import plan
from worker.model_folder import loading
from worker.model_folder.loading import LoadedModel


def read_bytes(text: str) -> int:
    """Read 24GB (10⁹ bytes each) or 24GiB. Raises ValueError."""
    try:
        return TypeAdapter(ByteSize).validate_python(text)
    except ValidationError as error:
        raise ValueError(f"{text} is not of the form 24GB or 24GiB") from error


def load(model: str) -> LoadedModel:
    """Load `model` as a worker with the settings of the environment would on a GPU, but without memory there.

    Raises FolderRefusedError.
    """
    settings = read_settings(WorkerSettings)
    return loading.load(
        model,
        str(plan.SHAPES_ONLY),
        "bfloat16" if settings.dtype == "auto" else settings.dtype,
        settings.steps,
        settings.guidance_scale,
        settings.sizes,
        settings.text_encoders,
        settings.quantize,
    )


def lines(model: LoadedModel, memory: int) -> tuple[list[str], bool]:
    """Return lines for people, and whether a picture of every size fits into `memory` bytes."""
    parts, room = plan.weights(model), _human(memory)
    total, fits = sum(parts.values()), True
    dtype = str(model.network.dtype).removeprefix("torch.")
    written = ", ".join(f"{name} {_human(size)}" for name, size in parts.items())
    told = [f"  weights in {dtype}: {_human(total)} ({written}); kept free: {_human(plan.RESERVE)}"]
    for size in model.contract.sizes:
        name = f"{size[1]}×{size[0]}"
        counted = list(plan.batches(model, size, memory))
        told.append(f"  {name:<12}{'images':>8}{'step':>12}{'decode':>12}")
        told += [f"  {'':<12}{each.rows:>8}{_human(each.step):>12}{_human(each.decode):>12}" for each in counted]
        found = plan.fit(counted, total, memory)
        if found is None:
            fits = False
            told.append(f"  {name} does not fit {room}")
        else:
            told.append(f"  {name} fits {room}: {found.rows} images a step, decoded {found.decoded} at once")
    if not fits:
        told.append("  FOURSTEP_TEXT_ENCODERS=int8 or cpu, and FOURSTEP_QUANTIZE=int8 or fp8, make the weights smaller")
    return told, fits


def _human(size: int) -> str:
    return ByteSize(size).human_readable()
