"""The noise of one image, from its seed alone."""

import torch


def draw(seed: int, shape: tuple[int, int, int], count: int = 1) -> torch.Tensor:
    """`count` standard normal draws of `shape` (channels, latent height, latent width) → fp32 [count, *shape].

    Drawn on the CPU by a generator of the image's own and all at once, so that neither the device nor the
    neighbours in a batch nor the moment of a step can change it. The first draw is the starting latent.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.stack([torch.randn(shape, generator=generator, dtype=torch.float32) for _ in range(count)])
