"""Many large pictures are evaluated a few at a time, by several processes, and after an interruption."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from distill.evaluation import feature_spaces, pictures, report
from distill.evaluation.benchmark import Benchmark
from distill.evaluation.pictures import PictureSet
from fourstep import app
from tests.distill.evaluation import tiny_judges
from worker.testing import tiny_pipelines

PROMPTS = 10
SEEDS = 4


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    tiny_pipelines.save(folder / "student")
    tiny_pipelines.save(folder / "teacher", steps=6, sigmas=[1, 0.8, 0.6, 0.4, 0.2, 0.1, 0], guidance_scale=3.5)
    (folder / "prompts.txt").write_text("\n".join(f"prompt {letter}" for letter in "abcdefghijk"[:PROMPTS]))
    return folder


def arguments(folders: Path, out: Path, *options: object) -> list[str]:
    given = [folders / "student", "--teacher", folders / "teacher", "--out", out, "--seeds", SEEDS]
    return [str(one) for one in (*given, "--prompts", folders / "prompts.txt", *options)]


def evaluate(folders: Path, out: Path, *options: object) -> dict:
    result = CliRunner().invoke(app, ["evaluate", *arguments(folders, out, *options)])
    assert result.exit_code == 0, result.output
    return json.loads((out / "report.json").read_text())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of pictures that a network was given, each time."""
    counts: list[int] = []

    def load(folder: Path) -> feature_spaces.FeatureSpace:
        def read(images: torch.Tensor) -> torch.Tensor:
            counts.append(len(images))
            return feature_spaces.layout(images)

        return read

    monkeypatch.setitem(feature_spaces._registered, "watched", load)
    return counts


@pytest.mark.slow
def test_no_network_gets_more_than_a_few_prompts_at_once(folders: Path, tmp_path: Path, seen: list[int]) -> None:
    told = evaluate(folders, tmp_path / "out", "--features", f"watched={folders / 'student'}")
    assert told["prompts"] == PROMPTS
    assert sum(seen) == 2 * PROMPTS * SEEDS
    assert max(seen) <= pictures.UNIT * SEEDS
    assert told["spaces"]["watched"] == told["spaces"]["layout"]


@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on_where_it_was(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[int]
) -> None:
    whole = evaluate(folders, tmp_path / "whole", "--features", f"watched={folders / 'student'}")
    generate, made = pictures.generate, []

    def counted(engine, prompts, seeds):
        if len(made) == 14:
            raise KeyboardInterrupt
        made.append(prompts[0])
        return generate(engine, prompts, seeds)

    monkeypatch.setattr(pictures, "generate", counted)
    command = ["evaluate", *arguments(folders, tmp_path / "out", "--features", f"watched={folders / 'student'}")]
    assert CliRunner().invoke(app, command).exit_code != 0
    made.append("interrupted")
    seen.clear()
    told = evaluate(folders, tmp_path / "out", "--features", f"watched={folders / 'student'}")
    assert told == whole
    # Three units of the student's and one of the teacher's were whole.
    assert len(made) - 15 == 2 * PROMPTS - 14
    made.clear()
    seen.clear()
    evaluate(folders, tmp_path / "out", "--features", f"watched={folders / 'student'}")
    assert (made, seen) == ([], [])


@pytest.mark.slow
def test_a_further_network_is_asked_alone(folders: Path, tmp_path: Path, seen: list[int]) -> None:
    evaluate(folders, tmp_path / "out", "--features", f"watched={folders / 'student'}")
    seen.clear()
    more = [
        "--features",
        f"watched={folders / 'student'}",
        "--features",
        f"dino={tiny_judges.dinov2(tmp_path / 'dino')}",
    ]
    assert evaluate(folders, tmp_path / "out", *more)["spaces"].keys() == {"layout", "watched", "dino"}
    assert seen == []


@pytest.mark.slow
def test_pictures_that_are_not_kept_give_the_same_report(folders: Path, tmp_path: Path) -> None:
    kept = evaluate(folders, tmp_path / "kept")
    assert evaluate(folders, tmp_path / "out", "--no-keep-pictures") == kept
    assert not list((tmp_path / "out").glob("student-*"))


@pytest.mark.slow
def test_two_processes_share_an_evaluation_and_one_reports(folders: Path, tmp_path: Path, forked) -> None:
    alone = evaluate(folders, tmp_path / "alone")
    ranks = [{"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"} for rank in "01"]
    command = arguments(folders, tmp_path / "out")
    codes = forked.run("tests.distill.evaluation.evaluate_command", command, tmp_path / "log", ranks)
    assert codes == [0, 0], (tmp_path / "log").read_text()[-3000:]
    shared = json.loads((tmp_path / "out" / "report.json").read_text())
    for of in ("model", "teacher"):
        ours, theirs = (one["spaces"]["layout"]["diversity"]["all"][of] for one in (shared, alone))
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert (tmp_path / "log").read_text().count('"pixel_error"') == 1


@pytest.mark.slow
def test_pictures_of_1024_pixels_are_compared_and_shown_small(tmp_path: Path) -> None:
    def stub(name: str, seed: int) -> PictureSet:
        def unit(number: int) -> np.ndarray:
            small = np.random.default_rng([seed, number]).integers(0, 256, (pictures.UNIT, SEEDS, 8, 8, 3), np.uint8)
            return small.repeat(128, 2).repeat(128, 3)

        return PictureSet(name, 4, ("a",) * 8, tuple(range(SEEDS)), (1024, 1024), name, unit)

    ours, theirs = stub("ours", 0), stub("theirs", 1)
    told = report.compared(
        ours, theirs, Benchmark("prompts", ours.prompts), {"layout": feature_spaces.layout}, tmp_path
    )
    assert told["spaces"]["layout"]["diversity"]["all"]["ratio"]["value"] == pytest.approx(1, abs=0.05)
    ours.save_grid(tmp_path / "model.png")
    with pictures.image_grid.Image.open(tmp_path / "model.png") as grid:
        assert grid.size == (SEEDS * 256, 8 * 256)


@pytest.mark.slow
def test_the_papers_protocol_reports_a_row_like_its_tables(folders: Path, tmp_path: Path) -> None:
    clip = tiny_judges.clip(tmp_path / "clip")
    tasks = [{"prompt": f"a {name}", "tag": "single_object", "include": [{"class": name, "count": 1}]} for name in "ab"]
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    factory = "tests.distill.evaluation.tiny_judges:brightness"
    spaces = ["--features", f"dino={tiny_judges.dinov3(tmp_path / 'dino')}", "--features", f"clip={clip}"]
    judges = [f"pickscore={clip}", f"imagereward={factory}", f"maniqa={factory}"]
    options = [*spaces, *(part for judge in judges for part in ("--scores", judge))]
    options += ["--geneval", tmp_path / "tasks.jsonl", "--detector", tiny_judges.mask2former(tmp_path / "detector")]
    command = arguments(folders, tmp_path / "out", "--protocol", "paper", *options, "--colors", clip)
    refused = CliRunner().invoke(app, ["evaluate", *command])
    assert "imagereward" in refused.output, "a built-in score takes a folder"
    command[command.index(f"imagereward={factory}")] = f"visualquality={factory}"
    refused = CliRunner().invoke(app, ["evaluate", *command])
    assert "--protocol paper: needs --scores imagereward=FOLDER, too" in refused.output
    assert not (tmp_path / "out").exists()


def test_a_row_has_what_was_measured() -> None:
    from distill.evaluation import paper

    space = {"diversity": {"all": {"model": 0.18, "teacher": 0.24}}}
    scores = {"pickscore": {"model": 21.8, "teacher": 21.8}, "imagereward": {"model": 1.1, "teacher": 1.0}}
    scores |= {"maniqa": {"model": 1.0, "teacher": 1.0}, "mine": {"model": 3.0, "teacher": 1.0}}
    geneval = {"model": {"overall": 0.65}, "teacher": {"overall": 0.66}}
    rows = paper.rows({"spaces": {"dino": space, "clip": space}, "scores": scores, "geneval": geneval})
    assert rows["model"] == {
        "dino": 0.18, "clip": 0.18, "pickscore": 21.8, "imagereward": 1.1, "maniqa": 1.0, "geneval": 0.65,
    }  # fmt: skip
    assert rows["kept"]["dino"] == pytest.approx(0.75)
