"""The coefficient tables against diffusers' own schedulers and pipeline."""

from functools import partial

import pytest
import torch
from diffusers import DDIMScheduler

from worker.families.prompt_embeddings import stacked
from worker.model_folder.loading import LoadedModel
from worker.sampling import noise
from worker.sampling import step_table as sampler
from worker.sampling.step_table import StepTable
from worker.testing import tiny_pipelines

SIGMAS = [1.0, 0.75, 0.5, 0.25, 0.0]
PROMPTS = ["a red cat", "sad big dog", "sun"]


def _noise(rows: int) -> torch.Tensor:
    return torch.stack([noise.draw(seed, (4, 16, 16))[0] for seed in range(rows)])


@torch.inference_mode()
def _ours(model: LoadedModel, scale: float) -> torch.Tensor:
    embeddings = model.network.encode(PROMPTS)
    predict: sampler.Predict = partial(model.network.predict, embeddings=stacked(embeddings))
    if scale > 1:
        both = stacked(model.network.encode([""] * len(PROMPTS)) + embeddings)
        predict = sampler.guided(partial(model.network.predict, embeddings=both), scale)
    return sampler.sample(model.table, predict, _noise(len(PROMPTS)))


@pytest.mark.parametrize("scale", [1.0, 4.5])
def test_equals_the_diffusers_pipeline(tiny_model: LoadedModel, scale: float) -> None:
    pipeline = tiny_pipelines.build()
    theirs = pipeline(
        PROMPTS,
        sigmas=SIGMAS[:-1],
        guidance_scale=scale,
        latents=_noise(len(PROMPTS)),
        height=64,
        width=64,
        max_sequence_length=tiny_pipelines.TOKENS,
        output_type="latent",
    ).images
    ours = _ours(tiny_model, scale)
    difference = (ours - theirs).abs().max().item()
    print(f"largest difference to StableDiffusion3Pipeline at guidance {scale}: {difference:.2e}")
    assert difference < 1e-5
    assert (theirs - _noise(len(PROMPTS))).abs().max() > 0.1


def test_rows_at_different_steps_advance_as_if_alone(tiny_model: LoadedModel) -> None:
    table, network = tiny_model.table, tiny_model.network
    latents, index = _noise(4), torch.tensor([2, 0, 3, 1])
    with torch.inference_mode():
        embeddings = network.encode([*PROMPTS, "heart"])
        together, _ = sampler.step(table, partial(network.predict, embeddings=stacked(embeddings)), latents, index)
        for row in range(4):
            alone, _ = sampler.step(
                table,
                partial(network.predict, embeddings=stacked([embeddings[row]])),
                latents[row : row + 1],
                index[row : row + 1],
            )
            torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0], sampler.step(table, lambda x, t: x, latents, index)[0][0])


@pytest.mark.parametrize(("prediction", "name"), [("epsilon", "epsilon"), ("v", "v_prediction")])
def test_ddim_equals_the_diffusers_scheduler(prediction: str, name: str) -> None:
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=name,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    scheduler.set_timesteps(4)
    table = sampler.ddpm_table(scheduler.timesteps.tolist(), scheduler.alphas_cumprod, prediction)
    generator = torch.Generator().manual_seed(0)
    for step, timestep in enumerate(scheduler.timesteps):
        latents, output = torch.randn(2, 3, 4, 8, 8, generator=generator)
        theirs = scheduler.step(output, timestep, latents)
        index = torch.full((3,), step)
        following, pred_x0 = sampler.step(table, lambda x, t, output=output: output, latents, index)
        torch.testing.assert_close(following, theirs.prev_sample, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(pred_x0, theirs.pred_original_sample, atol=1e-5, rtol=1e-5)


def test_the_network_is_told_each_rows_timestep() -> None:
    told: list[torch.Tensor] = []

    def predict(latents: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        told.append(timesteps)
        return torch.zeros_like(latents)

    sampler.step(sampler.flow_table(SIGMAS), predict, _noise(3), torch.tensor([0, 3, 1]))
    assert told[0].tolist() == [1000, 250, 750]


def test_a_velocity_towards_one_image_ends_there_whatever_the_grid() -> None:
    image, start = torch.full((2, 4, 16, 16), 0.3), _noise(2)
    table = sampler.flow_table([1.0, 0.9, 0.2, 0.0])
    latents = sampler.sample(table, lambda x, t: start - image, start)
    torch.testing.assert_close(latents, image, atol=1e-6, rtol=0)


def test_noise_is_added_by_each_rows_own_coefficient() -> None:
    zeros, halves = torch.zeros(2), torch.tensor([0.5, 2.0])
    table = StepTable(timesteps=zeros, a=zeros, b=zeros, c=halves, x0_a=zeros, x0_b=zeros)
    drawn = _noise(2)
    after, _ = sampler.step(table, lambda x, t: x, drawn, torch.tensor([1, 0]), noise=drawn)
    assert table.noise_draws == 3
    torch.testing.assert_close(after[0], 2 * drawn[0])
    torch.testing.assert_close(after[1], drawn[1] / 2)


def test_an_epsilon_grid_without_signal_is_refused() -> None:
    with pytest.raises(ValueError, match="timesteps"):
        sampler.ddpm_table([1, 0], torch.tensor([0.9, 0.0]), "epsilon")


def test_flow_without_sigmas_is_refused() -> None:
    contract = tiny_pipelines.contract(sigmas=None, timesteps=[999, 749, 499, 249])
    with pytest.raises(ValueError, match="sigmas"):
        sampler.from_contract(contract)


def test_gradients_flow_through_the_sampler() -> None:
    start = _noise(1).requires_grad_()
    sampler.sample(sampler.flow_table(SIGMAS), lambda x, t: 0.5 * x, start).sum().backward()
    assert start.grad is not None
    torch.testing.assert_close(start.grad, torch.full_like(start, (1 - 0.125) ** 4))


def test_noise_depends_on_the_seed_alone() -> None:
    torch.manual_seed(99)
    first = noise.draw(7, (4, 16, 16), count=3)
    torch.randn(5)
    assert torch.equal(first, noise.draw(7, (4, 16, 16), count=3))
    assert torch.equal(first[:1], noise.draw(7, (4, 16, 16)))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, noise.draw(8, (4, 16, 16), count=3))
