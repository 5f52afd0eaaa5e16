"""`fourstep evaluate` of any servable pair, on tiny folders."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from distill.evaluation import pictures
from fourstep import app
from tests.distill.evaluation import tiny_judges
from worker.testing import tiny_pipelines, tiny_sd_pipelines


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A student, a teacher whose grid is in its sampling.json, and two prompts."""
    folder = tmp_path_factory.mktemp("pair")
    tiny_pipelines.save(folder / "student")
    tiny_pipelines.save(folder / "teacher", steps=6, sigmas=[1, 0.8, 0.6, 0.4, 0.2, 0.1, 0], guidance_scale=3.5)
    (folder / "prompts.txt").write_text("a cat\ntwo dogs\n")
    return folder


def evaluate(folders, out, *options: str):
    arguments = ["evaluate", str(folders / "student"), "--teacher", str(folders / "teacher"), "--out", str(out)]
    return CliRunner().invoke(app, [*arguments, "--seeds", "4", *options])


@pytest.mark.slow
def test_report_and_grids_of_a_pair_that_is_not_emoji(folders, tmp_path) -> None:
    dino, clip = tiny_judges.dinov2(tmp_path / "dino"), tiny_judges.clip(tmp_path / "clip")
    options = ["--prompts", str(folders / "prompts.txt"), "--features", f"dino={dino}", "--scores", f"pickscore={clip}"]
    result = evaluate(folders, tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["model"]["evaluations"], report["teacher"]["evaluations"]) == (4, 12)
    assert report["model"]["sha256"] != report["teacher"]["sha256"], "the same weights on two grids are two models"
    assert set(report["spaces"]) == {"layout", "dino"}
    for space in report["spaces"].values():
        ratio = space["diversity"]["all"]["ratio"]
        assert ratio["low"] <= ratio["value"] <= ratio["high"]
    difference = report["scores"]["pickscore"]["difference"]["value"]
    assert difference == pytest.approx(
        report["scores"]["pickscore"]["model"] - report["scores"]["pickscore"]["teacher"]
    )
    assert report["pixel_error"] > 0
    assert "emoji" not in report
    with Image.open(tmp_path / "out" / "model.png") as grid:
        assert grid.size == (4 * 64, 2 * 64)


@pytest.mark.slow
def test_geneval_asks_its_own_prompts_and_reports_each_kind_of_task(folders, tmp_path) -> None:
    tasks = [
        {"prompt": "a dog", "tag": "single_object", "include": [{"class": "dog", "count": 1}]},
        {"prompt": "a giraffe", "tag": "two_object", "include": [{"class": "giraffe", "count": 1}]},
    ]
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    networks = {"--geneval": tmp_path / "tasks.jsonl", "--detector": tiny_judges.mask2former(tmp_path / "detector")}
    networks["--colors"] = tiny_judges.clip(tmp_path / "clip")
    options = [str(part) for pair in networks.items() for part in pair]
    result = evaluate(folders, tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["prompts"] == 2
    for role in ("model", "teacher"):
        shares = report["geneval"][role]
        assert shares["two_object"] == 0, "the detector knows no giraffe"
        assert shares["overall"] == shares["single_object"] / 2
    both = evaluate(folders, tmp_path / "both", *options, "--prompts", str(folders / "prompts.txt"))
    assert "GenEval has prompts of its own" in both.output


@pytest.mark.slow
def test_pictures_once_made_are_kept(folders, tmp_path, monkeypatch) -> None:
    prompts = ["--prompts", str(folders / "prompts.txt")]
    assert evaluate(folders, tmp_path / "out", *prompts).exit_code == 0
    first = (tmp_path / "out" / "report.json").read_text()
    monkeypatch.setattr("distill.evaluation.pictures.generate", None)
    assert evaluate(folders, tmp_path / "out", *prompts).exit_code == 0
    assert (tmp_path / "out" / "report.json").read_text() == first


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--features", "dino"], "--features: dino is not of the form NAME=FOLDER"),
        (["--features", "dino=nowhere"], "nowhere holds no config.json"),
        (["--scores", "imagereward=nowhere"], "nowhere holds neither ImageReward.pt"),
        (["--geneval", "tasks.jsonl"], "--geneval: needs --detector and --colors"),
        (["--prompts", "nowhere.txt"], "nowhere.txt"),
        (["--seeds", "3"], "--seeds"),
        (["--prompts", "{folder}/one.txt"], "at least 2 prompts"),
    ],
)
def test_bad_options_are_one_clear_line_before_any_picture(folders, tmp_path, options, named) -> None:
    (tmp_path / "one.txt").write_text("a cat\n")
    result = evaluate(folders, tmp_path / "out", *(option.format(folder=tmp_path) for option in options))
    assert result.exit_code in (1, 2)
    assert named in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_told_its_guidance_is_evaluated_once_a_step(tmp_path) -> None:
    tiny_sd_pipelines.build(16).save_pretrained(tmp_path / "lcm")
    sampling = pictures.Sampling(4, guidance_scale=3.5)
    made = pictures.make(tmp_path / "lcm", ["a cat"], [1], tmp_path / "cache", sampling, keep=False)
    assert made.evaluations == 4
