"""Steps replayed from graphs: the right one, fresh inputs, results that stay; no step that a graph cannot hold."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from jobs.models import ImageTask
from tests.worker.engine.recorded_graphs import RecordedGraphs
from tests.worker.tasks import image_task, pictures
from worker.engine.cuda_graphs import CudaGraphs
from worker.engine.denoising_step import DenoisingStep, Guidance, StepInputs, StepOutputs
from worker.engine.engine import Engine
from worker.engine.outcomes import Measured
from worker.engine.step_graphs import StepGraphs
from worker.families.prompt_embeddings import PromptEmbedding
from worker.model_folder.loading import LoadedModel, load, served
from worker.sampling import noise
from worker.testing import tiny_pipelines


def _inputs(rows: int, fill: float = 1.0, tokens: int = 3, noisy: bool = False) -> StepInputs:
    latents = torch.full((rows, 2, 4, 4), fill)
    embedding = PromptEmbedding(torch.full((rows, tokens, 5), fill), torch.full((rows, 5), fill))
    index = torch.arange(rows) % 4
    return StepInputs(latents, index, embedding, torch.full_like(latents, fill) if noisy else None)


def _step(inputs: StepInputs) -> StepOutputs:
    """Mixes everything a step reads, row by row."""
    rows = (inputs.index + inputs.embeddings.tokens.sum((1, 2)) + inputs.embeddings.pooled.sum(1)).view(-1, 1, 1, 1)
    total = inputs.latents + rows + (0 if inputs.noise is None else inputs.noise)
    return StepOutputs(total, -total)


@pytest.mark.parametrize("noisy", [False, True])
def test_a_replay_reads_fresh_inputs_and_its_result_outlives_the_next(noisy: bool) -> None:
    recorded = RecordedGraphs()
    graphs = StepGraphs(_step, recorded)
    for rows in (4, 2, 1):
        graphs.capture(_inputs(rows, noisy=noisy))
    batches = [_inputs(rows, fill, noisy=noisy) for rows, fill in ((1, 2.0), (4, 3.0), (2, 4.0), (4, 5.0), (1, 6.0))]
    results = [graphs(batch) for batch in batches]
    for batch, result in zip(batches, results, strict=True):
        assert torch.equal(result.latents, _step(batch).latents)
        assert torch.equal(result.pred_x0, _step(batch).pred_x0)
    assert recorded.replayed == [1, 4, 2, 4, 1]


def test_smaller_batches_use_the_rows_of_the_largest_ones_buffers() -> None:
    graphs = StepGraphs(_step, RecordedGraphs())
    for rows in (4, 2, 1):
        graphs.capture(_inputs(rows))
    addresses = {captured.inputs.latents.data_ptr() for captured in graphs._captured.values()}
    assert len(addresses) == 1


def test_what_has_no_graph_runs_without_and_says_why() -> None:
    recorded = RecordedGraphs()
    graphs = StepGraphs(_step, recorded)
    graphs.capture(_inputs(2))
    misfits = {"batch": _inputs(3), "embedding": _inputs(2, tokens=4)}
    for reason, batch in misfits.items():
        assert graphs.miss(batch) == reason
        assert torch.equal(graphs(batch).latents, _step(batch).latents)
    assert graphs.miss(_inputs(2, noisy=True)) == "embedding"
    assert graphs.miss(_inputs(2)) is None
    assert recorded.replayed == []


def test_a_capture_that_fails_leaves_the_others_and_serves_without() -> None:
    def out_of_memory(inputs: StepInputs) -> StepOutputs:
        if capturing and len(inputs.latents) == 4:
            raise torch.OutOfMemoryError("no room for a graph of 4")
        return _step(inputs)

    capturing = True
    graphs = StepGraphs(out_of_memory, RecordedGraphs())
    graphs.capture(_inputs(4))
    graphs.capture(_inputs(2))
    capturing = False
    assert [graphs.miss(_inputs(rows)) for rows in (4, 2)] == ["capture_failed", None]
    assert torch.equal(graphs(_inputs(4)).latents, _step(_inputs(4)).latents)


def test_warm_up_captures_every_size_and_bucket_largest_first_and_serving_none(tiny_model: LoadedModel) -> None:
    recorded, measured = RecordedGraphs(), []
    engine = Engine(tiny_model, 4, recorded)
    engine.warm_up()
    batches = [(rows, 4, height, 16) for height in (16, 8) for rows in (1, 2, 3, 4)]
    captured = sorted(batches, key=math.prod, reverse=True)
    assert recorded.captured == captured
    assert [list(times) for times in engine.step_times.values()] == [[1, 2, 3, 4]] * 2
    engine.runner.measure = measured.append
    tasks = [image_task("sun", seed, height=64 - 32 * (seed % 2)) for seed in range(7)]
    replayed = pictures(engine, tasks)
    assert recorded.captured == captured
    steps = [cost for cost in measured if cost.stage == "denoise_step"]
    assert all(cost.replayed and cost.graph_miss is None for cost in steps)
    eager = pictures(Engine(tiny_model, 4), tasks)
    for ours, theirs in zip(replayed, eager, strict=True):  # the two engines may have batched them differently
        assert np.abs(ours.pixels.astype(int) - theirs.pixels).max() <= 1


def test_a_miss_is_measured_with_its_reason(tiny_model: LoadedModel) -> None:
    measured: list[Measured] = []
    engine = Engine(tiny_model, 2, RecordedGraphs())
    engine.runner.measure = measured.append
    pictures(engine, [image_task()])
    assert {(cost.replayed, cost.graph_miss) for cost in measured if cost.stage == "denoise_step"} == {(False, "batch")}


def _on(device: str) -> tuple[DenoisingStep, LoadedModel]:
    """The step of a stochastic sampler, on `device`."""
    pipeline = tiny_pipelines.build()
    for part in (pipeline.transformer, pipeline.vae):
        part.to(device)
    model = served("tiny", "ab", tiny_pipelines.contract(), pipeline)
    table = replace(model.table, c=torch.full((4,), 0.1)).to(torch.device(device))
    return DenoisingStep(model.network.predict, table), model


@pytest.mark.parametrize("guided", [False, True])
@torch.inference_mode()
def test_the_whole_step_and_the_decoder_stay_on_their_device(guided: bool) -> None:
    """On the meta device whatever waits for a value, copies to the host or mixes devices raises."""
    step, model = _on("meta")
    meta = partial(torch.empty, device="meta")
    for rows in (1, 4):
        embeddings = PromptEmbedding(meta(rows, 77 + 16, 64), meta(rows, 64))
        inputs = StepInputs(
            meta(rows, 4, 16, 16),
            meta(rows, dtype=torch.int64),
            embeddings,
            meta(rows, 4, 16, 16),
            Guidance(embeddings, meta(rows)) if guided else None,
        )
        outputs = step(inputs)
        assert outputs.latents.device.type == outputs.pred_x0.device.type == "meta"
        assert outputs.latents.shape == outputs.pred_x0.shape == (rows, 4, 16, 16)
        assert outputs.latents.dtype == torch.float32
        assert model.network.decode(outputs.pred_x0).shape == (rows, 3, 64, 64)


def test_the_meta_device_catches_a_step_that_waits() -> None:
    step, _ = _on("meta")
    index = torch.empty(2, dtype=torch.int64, device="meta")
    with pytest.raises(RuntimeError, match="device"):
        step(StepInputs(torch.empty(2, 4, 16, 16), index, PromptEmbedding(torch.empty(2, 93, 64), torch.empty(2, 64))))
    with pytest.raises(RuntimeError, match="meta tensors"):
        bool(index.any())


@pytest.mark.gpu
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_cuda_graphs_give_the_pixels_of_the_eager_path(tmp_path, guidance: float) -> None:  # type: ignore[no-untyped-def]
    folder = tiny_pipelines.save(tmp_path, guidance_scale=guidance)
    model = load(str(folder), device="cuda", dtype="float32")
    engine = Engine(model, 4, CudaGraphs(model.network.device))
    engine.warm_up()
    measured: list[Measured] = []
    engine.runner.measure = measured.append
    tasks: list[ImageTask] = [image_task("sun", seed, height=64 - 32 * (seed % 2)) for seed in range(11)]
    allocated = torch.cuda.memory_reserved()
    replayed = pictures(engine, tasks)
    assert all(cost.replayed for cost in measured if cost.stage == "denoise_step")
    assert torch.cuda.memory_reserved() <= allocated + 2**21
    eager = pictures(Engine(model, 4), tasks)
    for ours, theirs in zip(replayed, eager, strict=True):  # the two engines may have batched them differently
        assert np.abs(ours.pixels.astype(int) - theirs.pixels).max() <= 1


@pytest.mark.gpu
@torch.inference_mode()
def test_graphs_of_one_pool_may_be_replayed_in_any_order() -> None:
    device = torch.device("cuda")
    step, _ = _on("cuda")
    graphs = StepGraphs(step, CudaGraphs(device))

    def inputs(rows: int, seed: int) -> StepInputs:
        drawn = torch.stack([noise.draw(seed + row, (4, 16, 16))[0] for row in range(rows)]).to(device)
        embedding = PromptEmbedding(drawn.flatten(1)[:, :1, None].expand(-1, 93, 64), drawn.flatten(1)[:, :64])
        return StepInputs(drawn, torch.arange(rows, device=device) % 4, embedding, drawn)

    for rows in (4, 2, 1):
        graphs.capture(inputs(rows, 0))
    batches = [inputs(rows, 10 * number) for number, rows in enumerate((1, 4, 2, 1, 4))]
    for batch, outputs in zip(batches, [graphs(batch) for batch in batches], strict=True):
        torch.testing.assert_close(outputs.latents, step(batch).latents)
