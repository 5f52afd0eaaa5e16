"""GenEval's rules on known things, and its two networks from tiny folders."""

import pytest
import torch

from distill.evaluation import geneval
from distill.evaluation.geneval import Thing
from tests.distill.evaluation import tiny_judges

IMAGE = torch.zeros(64, 64, 3, dtype=torch.uint8)


def thing(name: str, score: float = 0.95, box: tuple[float, float, float, float] = (0, 0, 10, 10)) -> Thing:
    return Thing(name, score, box, torch.ones(64, 64, dtype=torch.bool))


def right(task: dict, *things: Thing, colors: tuple[str, ...] = ()) -> bool:
    return geneval.is_right({"tag": "any", **task}, IMAGE, things, lambda image, of: list(colors))


def test_a_thing_must_be_there_and_surely() -> None:
    wanted = {"include": [{"class": "cat", "count": 1}]}
    assert right(wanted, thing("dog"), thing("cat"))
    assert not right(wanted, thing("dog"))
    assert not right(wanted, thing("cat", 0.2))
    assert not right({**wanted, "tag": "counting"}, thing("cat", 0.8))


def test_a_count_is_exact_when_more_are_excluded() -> None:
    two = {"include": [{"class": "cat", "count": 2}], "exclude": [{"class": "cat", "count": 3}], "tag": "counting"}
    assert [right(two, *[thing("cat")] * n) for n in (1, 2, 3)] == [False, True, False]


def test_a_color_is_that_of_enough_things() -> None:
    wanted = {"include": [{"class": "cat", "count": 2, "color": "red"}]}
    assert right(wanted, thing("cat"), thing("cat"), colors=("red", "red"))
    assert not right(wanted, thing("cat"), thing("cat"), colors=("red", "blue"))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((40, 0, 50, 10), {"right of"}),
        ((0, 40, 10, 50), {"below"}),
        ((40, 40, 50, 50), {"right of", "below"}),
        ((1, 0, 11, 10), set()),
    ],
)
def test_relations(box, expected) -> None:
    assert geneval.relations(thing("cat", box=box), thing("dog")) == expected


def test_a_place_is_that_of_the_surest_things() -> None:
    left = {"include": [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}]}
    dog, near, far = thing("dog", box=(40, 0, 50, 10)), thing("cat"), thing("cat", 0.5, (54, 0, 64, 10))
    assert right(left, dog, near, far)
    assert not right(left, dog, far)


def test_shares_by_kind_of_task() -> None:
    tasks = [{"tag": "colors"}, {"tag": "colors"}, {"tag": "counting"}]
    shares = geneval.by_tag(tasks, torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]))
    assert shares == {"colors": 0.75, "counting": 0.0, "overall": 0.375}


def test_instances_are_sorted_boxed_and_scored_by_class_and_mask() -> None:
    classes = torch.log(torch.tensor([[0.7, 0.1, 0.2], [0.05, 0.9, 0.05]]))
    masks = torch.full((2, 8, 8), -4.0)
    masks[0, 2:4, 1:6], masks[1, :, 4:] = 4.0, 0.5
    first, second, *_ = geneval.instances(classes, masks, (8, 8), {0: "cat", 1: "dog"})
    assert (first.name, first.box) == ("cat", (1, 2, 6, 4))
    assert first.score == pytest.approx(0.7 * torch.tensor(4.0).sigmoid().item())
    assert (second.name, second.box) == ("dog", (4, 0, 8, 8))
    assert second.score == pytest.approx(0.9 * torch.tensor(0.5).sigmoid().item())


def test_a_thing_is_cut_out_on_grey() -> None:
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[10, 20] = True
    alone = geneval.cut_out(IMAGE, Thing("cat", 1, (20, 10, 22, 11), mask))
    assert alone.tolist() == [[[0] * 3, [geneval.GREY] * 3]]


def test_a_tiny_detector_and_clip_judge_real_pictures(tmp_path) -> None:
    folder = tiny_judges.mask2former(tmp_path / "detector")
    image = torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8)
    found = geneval.detector(folder)(image)
    assert {one.name for one in found} <= {"computer mouse", "dog"}
    assert all(one.mask.shape == (48, 64) and 0 < one.score < 1 for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    named = geneval.colors(tiny_judges.clip(tmp_path / "clip"))(image, found[:2])
    assert len(named) == 2
    assert set(named) <= set(geneval.COLORS)


def test_missing_networks_and_unsound_tasks_are_named(tmp_path) -> None:
    with pytest.raises(ValueError, match="--detector: "):
        geneval.detector(tmp_path)
    with pytest.raises(ValueError, match="--colors: "):
        geneval.colors(tmp_path)
    (tmp_path / "tasks.jsonl").write_text('{"prompt": "a cat", "tag": "single_object"}\n')
    with pytest.raises(ValueError, match=r"line 1 of .* has no include"):
        geneval.read_tasks(tmp_path / "tasks.jsonl")
