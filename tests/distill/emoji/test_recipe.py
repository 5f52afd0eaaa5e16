"""The bundled model's recipe, on made-up pictures: every stage trains, resumes and fits the next."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusion3Pipeline, StableDiffusionXLPipeline

from distill import prompt_embeddings, teacher_pipeline
from distill.emoji import autoencoder, pipeline, sample_grid, sdxl, teacher, text_encoders
from distill.emoji.artwork import SIZE, Artwork
from distill.emoji.captions import STYLE_WORDS, Captions
from distill.emoji.world import EMOJI, STYLES
from distill.training import checkpoints
from worker.families import registry
from worker.families.prompt_embeddings import PromptEmbedding
from worker.sampling.noise_schedule import FLOW, NoiseSchedule, trailing_grid


@pytest.fixture(scope="module")
def captions() -> Captions:
    return captions_of(len(STYLES))


def captions_of(styles: int, things: int = len(EMOJI)) -> Captions:
    """The first `things` emoji in the first `styles` styles, as noise."""
    emoji, style = np.meshgrid(np.arange(things), np.arange(styles), indexing="ij")
    images = np.random.default_rng(0).integers(0, 256, (emoji.size, SIZE, SIZE, 3), dtype=np.uint8)
    return Captions(Artwork(images, emoji.ravel(), style.ravel()))


def asked_of(parts: DiffusionPipeline) -> Callable[[torch.Tensor, torch.Generator], PromptEmbedding]:
    """Return a way to embed captions that gives a few prompts over and over, whatever is asked."""
    known = prompt_embeddings.encode(parts, sample_grid.PROMPTS, text_encoders.TOKENS)
    return lambda drawn, generator: known.rows(drawn % len(known.prompts))


@pytest.mark.slow
def test_every_stage_trains_and_the_whole_loads_in_plain_diffusers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_encoders, "BATCH", 16)
    captions = captions_of(1, things=48)
    vae = autoencoder.train(captions.artwork, tmp_path / "autoencoder", steps=2, batch=4)
    text = text_encoders.train(captions, tmp_path / "text_encoders", steps=2)
    latents = autoencoder.kept_latents(vae, captions.artwork, tmp_path / "latents.safetensors")
    assert latents.shape == (len(captions.artwork.images), 16, 16, 16)
    parts = pipeline.assemble(vae, text, teacher.build())
    drawn: list[Path] = []
    model = teacher.train(
        parts.transformer,
        captions,
        latents,
        asked_of(parts),
        tmp_path / "teacher",
        2,
        lambda _, path: drawn.append(path),
        compile_blocks=False,
        batch=4,
    )
    pipeline.assemble(vae, text, model).save_pretrained(tmp_path / "saved")
    loaded = StableDiffusion3Pipeline.from_pretrained(tmp_path / "saved")
    picture = loaded("a red apple", num_inference_steps=1, max_sequence_length=text_encoders.TOKENS).images[0]
    assert picture.size == (SIZE, SIZE)
    for stage in ("autoencoder", "text_encoders", "teacher"):
        assert checkpoints.steps_of(tmp_path / stage) == [2]
        assert (tmp_path / stage / "log.jsonl").is_file()
    assert (tmp_path / "text_encoders" / "grid-000002.png").is_file()
    assert [path.name for path in drawn] == ["grid-000002.png"]


@pytest.mark.slow
def test_the_sdxl_teacher_trains_on_the_bundled_parts_and_loads_in_plain_diffusers(
    captions: Captions, tmp_path: Path
) -> None:
    parts = sdxl.assemble(teacher_pipeline.load(Path("models/emoji-teacher")), sdxl.build())
    parts.vae.float()
    family = registry.of(parts)
    schedule, size = family.noise_schedule(parts), family.native_size(parts)
    embeddings = prompt_embeddings.encode(parts, sample_grid.PROMPTS, text_encoders.TOKENS)
    assert embeddings.unique.tokens.shape[1:] == (text_encoders.TOKENS, 2 * text_encoders.CLIP_WIDTH)
    latents = torch.randn(
        len(captions.artwork.images), parts.unet.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(0)
    )

    def sample(model: torch.nn.Module, path: Path) -> None:
        grid = trailing_grid(2)
        sample_grid.draw(model, parts.vae, embeddings, path, family=family, schedule=schedule, grid=grid)

    model = teacher.train(
        parts.unet, captions, latents, asked_of(parts), tmp_path / "teacher", 2, sample,
        compile_blocks=False, family=family, schedule=schedule, size=size, batch=2, noise_shift=1.0,
    )  # fmt: skip
    assert bool(model.conv_out.weight.any())
    assert (tmp_path / "teacher" / "grid-000002.png").is_file()
    parts.register_modules(unet=model)
    parts.save_pretrained(tmp_path / "saved")
    sdxl.contract(tmp_path / "saved", size[0]).save(tmp_path / "saved")
    loaded = StableDiffusionXLPipeline.from_pretrained(tmp_path / "saved")
    assert loaded("a red apple", num_inference_steps=1).images[0].size == size


def test_posterior_spreads_over_exactly_the_pictures_that_fit(captions: Captions) -> None:
    posterior = captions.posterior
    torch.testing.assert_close(posterior.sum(1), torch.ones(len(posterior)))
    styles = len(STYLE_WORDS) + 1
    fruit = captions.subjects.index("fruit")
    fits = {index for index, emoji in enumerate(EMOJI) if "fruit" in emoji.classes}
    plain, flat = posterior[fruit * styles], posterior[fruit * styles + 1 + STYLE_WORDS.index("flat")]
    assert set(captions.artwork.emoji[plain.numpy() > 0]) == fits
    assert int((flat > 0).sum()) == len(fits)


def test_drawn_captions_fit_their_pictures(captions: Captions) -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(len(captions.artwork.images), (500,), generator=generator)
    drawn = captions.draw(pictures, generator)
    assert bool((captions.posterior[drawn, pictures] > 0).all())


def test_exact_mean_is_the_posterior_mean() -> None:
    """Against Bayes' rule written out with densities, in float64."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    prior = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.0]], dtype=torch.float64)
    state = torch.randn(1, 3, generator=generator, dtype=torch.float64)
    alpha, sigma = (torch.tensor([[level]], dtype=torch.float64) for level in (0.4, 0.6))
    density = torch.distributions.Normal(0.4 * x, 0.6).log_prob(state).sum(1).exp()
    weights = prior[0] * density
    expected = (weights / weights.sum()) @ x
    torch.testing.assert_close(teacher.exact_mean(state, alpha, sigma, x, prior)[0], expected)
    nearly_clean = 0.99 * x[2:3] + 0.01 * state
    torch.testing.assert_close(teacher.exact_mean(nearly_clean, 1 - sigma / 60, sigma / 60, x, prior), x[2:3])


@pytest.mark.parametrize("prediction", ["flow", "epsilon", "v"])
def test_the_exact_target_of_a_data_set_of_one_is_that_of_its_sample(prediction: str) -> None:
    schedule = FLOW if prediction == "flow" else NoiseSchedule(prediction, torch.linspace(0.999, 0.005, 1000))
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 3, 4, 8, 8, generator=generator)
    x = x[:1].expand(3, -1, -1, -1)
    t = schedule.t_of_fraction(torch.tensor([0.2, 0.5, 0.9]))
    target = teacher.exact_target(schedule.noised(x, noise, t), t, x[:1], torch.ones(3, 1), schedule)
    torch.testing.assert_close(target, schedule.target(x, noise, t), rtol=1e-3, atol=1e-4)


def test_every_emoji_has_its_own_names() -> None:
    names = [name for emoji in EMOJI for name in emoji.names]
    assert len(names) == len(set(names))
    assert 150 <= len(EMOJI) <= 250
