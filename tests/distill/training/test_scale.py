"""More samples an update than one pass holds: accumulated, or on two processes. The update is that of one batch."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from distill import config as configuration
from distill import runs
from distill.method import dp_dmd
from distill.training import checkpoints, processes
from distill.training.trainer import Trainer
from tests.distill.tiny_runs import SETTINGS
from worker.families.prompt_embeddings import concatenated
from worker.sampling.noise_schedule import NoiseSchedule
from worker.testing import tiny_pipelines

SEED = 5


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return tiny_pipelines.save(tmp_path_factory.mktemp("models") / "tiny-teacher")


@pytest.fixture
def write_config(teacher, tmp_path) -> Callable[..., Path]:
    def write(name: str, **changes) -> Path:
        (tmp_path / "prompts.txt").write_text("\n".join(f"prompt {word}" for word in "abcdefghijklmnopqrst"))
        paths = {"teacher": str(teacher), "prompts": str(tmp_path / "prompts.txt")}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(SETTINGS | paths | {"seed": SEED, "steps": 2} | changes))
        return path

    return write


def streams() -> list[torch.Generator]:
    """The random streams of the first two processes."""
    return [torch.Generator().manual_seed(SEED * 100_003 + rank) for rank in range(2)]


@pytest.fixture
def one_batch_of_two_streams(monkeypatch):
    """Let a batch be drawn by halves, as two processes draw it."""
    both = streams()
    draw_noise, draw = dp_dmd.draw_noise, Trainer._draw

    def halves_of_noise(x, method, generator):
        if generator.initial_seed() != both[0].initial_seed():  # of a measure, not of the run
            return draw_noise(x, method, generator)
        drawn = [draw_noise(half, method, one) for half, one in zip(x.chunk(2), both, strict=True)]
        return tuple(torch.cat(parts) for parts in zip(*drawn, strict=True))

    def halves(self):
        whole, kept = self.config, self.stream.generator
        drawn = []
        self.config = whole.model_copy(update={"batch": whole.batch // 2})
        for self.stream.generator in both:
            drawn.append(draw(self))
        self.config, self.stream.generator = whole, kept
        noises, prompts = zip(*drawn, strict=True)
        return torch.cat(noises), concatenated(*prompts)

    monkeypatch.setattr(dp_dmd, "draw_noise", halves_of_noise)
    monkeypatch.setattr(Trainer, "_draw", halves)


def student(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{checkpoints.steps_of(run)[-1]:06}" / "student.safetensors")


def assert_same_update(run: Path, other: Path) -> None:
    """Two updates of Adam move a weight by about 2e-3; these differ by a hundredth of it, in any one tensor by a tenth.

    As root mean squares, and each weight within 2e-4 but one: Adam divides by a gradient's size, and where that is all
    but zero, the order in which a sum was taken can turn a single weight's step round.
    """
    ours, theirs = student(run), student(other)
    assert ours.keys() == theirs.keys()
    off = sum(int((~torch.isclose(ours[name], theirs[name], rtol=1e-3, atol=2e-4)).sum()) for name in ours)
    assert off <= 1, f"{off} weights of {sum(map(torch.numel, ours.values()))} are off"
    differences = {name: ours[name] - theirs[name] for name in ours}
    assert torch.cat([difference.flatten() for difference in differences.values()]).square().mean().sqrt() < 2e-5
    for difference in differences.values():
        assert difference.square().mean().sqrt() < 2e-4


@pytest.mark.slow
@pytest.mark.parametrize("rollouts", [None, 0])
def test_two_accumulated_batches_are_one_double_batch(write_config, tmp_path, request, monkeypatch, rollouts):
    both, micro_batches = streams(), []

    def alternating(losses):
        def from_its_own_stream(self, *arguments):
            self.stream.generator = both[arguments[-1]]
            micro_batches.append(losses.__name__)
            return losses(self, *arguments)

        return from_its_own_stream

    with monkeypatch.context() as patch:
        for name in ("_critic_losses", "_student_losses"):
            patch.setattr(Trainer, name, alternating(getattr(Trainer, name)))
        changes = {"batch": 2, "accumulate": 2, "critic_rollouts": rollouts}
        runs.start(write_config("accumulated", **changes), tmp_path / "accumulated", None)
    assert len(micro_batches) == 2 * (SETTINGS["critic_updates"] + 1) * 2
    request.getfixturevalue("one_batch_of_two_streams")
    runs.start(write_config("double", batch=4, critic_rollouts=rollouts), tmp_path / "double", None)
    assert_same_update(tmp_path / "accumulated", tmp_path / "double")


SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
"""The variables that `accelerate launch` sets from its configuration file fsdp2.yaml."""


@pytest.fixture
def on_two_processes(forked, tmp_path, free_port):
    """`fourstep distill …` on two processes, with the environment in which accelerate starts them."""

    def run(arguments: list[object], environment: dict[str, str]) -> None:
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        common |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"} | environment
        ranks = [common | {"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
        codes = forked.run("tests.distill.training.distill_command", arguments, tmp_path / "log", ranks)
        assert codes == [0, 0], (tmp_path / "log").read_text()[-3000:]

    return run


WAYS = {
    "copies": ({}, {}),
    "adapters": ({"lora_rank": 4}, {}),
    "sharded": ({"save_every": 1}, SHARDED),
    "samples again": ({"save_every": 1, "critic_rollouts": 0}, {}),
}


@pytest.mark.slow
@pytest.mark.timeout(900)  # several processes that wait for each other: slow where cores are scarce
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_draw_different_noise_and_update_as_one_double_batch(
    write_config, tmp_path, way, one_batch_of_two_streams, on_two_processes
):
    changes, environment = WAYS[way]
    run, config = tmp_path / "two", write_config("two", batch=2, **changes)
    on_two_processes(["train", "--run", run, "--config", config, "--out", tmp_path / "student"], environment)
    assert (tmp_path / "student" / "sampling.json").is_file()
    runs.start(write_config("double", batch=4, **changes), tmp_path / "double", None)
    assert_same_update(run, tmp_path / "double")
    last = run / "checkpoints" / "step-000002"
    of_ranks = load_file(last / "stream.safetensors")
    assert len(of_ranks) == 2
    assert not torch.equal(*of_ranks.values())
    if "save_every" in changes:
        whole = {path.name: path.read_bytes() for path in last.iterdir()}
        shutil.rmtree(last)
        on_two_processes(["resume", "--run", run], environment)
        assert {path.name: path.read_bytes() for path in last.iterdir()} == whole


@pytest.mark.slow
def test_gradient_checkpointing_changes_no_update(write_config, tmp_path):
    for family in ("plain", "checkpointed"):
        changes = {"gradient_checkpointing": family == "checkpointed"}
        runs.start(write_config(family, **changes), tmp_path / family, None)
    assert_same_update(tmp_path / "plain", tmp_path / "checkpointed")


@pytest.mark.slow
def test_gradient_checkpointing_repeats_the_adapter_that_answered(write_config, tmp_path):
    for family in ("plain", "checkpointed"):
        changes = {"gradient_checkpointing": family == "checkpointed", "lora_rank": 4}
        runs.start(write_config(family, **changes), tmp_path / family, None)
    assert_same_update(tmp_path / "plain", tmp_path / "checkpointed")


@pytest.mark.parametrize(
    ("environment", "changes", "named"),
    [
        (SHARDED, {}, "several processes"),
        (SHARDED | {"FSDP_VERSION": "1"}, {}, "fsdp_version: 1"),
    ],
)
def test_sharding_that_cannot_be_is_refused(write_config, tmp_path, monkeypatch, environment, changes, named):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=named):
        runs.start(write_config("alone", **changes), tmp_path / "alone", None)


def test_adapters_are_not_sharded(write_config, monkeypatch):
    for name, value in SHARDED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes.distributed, "is_initialized", lambda: True)
    config = configuration.load(write_config("adapters", lora_rank=4))
    with pytest.raises(ValueError, match="lora_rank"):
        processes.check(SimpleNamespace(num_processes=2), config)


@pytest.mark.slow
def test_under_autocast_what_learns_and_what_the_solver_holds_stay_float32(write_config, tmp_path, monkeypatch):
    step, seen = NoiseSchedule.step, set()

    def watched(self, state, answer, now, after):
        seen.update((state.dtype, answer.dtype))
        return step(self, state, answer, now, after)

    monkeypatch.setattr(NoiseSchedule, "step", watched)
    trainer = Trainer(configuration.load(write_config("bf16", precision="bf16")), tmp_path / "bf16")
    inside = set()
    block = trainer.student.network.transformer_blocks[0]
    block.attn.to_q.register_forward_hook(lambda layer, inputs, output: inside.add(output.dtype))
    trainer.cycle(1)
    assert seen == {torch.float32}
    assert inside == {torch.bfloat16}
    learned = [trainer.student.weights, trainer.critic.weights, trainer.average.module]
    assert {weight.dtype for module in learned for weight in module.parameters()} == {torch.float32}
    assert {weight.dtype for weight in trainer.teacher.network.parameters()} == {torch.bfloat16}
