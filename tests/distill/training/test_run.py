"""A whole run on a tiny teacher: train, stop, resume, export, load with plain diffusers and with the worker."""

import functools
import signal
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import StableDiffusion3Pipeline
from typer.testing import CliRunner

from distill import config as configuration
from distill import runs
from distill.commands import app
from distill.training import checkpoints
from distill.training.trainer import Trainer
from jobs.sampling_contract import SamplingContract
from tests.distill.tiny_runs import SETTINGS, losses_told
from worker.model_folder import loading
from worker.testing import tiny_pipelines


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return tiny_pipelines.save(tmp_path_factory.mktemp("models") / "tiny-teacher", examples=["a red cat", "fruit"])


@pytest.fixture(scope="module")
def write_config_in(teacher):
    def write(folder: Path, **changes) -> Path:
        prompts = folder / "prompts.txt"
        prompts.write_text("\n".join(f"prompt {word}" for word in "abcdefghijklmnopqrst"))
        path = folder / f"config-{len(list(folder.iterdir()))}.yaml"
        path.write_text(yaml.safe_dump({"teacher": str(teacher), "prompts": str(prompts), **SETTINGS, **changes}))
        return path

    return write


@pytest.fixture
def write_config(write_config_in, tmp_path):
    return functools.partial(write_config_in, tmp_path)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return StableDiffusion3Pipeline.from_pretrained(folder).transformer.state_dict()


@pytest.mark.slow
def test_exported_student_has_learned_and_loads_everywhere(write_config, teacher, tmp_path):
    runs.start(write_config(), tmp_path / "run", tmp_path / "student")
    log = losses_told(tmp_path / "run")
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    assert all(line["diversity"] > 0 and line["grad_norm"] > 0 for line in log)
    before, after = weights(teacher), weights(tmp_path / "student")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    served = loading.load(str(tmp_path / "student"))
    assert served.contract.method == "dp-dmd"
    assert served.contract.examples == ["a red cat", "fruit"]


@pytest.mark.slow
def test_exported_grid_is_the_training_grid_to_the_last_bit(write_config, tmp_path):
    config_file = write_config(steps=1)
    runs.start(config_file, tmp_path / "run", tmp_path / "student")
    contract = SamplingContract.load(tmp_path / "student")
    method = configuration.load(config_file).hyperparameters()
    assert tuple(contract.sigmas) == method.student_grid
    assert (contract.anchor_k, contract.lambda_) == (method.anchor_k, method.lambda_)
    table = loading.load(str(tmp_path / "student")).table
    torch.testing.assert_close(table.timesteps, torch.tensor(method.student_grid[:-1]) * 1000)


@pytest.mark.slow
def test_resumed_run_equals_one_that_was_never_stopped(write_config, tmp_path):
    runs.start(write_config(), tmp_path / "whole", None)
    runs.start(write_config(steps=2), tmp_path / "halves", None)
    stopped = tmp_path / "halves" / "config.yaml"
    stopped.write_text(stopped.read_text().replace("steps: 2", "steps: 4", 1))
    runs.resume(tmp_path / "halves", None)
    assert contents(tmp_path / "whole") == contents(tmp_path / "halves")


@pytest.fixture(scope="module")
def whole(write_config_in, tmp_path_factory):
    """Return, for a number of critic rollouts, the settings' file and the contents of a run that nobody stopped."""

    @functools.cache
    def train(rollouts: int | None) -> tuple[Path, dict[str, bytes]]:
        folder = tmp_path_factory.mktemp("whole")
        config_file = write_config_in(folder, log_every=3, critic_rollouts=rollouts)
        runs.start(config_file, folder / "run", None)
        return config_file, contents(folder / "run")

    return train


@pytest.mark.slow
@pytest.mark.parametrize("rollouts", [None, 0])
@pytest.mark.parametrize(("where", "kept"), [("student", [2]), ("critic", [2]), ("checkpoint", [2])])
def test_a_killed_run_goes_on_to_the_same_bits(whole, forked, tmp_path, where, kept, rollouts):
    config_file, expected = whole(rollouts)
    killed = tmp_path / "killed"
    codes = forked.run("tests.distill.training.killed_run", [config_file, killed, where], tmp_path / "log")
    assert codes == [-signal.SIGKILL], (tmp_path / "log").read_text()[-3000:]
    assert checkpoints.steps_of(killed) == kept
    runs.resume(killed, None)
    assert contents(killed) == expected


def contents(run: Path) -> dict[str, bytes]:
    """Every file of the last checkpoint."""
    last = run / "checkpoints" / f"step-{checkpoints.steps_of(run)[-1]:06}"
    return {path.name: path.read_bytes() for path in last.iterdir()}


@pytest.mark.slow
def test_resuming_with_other_settings_names_them(write_config, tmp_path):
    runs.start(write_config(steps=1), tmp_path / "run", None)
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    changed = settings | {"steps": 2, "batch": 3, "student_grid": {"steps": 3, "shift": 3.0}}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(changed))
    result = CliRunner().invoke(app, ["resume", "--run", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert "batch was 2 and is 3" in result.stderr
    assert "student_grid" in result.stderr
    assert "steps was 1" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("detach", "method"), [(False, "dmd"), (True, "dmd-detached")])
def test_lambda_zero_exports_as_what_it_is(write_config, tmp_path, detach, method):
    runs.start(write_config(**{"lambda": 0.0, "detach": detach, "steps": 1}), tmp_path / "run", tmp_path / "student")
    assert SamplingContract.load(tmp_path / "student").method == method


METHODS = {
    "dp-dmd": {"diversity", "dmd", "critic"},
    "dp-dmd-nodetach": {"diversity", "dmd", "critic"},
    "dmd": {"dmd", "critic"},
    "dmd-perceptual": {"dmd", "critic", "perceptual"},
    "dmd-gan": {"dmd", "critic", "adversarial"},
    "step1-regression": {"diversity"},
}
OF_ONE_METHOD = {
    "dmd-perceptual": {"perceptual": {"network": "tests.distill.feature_network:two_maps"}},
    "dmd-gan": {"gan": {"loss": "hinge", "r1": 0.1}},
}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_its_own_losses_and_exports_its_name(write_config, tmp_path, method):
    settings = yaml.safe_load(write_config(method=method, steps=2, **OF_ONE_METHOD.get(method, {})).read_text())
    del settings["critic_updates"]
    config_file = tmp_path / "method.yaml"
    config_file.write_text(yaml.safe_dump(settings))
    runs.start(config_file, tmp_path / "run", tmp_path / "student")
    lines = losses_told(tmp_path / "run")
    assert set(lines[-1]) & set.union(*METHODS.values()) == METHODS[method]
    assert SamplingContract.load(tmp_path / "student").method == method
    assert configuration.load(tmp_path / "run" / "config.yaml") == configuration.load(config_file)


@pytest.mark.slow
def test_first_cycle_warms_the_critic_up_and_a_resumed_run_does_not_again(write_config, tmp_path, monkeypatch):
    turns = []
    whole_turn = Trainer.critic_turn
    monkeypatch.setattr(Trainer, "critic_turn", lambda self, turn: turns.append(turn) or whole_turn(self, turn))
    runs.start(write_config(critic_warmup=3, steps=1), tmp_path / "run", None)
    assert turns == list(range(3 + SETTINGS["critic_updates"]))
    stopped = tmp_path / "run" / "config.yaml"
    stopped.write_text(stopped.read_text().replace("steps: 1", "steps: 2", 1))
    runs.resume(tmp_path / "run", None)
    assert len(turns) == 3 + 2 * SETTINGS["critic_updates"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"method": "dmd", "lambda": 0.1}, "lambda"),
        ({"method": "step1-regression"}, "critic_updates"),
        ({"method": "dmd-perceptual"}, "perceptual"),
        ({"gan": {"loss": "hinge"}}, "gan"),
        ({"noise_range": [0.9, 0.1]}, "noise_range"),
        ({"family": "sdxl"}, "student_grid"),
        ({"family": "sdxl", "student_grid": {"steps": 4}, "teacher_grid": {"steps": 6}}, "is of family sd3"),
        ({"student_grid": {"sigmas": [1.0, 0.0]}}, "student_grid"),
        ({"student_grid": {"steps": 2, "shift": 3.0, "last": 0.00299}}, "second step starts at 0.008917, with 0.9%"),
        ({"anchor_k": 7}, "anchor_k"),
        ({"critic_rollouts": 3}, "critic_rollouts: 3 is more than the 2 critic_updates"),
        ({"student_grid": {"sigmas": [1.0, 0.5, 0.1]}}, "from 1 to 0"),
        ({"student_grid": {"sigmas": [1.0, 0.5, 0.7, 0.0]}}, "fall strictly"),
        ({"teacher": "nowhere"}, "model_index.json"),
        ({"lambda": -1}, "lambda"),
        ({"learning_rate": 1}, "learning_rate"),
    ],
)
def test_bad_configuration_is_one_clear_line(write_config, tmp_path, changes, named):
    arguments = ["train", "--config", str(write_config(**changes)), "--run", str(tmp_path / "run")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert named in result.stderr
    assert "Traceback" not in result.stderr


def test_empty_prompt_file_is_refused(write_config, tmp_path):
    config_file = write_config()
    (tmp_path / "prompts.txt").write_text("\n \n")
    result = CliRunner().invoke(app, ["train", "--config", str(config_file), "--run", str(tmp_path / "run")])
    assert (result.exit_code, "holds no prompt" in result.stderr) == (2, True)


@pytest.mark.slow
def test_a_run_is_not_started_over_another(write_config, tmp_path):
    arguments = ["train", "--config", str(write_config(steps=1)), "--run", str(tmp_path / "run")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    again = CliRunner().invoke(app, arguments)
    assert (again.exit_code, "resume" in again.stderr) == (2, True)


@pytest.mark.slow
def test_a_cache_trains_to_the_same_bits_as_a_run_that_encodes(write_config, teacher, tmp_path):
    config_file = write_config(steps=1)
    cache = str(tmp_path / "cache")
    arguments = ["cache", "--teacher", str(teacher), "--prompts", str(tmp_path / "prompts.txt"), "--out", cache]
    made = CliRunner().invoke(app, [*arguments, "--max-sequence-length", str(tiny_pipelines.TOKENS)])
    assert made.exit_code == 0, made.stderr
    runs.start(config_file, tmp_path / "encoded", tmp_path / "one")
    runs.start(write_config(steps=1, embeddings=cache), tmp_path / "cached", tmp_path / "two")
    assert not (tmp_path / "cached" / "embeddings").exists()
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_teacher_of_an_unknown_family_is_refused(write_config, tmp_path):
    (tmp_path / "pixart").mkdir()
    (tmp_path / "pixart" / "model_index.json").write_text('{"_class_name": "PixArtAlphaPipeline"}')
    arguments = ["--config", str(write_config(teacher=str(tmp_path / "pixart"))), "--run", str(tmp_path / "run")]
    result = CliRunner().invoke(app, ["train", *arguments])
    assert result.exit_code == 2
    assert "holds a PixArtAlphaPipeline; known pipelines: StableDiffusion3Pipeline, " in result.stderr


@pytest.mark.slow
def test_other_prompts_in_the_same_file_are_refused_when_a_run_goes_on(write_config, tmp_path):
    runs.start(write_config(steps=1), tmp_path / "run", None)
    (tmp_path / "prompts.txt").write_text("something else\n")
    result = CliRunner().invoke(app, ["resume", "--run", str(tmp_path / "run")])
    assert (result.exit_code, "prompts_sha256 was" in result.stderr) == (2, True)
