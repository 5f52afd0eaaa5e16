from pathlib import Path
from typing import Literal

import pytest

from service.up.placement import placements

GPUS = ["0", "1", "2", "3"]


def dealt(models: list[str], gpus: list[str], workers: Literal["auto"] | int = "auto") -> list[tuple[str, str | None]]:
    return [(each.name, each.gpu) for each in placements(models, gpus, workers, 8001)]


def test_one_model_gets_every_gpu_and_several_share_them_in_turn() -> None:
    assert dealt(["a"], GPUS) == [("a", "0"), ("a", "1"), ("a", "2"), ("a", "3")]
    assert dealt(["a", "b"], GPUS) == [("a", "0"), ("b", "1"), ("a", "2"), ("b", "3")]
    assert dealt(["a", "b"], ["GPU-1"]) == [("a", "GPU-1"), ("b", "GPU-1")]


def test_a_model_named_twice_gets_twice_as_many() -> None:
    assert [name for name, _ in dealt(["a", "a", "b"], GPUS[:3])] == ["a", "a", "b"]


def test_without_gpus_each_model_has_a_worker_that_sees_what_the_environment_shows() -> None:
    assert dealt(["a", "b"], []) == [("a", None), ("b", None)]
    assert dealt(["a"], [], 3) == [("a", None)] * 3


def test_a_number_of_workers_counts_more_than_the_gpus() -> None:
    assert dealt(["a"], GPUS, 2) == [("a", "0"), ("a", "1")]
    assert dealt(["a"], GPUS[:2], 3) == [("a", "0"), ("a", "1"), ("a", "0")]
    with pytest.raises(ValueError, match="FOURSTEP_WORKERS is 1, and 2 models need a worker each"):
        dealt(["a", "b"], GPUS, 1)


def test_each_worker_has_a_port_of_its_own_unless_there_is_none() -> None:
    assert [each.metrics_port for each in placements(["a"], GPUS, "auto", 8001)] == [8001, 8002, 8003, 8004]
    assert [each.metrics_port for each in placements(["a"], GPUS, "auto", 0)] == [0] * 4


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    mine, yours = (tmp_path / whose / "a" for whose in ("mine", "yours"))
    mine.mkdir(parents=True)
    yours.mkdir(parents=True)
    assert dealt([str(mine), f"{mine}/"], []) == [("a", None)] * 2
    with pytest.raises(ValueError, match="two models would be served under one name: a, a"):
        dealt([str(mine), str(yours)], GPUS)
