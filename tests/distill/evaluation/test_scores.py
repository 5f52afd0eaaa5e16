"""The judges: real loading code on tiny networks of the published structures, checked against transformers itself."""

import json
import re

import pytest
import torch
from transformers import BertTokenizerFast, BlipTextConfig, BlipVisionConfig, CLIPModel

from distill.evaluation import image_reward, scores
from distill.evaluation.image_reward import ImageReward
from distill.evaluation.preprocessing import Preprocessing
from tests.distill.evaluation import tiny_judges

PROMPTS = ("a cat", "two dogs")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """uint8 [2, 3, 28, 28, 3]."""
    return torch.randint(0, 256, (2, 3, 28, 28, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_judges.clip(tmp_path_factory.mktemp("clip"))


def test_clip_scores_are_transformers_own_logits(clip, images) -> None:
    network = CLIPModel.from_pretrained(clip).eval()
    read = scores.ClipPair("", clip).tokenizer(list(PROMPTS), padding=True, return_tensors="pt")
    answer = network(**read, pixel_values=Preprocessing.load(clip)(images.flatten(0, 1)))
    logits = torch.stack([answer.logits_per_image.unflatten(0, (2, 3))[p, :, p] for p in range(2)])
    judged = scores.load({"pickscore": clip, "clipscore": clip})
    torch.testing.assert_close(judged["pickscore"](PROMPTS, images), logits, rtol=1e-4, atol=1e-5)
    cosines = logits / network.logit_scale.exp()
    expected = 2.5 * cosines.clamp_min(0)
    torch.testing.assert_close(judged["clipscore"](PROMPTS, images), expected, rtol=1e-4, atol=1e-5)


PUBLISHED = (
    (r"^head\.", "mlp.layers."),
    (r"^text\.", "blip.text_encoder."),
    (r"^vision\.embeddings\.class_embedding", "blip.visual_encoder.cls_token"),
    (r"^vision\.embeddings\.position_embedding", "blip.visual_encoder.pos_embed"),
    (r"^vision\.embeddings\.patch_embedding", "blip.visual_encoder.patch_embed.proj"),
    (r"^vision\.post_layernorm", "blip.visual_encoder.norm"),
    (r"^vision\.encoder\.layers", "blip.visual_encoder.blocks"),
    (r"layer_norm(\d)", r"norm\1"),
    (r"self_attn\.qkv", "attn.qkv"),
    (r"self_attn\.projection", "attn.proj"),
)
TEXT = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture
def reward(tmp_path):
    """A tiny ImageReward and a folder that holds it as published."""
    torch.manual_seed(0)
    vision = BlipVisionConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=1, image_size=28, patch_size=7,
        layer_norm_eps=1e-6,
    )  # fmt: skip
    network = ImageReward(vision, BlipTextConfig(**TEXT, encoder_hidden_size=64)).eval()
    for parameter in network.parameters():  # as they come, the picture would hardly count
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    state = {}
    for name, value in network.state_dict().items():
        for pattern, new in PUBLISHED:
            name = re.sub(pattern, new, name)
        state[name] = value
    state["blip.vision_proj.weight"] = torch.zeros(256, 64)
    torch.save(state, tmp_path / "ImageReward.pt")
    (tmp_path / "med_config.json").write_text(json.dumps(TEXT | {"architectures": ["BertModel"], "encoder_width": 768}))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "two", "dogs"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}).save_pretrained(tmp_path)
    return network, tmp_path


def test_image_reward_reads_the_published_names_and_grades_by_prompt_and_picture(reward, images) -> None:
    network, folder = reward
    score = scores.load({"imagereward": folder})["imagereward"]
    graded = score(PROMPTS, images)
    assert graded.shape == (2, 3)
    tokens = BertTokenizerFast.from_pretrained(folder)
    read = tokens("two dogs", padding="max_length", max_length=image_reward.TOKENS, return_tensors="pt")
    pixels = image_reward.square_pixels(28)(images[1, 2:])
    with torch.no_grad():
        expected = network(read.input_ids, read.attention_mask, pixels)
    torch.testing.assert_close(graded[1, 2:], expected)
    swapped = score(PROMPTS[::-1], images)
    assert not torch.allclose(graded, swapped)
    assert graded.flatten().unique().numel() == 6


@pytest.mark.parametrize(("name", "file"), [("imagereward", "ImageReward.pt"), ("pickscore", "config.json")])
def test_missing_weights_are_an_error_and_never_a_score(tmp_path, name, file) -> None:
    with pytest.raises(ValueError, match=f"--scores {name}: .*{file}"):
        scores.load({name: tmp_path})


def test_a_file_of_something_else_is_refused(reward) -> None:
    _, folder = reward
    torch.save({"blip.visual_encoder.cls_token": torch.zeros(1, 1, 64)}, folder / "ImageReward.pt")
    with pytest.raises(ValueError, match="not an ImageReward"):
        scores.load({"imagereward": folder})


def test_a_file_with_a_weight_missing_is_refused_by_its_name(reward) -> None:
    _, folder = reward
    state = torch.load(folder / "ImageReward.pt", weights_only=True)
    del state["mlp.layers.7.bias"]
    torch.save(state, folder / "ImageReward.pt")
    with pytest.raises(ValueError, match=r"head\.7\.bias"):
        scores.load({"imagereward": folder})


def test_an_unknown_score_is_named() -> None:
    with pytest.raises(ValueError, match="--scores: beauty is none of clipscore, pickscore, imagereward"):
        scores.load({"beauty": None})
