"""The noise of an image, which depends on its seed alone."""

import torch


def draw(seed: int, shape: tuple[int, int, int], count: int = 1) -> torch.Tensor:
    """Draw standard normal noise of `shape` (channels, latent height, latent width): fp32 [count, *shape].

    It is drawn on the CPU, by a generator of the image's own and all at once, so that it depends neither on the device
    nor on other images. The first draw is the starting latent.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.stack([torch.randn(shape, generator=generator, dtype=torch.float32) for _ in range(count)])
