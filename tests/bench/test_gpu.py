"""The GPU benchmark on a tiny architecture: all parts that a CPU can run, and the message without a GPU."""

import json
import sys
from pathlib import Path

import pytest
import torch

from bench import results_file
from bench.engine import gpu
from tests.worker.engine.recorded_graphs import RecordedGraphs

TINY = gpu.Architecture(
    transformer={
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 64,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 64,
        "pos_embed_max_size": 16,
    },
    vae=gpu.VAE
    | {
        "block_out_channels": [8, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "latent_channels": 4,
        "norm_num_groups": 4,
    },
    tokens=5,
)


@pytest.mark.slow
def test_every_size_and_bucket_is_measured_on_each_path() -> None:
    network = gpu.RandomNetwork(TINY, torch.device("cpu"), torch.float32)
    graphs = RecordedGraphs()
    found = gpu.measure(network, [16, 32], 2, graphs, paths=("eager", "graph"), repeats=2)
    assert [(row["size"], row["bucket"]) for row in found["steps"]] == [(16, 1), (16, 2), (32, 1), (32, 2)]
    assert all(
        row["step_ms"].keys() == {"eager", "graph"} and min(row["step_ms"].values()) > 0 for row in found["steps"]
    )
    assert graphs.captured
    assert graphs.replayed
    assert [one["size"] for one in found["images"]] == [16, 32]
    assert all(one["student_images_per_s"] > 0 < one["teacher_images_per_s"] for one in found["images"])


def test_the_teacher_makes_sixty_evaluations() -> None:
    network = gpu.RandomNetwork(TINY, torch.device("cpu"), torch.float32)
    assert gpu.served(network, 16, gpu.TEACHER_STEPS, gpu.GUIDANCE).contract.evaluations == 60
    assert gpu.served(network, 16, 4, 1.0).contract.evaluations == 4


def test_the_architecture_of_sd35m_is_whole() -> None:
    config = json.loads(gpu.CONFIG.read_text())
    with torch.device("meta"):
        transformer = gpu.SD3Transformer2DModel(**{k: v for k, v in config.items() if not k.startswith("_")})
        vae = gpu.AutoencoderKL(**gpu.VAE)
    weights = sum(parameter.numel() for parameter in transformer.parameters())
    assert weights == pytest.approx(2.2e9, rel=0.05)
    assert vae.config.latent_channels == transformer.config.in_channels


def test_without_a_gpu_it_says_so_and_measures_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results_file, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench.engine.gpu"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main()
    assert "not run" in capsys.readouterr().out
    assert json.loads((tmp_path / "gpu.json").read_text())["ran"] is False
