"""One feature space's part of the report, on sets whose answer is known."""

import pytest
import torch

from distill.evaluation import comparison

GROUPS = {"first": slice(0, 16), "rest": slice(16, None)}


def teacher() -> torch.Tensor:
    """32 prompts, 9 samples: [32, 9, 12]."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(32, 1, 12, generator=generator)
    return centres + torch.randn(32, 9, 12, generator=generator)


def test_the_teacher_beside_itself() -> None:
    report = comparison.compare(teacher(), teacher(), GROUPS)
    for group in GROUPS:
        assert report["diversity"][group]["ratio"] == pytest.approx({"value": 1, "low": 1, "high": 1})
        assert report["vendi_share"][group]["ratio"]["value"] == pytest.approx(1)
    assert report["manifolds"]["precision"] == report["manifolds"]["coverage"] == 1
    assert report["pairing"]["same_noise"] == pytest.approx(1)
    assert report["pairing"]["other_noise"] < 0.7


def test_a_student_that_forgets_its_noise_is_told_from_one_that_keeps_it() -> None:
    kept, forgotten = teacher(), teacher().roll(1, dims=1)
    assert comparison.pairing(kept, teacher())["same_noise"] == pytest.approx(1)
    lost = comparison.pairing(forgotten, teacher())
    assert lost["same_noise"] < 0.7
    diversity = comparison.compare(forgotten, teacher(), GROUPS)["diversity"]["first"]["ratio"]["value"]
    assert diversity == pytest.approx(1), "which pictures are whose does not matter to diversity"


def test_of_many_prompts_some_are_compared_each_with_each_and_all_for_diversity(monkeypatch) -> None:
    whole = comparison.compare(teacher(), teacher().roll(1, dims=1), GROUPS)
    monkeypatch.setattr(comparison, "CLOUD", 16)
    part = comparison.compare(teacher(), teacher().roll(1, dims=1), GROUPS)
    assert part["diversity"] == whole["diversity"]
    half = comparison.compare(teacher()[::2], teacher()[::2].roll(1, dims=1), {})
    assert part["kernel_distance"] == half["kernel_distance"]


def test_only_the_collapsed_group_loses_diversity() -> None:
    collapsed = teacher()
    collapsed[:16] = collapsed[:16].mean(1, keepdim=True) + 0.1 * (
        collapsed[:16] - collapsed[:16].mean(1, keepdim=True)
    )
    report = comparison.compare(collapsed, teacher(), GROUPS)
    assert report["diversity"]["first"]["ratio"]["high"] < 0.3
    assert report["diversity"]["rest"]["ratio"]["value"] == pytest.approx(1)
    assert report["vendi_share"]["first"]["ratio"]["high"] < 0.5
