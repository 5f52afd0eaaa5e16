"""Real loading and pooling, on tiny networks of the published structures."""

import pytest
import torch
from PIL import Image
from transformers import AutoModel, CLIPImageProcessorPil, CLIPVisionModel

from distill.evaluation import feature_spaces
from distill.evaluation.preprocessing import Preprocessing
from tests.distill.evaluation import tiny_judges


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """uint8 [3, 40, 48, 3], smooth, so that resizing can be compared."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, 3, 5, 6, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (40, 48), mode="bicubic").clamp(0, 1)
    return (255 * fine).round().byte().permute(0, 2, 3, 1)


def test_preprocessing_is_that_of_transformers(tmp_path, images) -> None:
    folder = tiny_judges.clip(tmp_path)
    theirs = CLIPImageProcessorPil.from_pretrained(folder)
    expected = theirs([Image.fromarray(image.numpy()) for image in images], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(Preprocessing.load(folder)(images), expected, atol=2 / 255 / 0.26, rtol=0)


def test_an_exact_size_is_not_cropped(tmp_path, images) -> None:
    assert Preprocessing.load(tiny_judges.dinov3(tmp_path))(images).shape == (3, 3, 28, 28)


@pytest.mark.parametrize("make", [tiny_judges.dinov2, tiny_judges.dinov3])
def test_dino_is_the_pooled_class_token(tmp_path, images, make) -> None:
    folder = make(tmp_path)
    network, pixels = AutoModel.from_pretrained(folder).eval(), Preprocessing.load(folder)(images)
    answer = network(pixel_values=pixels)
    space = feature_spaces.load({"dino": folder})["dino"]
    torch.testing.assert_close(space(images), answer.pooler_output)
    torch.testing.assert_close(space(images), answer.last_hidden_state[:, 0])


def test_clip_is_the_class_token_before_the_last_norm(tmp_path, images) -> None:
    folder = tiny_judges.clip(tmp_path)
    network, pixels = CLIPVisionModel.from_pretrained(folder).eval(), Preprocessing.load(folder)(images)
    answer = network(pixel_values=pixels)
    features = feature_spaces.load({"clip": folder})["clip"](images)
    torch.testing.assert_close(features, answer.last_hidden_state[:, 0])
    assert not torch.allclose(features, answer.pooler_output, atol=1e-3)


def test_many_pictures_are_read_in_parts(tmp_path, images, monkeypatch) -> None:
    space = feature_spaces.load({"dino": tiny_judges.dinov2(tmp_path)})["dino"]
    at_once = space(images)
    monkeypatch.setattr(feature_spaces, "BATCH", 2)
    torch.testing.assert_close(space(images), at_once)


def test_layout_sees_where_things_are_but_not_how_bright_the_whole_is() -> None:
    image = torch.full((1, 64, 64, 3), 100, dtype=torch.uint8)
    image[:, :32, :32] = 200
    brighter, moved = image + 20, image.roll(32, dims=2)
    one, other, elsewhere = (feature_spaces.layout(each) for each in (image, brighter, moved))
    torch.testing.assert_close(one, other)
    assert torch.cosine_similarity(one, elsewhere).item() < 0


@pytest.mark.parametrize(
    ("name", "named"), [("dino", "--features dino: .* holds no config.json"), ("vgg", "--features: vgg is none of")]
)
def test_a_missing_folder_and_an_unknown_space_are_named(tmp_path, name, named) -> None:
    with pytest.raises(ValueError, match=named):
        feature_spaces.load({name: tmp_path})


def test_another_networks_folder_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="holds a clip, not one of dinov2"):
        feature_spaces.load({"dino": tiny_judges.clip(tmp_path)})
