"""A picture that the safety model objects to is refused, and its caller is told so."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from redis.asyncio import Redis
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from jobs.settings import WorkerSettings
from jobs.testing.waiting import wait_until
from tests.worker.running_worker import running
from tests.worker.tasks import image_task, pictures, run, set_task
from worker.engine.decoded import NOT_FINITE
from worker.engine.engine import Engine
from worker.engine.outcomes import Failure
from worker.errors import FolderRefusedError
from worker.families.network import Network
from worker.model_folder.loading import LoadedModel
from worker.model_folder.safety_model import SafetyModel
from worker.startup import start_engine

LABELS = {0: "safe", 1: "dark", 2: "odd"}


def classifier(folder: Path, threshold: float = 0.5, labels: tuple[str, ...] = ("dark",)) -> SafetyModel:
    """A classifier that gives each of its three labels a third, whatever it sees."""
    config = ViTConfig(
        hidden_size=4,
        num_hidden_layers=0,
        num_attention_heads=1,
        intermediate_size=4,
        image_size=16,
        patch_size=16,
        id2label=LABELS,
        label2id={label: index for index, label in LABELS.items()},
    )
    model = ViTForImageClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return SafetyModel(str(folder), labels, threshold, torch.device("cpu"))


def test_the_probabilities_of_its_labels_count_together(tmp_path: Path) -> None:
    picture = np.zeros((32, 48, 3), np.uint8)
    assert classifier(tmp_path).verdicts([picture, picture]) == [None, None]
    assert classifier(tmp_path, threshold=0.3).verdicts([picture]) == ["dark"]
    assert classifier(tmp_path, labels=("dark", "odd")).verdicts([picture])[0] in ("dark", "odd")


@pytest.mark.parametrize(("fits", "tried"), [(1, [3, 1, 2, 1, 1]), (0, [3, 1, 1, 2])])
def test_pictures_that_do_not_fit_into_memory_are_judged_in_parts_or_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: int, tried: list[int]
) -> None:
    safety, seen, on_device = classifier(tmp_path, threshold=0.3), list[int](), [True]
    monkeypatch.setattr(safety._model, "to", lambda device: on_device.remove(True))

    def run_out(module: torch.nn.Module, pixels: tuple[torch.Tensor, ...]) -> None:
        seen.append(len(pixels[0]))
        if on_device and len(pixels[0]) > fits:
            raise torch.OutOfMemoryError

    safety._model.register_forward_pre_hook(run_out)
    assert safety.verdicts([np.zeros((32, 48, 3), np.uint8)] * 3) == ["dark"] * 3
    assert seen == tried


def test_the_safety_model_has_its_memory_before_the_warm_up_takes_what_is_left(
    tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(SafetyModel, "__init__", lambda *arguments: order.append("safety model"))
    monkeypatch.setattr(Engine, "warm_up", lambda engine: order.append("warm-up"))
    settings = WorkerSettings(safety_model="a folder", safety_labels=("nsfw",))
    engine = start_engine(settings, lambda *arguments: tiny_model)
    assert order == ["safety model", "warm-up"]
    assert engine.judge is not None


def only_even_seeds(engine: Engine, pictures: list[np.ndarray]) -> None:
    """Refuse those of `pictures` that come second, fourth, ..., by their pixels."""
    refused = {picture.tobytes() for picture in pictures[1::2]}
    engine.judge = lambda seen: ["dark" if one.tobytes() in refused else None for one in seen]


def test_a_picture_that_is_not_finite_is_none_to_be_judged(
    tiny_model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Network, "decode", lambda network, latents: torch.full((len(latents), 3, 64, 64), torch.nan))
    engine = Engine(tiny_model, 4)
    engine.judge = classifier(tmp_path).verdicts
    assert run(engine, [image_task()]) == {"0": Failure("0", "error", NOT_FINITE)}


def test_only_what_is_refused_fails_and_a_set_with_it(tiny_model: LoadedModel) -> None:
    engine = Engine(tiny_model, 4)
    tasks = [image_task(seed=seed, mode="strict") for seed in range(4)]
    only_even_seeds(engine, [picture.pixels for picture in pictures(engine, tasks)])
    outcomes = run(engine, [*tasks, set_task(2, 2, seed=0, mode="strict")])
    reasons = [outcome.reason if isinstance(outcome := outcomes[str(i)], Failure) else "made" for i in range(5)]
    assert reasons == ["made", "refused", "made", "refused", "refused"]


async def test_a_job_says_that_its_picture_was_refused(redis: Redis, tiny_model: LoadedModel, tmp_path: Path) -> None:
    async with running(redis, tiny_model) as worker:
        worker.engine.judge = classifier(tmp_path, threshold=0.1).verdicts
        await worker.queue.admit([image_task(job_id="judged")], 10, 600)
        await wait_until(lambda: worker.images("refused") == 1)
        state = await worker.queue.job("judged")
    assert state is not None
    assert (state.status, state.results) == ("failed", [])
    assert state.failures[0].reason == "refused"
    assert state.failures[0].detail == "the server's safety model takes the picture for dark"


def test_a_folder_that_cannot_judge_stops_the_worker(tmp_path: Path) -> None:
    with pytest.raises(FolderRefusedError, match=r"FOURSTEP_SAFETY_MODEL: .*is no image classifier"):
        SafetyModel(str(tmp_path / "nothing"), ("dark",), 0.5, torch.device("cpu"))
    with pytest.raises(FolderRefusedError, match="FOURSTEP_SAFETY_LABELS: the model has no drak, only safe, dark, odd"):
        classifier(tmp_path, labels=("drak",))


@pytest.mark.parametrize("half", [{"safety_model": "folder"}, {"safety_labels": "nsfw"}])
def test_model_and_labels_go_together(half: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="set both"):
        WorkerSettings.model_validate(half)
