"""Stable Diffusion 3 pipelines of a few thousand random weights, whole in every part."""

import string
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderTiny,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel
from transformers import T5TokenizerFast as T5Tokenizer

from jobs.sampling_contract import SamplingContract

TOKENS = 16
WIDTH = 32


def build() -> StableDiffusion3Pipeline:
    """64×64 pixels ↔ 16×16 latents of 4 channels; two transformer blocks, 32 wide; always the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clip_tokenizer, t5_tokenizer = _clip_tokenizer(), _t5_tokenizer()
        pipeline = StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(
                sample_size=16,
                patch_size=2,
                in_channels=4,
                out_channels=4,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=2 * WIDTH,
                caption_projection_dim=WIDTH,
                pooled_projection_dim=2 * WIDTH,
                pos_embed_max_size=16,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
            vae=_vae(),
            text_encoder=_clip(clip_tokenizer),
            tokenizer=clip_tokenizer,
            text_encoder_2=_clip(clip_tokenizer),
            tokenizer_2=clip_tokenizer,
            text_encoder_3=_t5(t5_tokenizer),
            tokenizer_3=t5_tokenizer,
        )
    for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        part.requires_grad_(False).eval()
    pipeline.text_encoder_3.requires_grad_(False).eval()
    _make_vivid(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def contract(**changes: Any) -> SamplingContract:
    """The contract of a four-step student of `build`'s architecture."""
    fields: dict[str, Any] = {
        "method": "dp-dmd",
        "family": "sd3",
        "prediction": "flow",
        "steps": 4,
        "sigmas": [1.0, 0.75, 0.5, 0.25, 0.0],
        "max_sequence_length": TOKENS,
        "sizes": [(64, 64), (32, 64)],
    }
    return SamplingContract.model_validate(fields | changes)


def save(folder: Path, **changes: Any) -> Path:
    """Write a servable folder and return it."""
    build().save_pretrained(folder, safe_serialization=True)
    contract(**changes).save(folder)
    return folder


def _make_vivid(pipeline: StableDiffusion3Pipeline) -> None:
    """Random weights hardly listen to their prompt and decode to near black: let both be seen in the pixels."""
    pipeline.transformer.time_text_embed.text_embedder.linear_2.weight *= 40
    pipeline.transformer.proj_out.weight *= 4
    last = pipeline.vae.decoder.layers[-1]
    last.weight *= 6
    last.bias.fill_(0.5)


def _vae() -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=4,
    )


def _clip(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config)


def _t5(tokenizer: T5Tokenizer) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=2 * WIDTH,
        d_kv=16,
        num_heads=2,
        d_ff=64,
        num_layers=2,
        dropout_rate=0.0,
    )
    return T5EncoderModel(config)


def _clip_tokenizer() -> CLIPTokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    return CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], model_max_length=TOKENS)


def _t5_tokenizer() -> T5Tokenizer:
    # Letters only: a Unigram vocabulary trained anew comes out in another order every time.
    letters = [(letter, -3.0) for letter in "\u2581" + string.ascii_lowercase]
    return T5Tokenizer(
        vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters], extra_ids=0, model_max_length=TOKENS
    )
