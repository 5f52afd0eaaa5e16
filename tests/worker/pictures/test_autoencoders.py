"""Every family encodes a picture as its published autoencoder does, in the latents that it samples."""

from typing import Any

import pytest
import torch

from worker.families import registry
from worker.families.network import Network
from worker.testing import tiny_pipelines
from worker.testing.tiny_families import BUILDS


def test_every_family_is_here() -> None:
    ours = {name for name, family in registry.FAMILIES.items() if type(family).__module__.startswith("worker.")}
    assert ours == set(BUILDS)


@pytest.mark.parametrize("name", BUILDS)
@torch.inference_mode()
def test_encoding_and_decoding_are_the_autoencoders_own_round_trip(name: str) -> None:
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    vae = BUILDS[name]().vae
    expected = _round_trip(vae, picture)
    pipeline = BUILDS[name]()
    network = Network(registry.of(pipeline), pipeline)
    latents = network.encode_picture(picture)
    assert tuple(latents.shape[1:]) == network.latent_shape(64, 64)
    assert network.takes_pictures
    assert torch.allclose(network.decode(latents), expected, atol=1e-4)


def _round_trip(vae: Any, picture: torch.Tensor) -> torch.Tensor:
    if "QwenImage" in type(vae).__name__:
        frame = vae.encode(picture.unsqueeze(2)).latent_dist.mode()
        return vae.decode(frame).sample.squeeze(2)
    encoded = vae.encode(picture, return_dict=False)[0]
    latents = encoded if isinstance(encoded, torch.Tensor) else encoded.mode()
    return vae.decode(latents, return_dict=False)[0]


def test_an_autoencoder_without_its_encoder_takes_none() -> None:
    pipeline = tiny_pipelines.build()
    pipeline.vae.encoder = None
    assert not Network(registry.of(pipeline), pipeline).takes_pictures
