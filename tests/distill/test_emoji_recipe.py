"""The bundled model's recipe, on made-up pictures: every stage trains, resumes and fits the next."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from distill import checkpoints, prompt_embeddings
from distill.emoji import autoencoder, pipeline, teacher, text_encoders
from distill.emoji.artwork import Artwork
from distill.emoji.captions import STYLE_WORDS, Captions
from distill.emoji.world import EMOJI, STYLES


@pytest.fixture(scope="module")
def captions() -> Captions:
    """Every emoji in every style, as noise."""
    emoji, style = np.meshgrid(np.arange(len(EMOJI)), np.arange(len(STYLES)), indexing="ij")
    images = np.random.default_rng(0).integers(0, 256, (emoji.size, 64, 64, 3), dtype=np.uint8)
    return Captions(Artwork(images, emoji.ravel(), style.ravel()))


def test_every_stage_trains_and_the_whole_loads_in_plain_diffusers(captions: Captions, tmp_path: Path) -> None:
    vae = autoencoder.train(captions.artwork, tmp_path / "autoencoder", steps=2)
    text = text_encoders.train(captions, tmp_path / "text_encoders", steps=2)
    latents = autoencoder.encode_all(vae, captions.artwork)
    assert latents.shape == (len(captions.artwork.images), 4, 16, 16)
    parts = pipeline.assemble(vae, text, teacher.build())
    texts = [wording for forms in captions.wordings for wording in forms]
    embeddings = prompt_embeddings.encode(parts, texts, text_encoders.TOKENS, batch=512)
    drawn: list[Path] = []
    model = teacher.train(
        parts.transformer,
        captions,
        latents,
        embeddings,
        tmp_path / "teacher",
        2,
        lambda _, path: drawn.append(path),
        compile_blocks=False,
    )
    pipeline.assemble(vae, text, model).save_pretrained(tmp_path / "saved")
    loaded = StableDiffusion3Pipeline.from_pretrained(tmp_path / "saved")
    picture = loaded("a red apple", num_inference_steps=1, max_sequence_length=text_encoders.TOKENS).images[0]
    assert picture.size == (64, 64)
    for stage in ("autoencoder", "text_encoders", "teacher"):
        assert checkpoints.steps_of(tmp_path / stage) == [2]
        assert (tmp_path / stage / "log.jsonl").is_file()
    assert (tmp_path / "text_encoders" / "grid-000002.png").is_file()
    assert [path.name for path in drawn] == ["grid-000002.png"]


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
    state, t = torch.randn(1, 3, generator=generator, dtype=torch.float64), torch.tensor([0.6], dtype=torch.float64)
    density = torch.distributions.Normal(0.4 * x, 0.6).log_prob(state).sum(1).exp()
    weights = prior[0] * density
    expected = (weights / weights.sum()) @ x
    torch.testing.assert_close(teacher.exact_mean(state, t, x, prior)[0], expected)
    nearly_clean = 0.99 * x[2:3] + 0.01 * state
    torch.testing.assert_close(
        teacher.exact_mean(nearly_clean, torch.tensor([0.01], dtype=torch.float64), x, prior), x[2:3]
    )


def test_every_emoji_has_its_own_names() -> None:
    names = [name for emoji in EMOJI for name in emoji.names]
    assert len(names) == len(set(names))
    assert 150 <= len(EMOJI) <= 250
