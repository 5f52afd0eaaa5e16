import pytest
import torch

from distill.evaluation.metrics import pairwise_diversity
from jobs.diversity import diversity_score, pack_layout


def test_the_same_images_score_nothing_and_unrelated_ones_one() -> None:
    assert diversity_score([pack_layout([1.0, -2.0, 0.5])] * 3) == pytest.approx(0, abs=1e-9)
    assert diversity_score([pack_layout([3.0, 0.0]), pack_layout([0.0, 0.1])]) == pytest.approx(1)
    assert diversity_score([pack_layout([0.0, 0.0]), pack_layout([0.0, 0.0])]) == pytest.approx(1)


@pytest.mark.parametrize("images", [2, 3, 64])
def test_it_is_the_papers_pairwise_diversity_of_the_layouts(images: int) -> None:
    latent_descriptors = torch.randn(images, 64, generator=torch.Generator().manual_seed(images)) + 0.5
    score = diversity_score([pack_layout(layout.tolist()) for layout in latent_descriptors])
    assert score == pytest.approx(float(pairwise_diversity(latent_descriptors[None])[0]), abs=2e-3)


def test_one_image_has_no_diversity() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        diversity_score([pack_layout([1.0])])
