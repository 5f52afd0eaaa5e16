"""The number of tokens that the text encoders read of a prompt is where its picture stops to change."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.worker.tasks import image_task, pictures
from worker.engine.engine import Engine
from worker.families import registry
from worker.families.stable_diffusion_3 import StableDiffusion3
from worker.families.stable_diffusion_xl import StableDiffusionXL
from worker.model_folder.loading import LoadedModel
from worker.testing import (
    tiny_pipelines,
    tiny_qwen3_pipelines,
    tiny_qwen_image_pipelines,
    tiny_sana_pipelines,
    tiny_sdxl_pipelines,
)

TOKENS = tiny_pipelines.TOKENS
LONG = "a red cat on a sad big dog under the sun"


def test_a_prompt_that_is_read_whole(tiny_model: LoadedModel) -> None:
    (sun,) = pictures(Engine(tiny_model, 1), [image_task("sun")])
    tokens = sun.prompt_tokens
    assert tokens.read == tokens.total < TOKENS


def test_what_stands_after_the_tokens_read_changes_nothing(tiny_model: LoadedModel) -> None:
    tasks = [image_task(LONG), image_task(LONG + " and a house")]
    long, longer = pictures(Engine(tiny_model, 1), tasks)
    assert (long.prompt_tokens.read, longer.prompt_tokens.read) == (TOKENS, TOKENS)
    assert TOKENS < long.prompt_tokens.total < longer.prompt_tokens.total
    assert np.array_equal(long.pixels, longer.pixels)


def test_a_negative_prompt_is_counted_where_it_counts(tiny_model: LoadedModel) -> None:
    guided = replace(tiny_model, contract=tiny_model.contract.model_copy(update={"guidance_scale": 3.0}))
    tasks = [image_task("sun", negative_prompt=negative) for negative in (LONG, LONG + " and a house", None)]
    long, longer, own = pictures(Engine(guided, 1), tasks)
    assert long.negative_tokens.read == longer.negative_tokens.read == TOKENS
    assert TOKENS < long.negative_tokens.total < longer.negative_tokens.total
    assert own.negative_tokens is None
    assert np.array_equal(long.pixels, longer.pixels)
    assert not np.array_equal(long.pixels, own.pixels)
    assert pictures(Engine(tiny_model, 1), tasks[:1])[0].negative_tokens is None


@pytest.mark.parametrize(("t5_tokens", "read"), [(TOKENS, TOKENS), (2 * TOKENS, 2 * TOKENS), (256, None)])
def test_the_encoder_counts_that_reads_most(t5_tokens: int, read: int | None) -> None:
    """Stable Diffusion 3's CLIP encoders read few tokens, its T5 encoder as many as it is told to."""
    tokens = StableDiffusion3().prompt_tokens(tiny_pipelines.build(), LONG, t5_tokens)
    assert tokens.read == (read or tokens.total)
    assert tokens.total == len(tiny_pipelines.build().tokenizer_3(LONG).input_ids) or t5_tokens == TOKENS


def test_without_t5_clip_counts() -> None:
    pipeline = tiny_pipelines.build()
    pipeline.register_modules(text_encoder_3=None, tokenizer_3=None)
    tokens = StableDiffusion3().prompt_tokens(pipeline, LONG, 256)
    assert (tokens.read, tokens.total) == (TOKENS, len(pipeline.tokenizer(LONG).input_ids))


def test_sdxl_reads_what_clip_does() -> None:
    pipeline = tiny_sdxl_pipelines.build()
    tokens = StableDiffusionXL().prompt_tokens(pipeline, LONG, None)
    assert (tokens.read, tokens.total) == (TOKENS, len(pipeline.tokenizer(LONG).input_ids))


CHATS = {
    "flux2-klein": (tiny_qwen3_pipelines.klein, 192, 0),
    "z-image": (tiny_qwen3_pipelines.z_image, 192, 0),
    "qwen-image": (tiny_qwen_image_pipelines.build, 320, 0),
    "sana-sprint": (tiny_sana_pipelines.build, 300, 1),
}
"""Pipeline, length in tokens, and tokens that begin every text. A letter is a token."""


@pytest.mark.slow
@pytest.mark.parametrize("name", CHATS)
def test_a_language_model_reads_so_many_letters_of_the_prompt(name: str) -> None:
    build, length, beginning = CHATS[name]
    pipeline, family = build(), registry.named(name)
    if name == "qwen-image":  # its template of real tokens is longer in letters
        pipeline.prompt_template_encode = 34 * "." + "{}"
    tokens = family.prompt_tokens(pipeline, 500 * "a", length)
    assert tokens.total == 500 + beginning
    letters = tokens.read - beginning
    texts = [letters * "a" + end for end in ("bbb", "ccc")] + [(letters - 1) * "a" + "bbb"]
    first, same, other = (family.encode(pipeline, [text], length)[0].tokens for text in texts)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
