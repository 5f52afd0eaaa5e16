"""Attention with rotary embeddings in real numbers, in place of diffusers' complex ones.

They give the same bits, and compile: inductor generates no code for complex numbers.
"""

from typing import Any

import torch
from torch.nn import functional as F


def rotated(x: torch.Tensor, rotary: torch.Tensor) -> torch.Tensor:
    """Rotate neighbouring values of `x` [B, n, heads, width] by the angles whose (cos, sin) are `rotary`, float32
    [B or 1, n, width / 2, 2]."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rotary.unsqueeze(2).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(3).type_as(x)


def _real(rotary: torch.Tensor) -> torch.Tensor:
    """The pairs (cos, sin) of a complex rotary embedding; others are pairs already."""
    return torch.view_as_real(rotary) if rotary.is_complex() else rotary


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """[B, n, heads, width] each, `mask` bool [B, n] of the keys → [B, n, heads · width]."""
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    keys = None if mask is None else mask[:, None, None, :]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=keys).transpose(1, 2).flatten(2)


class RealRotaryAttention:
    """The self-attention of Z-Image's blocks."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        freqs_cis: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`freqs_cis` is complex [B, n, pairs], or float32 [B, n, pairs, 2]; `attention_mask` bool [B, n]."""
        assert freqs_cis is not None
        rotary = _real(freqs_cis)
        query, key, value = (
            project(hidden_states).unflatten(-1, (attn.heads, -1)) for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        query, key = rotated(attn.norm_q(query), rotary), rotated(attn.norm_k(key), rotary)
        return attn.to_out[0](_attention(query, key, value, attention_mask))


class RealRotaryJointAttention:
    """The attention of Qwen-Image's blocks, over text and image tokens with projections of their own."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`image_rotary_emb` holds those of image and text, complex [n, pairs] or float32 [n, pairs, 2] each;
        `encoder_hidden_states_mask` is bool [B, n]."""
        assert image_rotary_emb is not None
        image_rotary, text_rotary = (_real(each).unsqueeze(0) for each in image_rotary_emb)
        image = [each(hidden_states) for each in (attn.to_q, attn.to_k, attn.to_v)]
        text = [each(encoder_hidden_states) for each in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)]
        image_query, image_key, image_value = (each.unflatten(-1, (attn.heads, -1)) for each in image)
        text_query, text_key, text_value = (each.unflatten(-1, (attn.heads, -1)) for each in text)
        query = [rotated(attn.norm_added_q(text_query), text_rotary), rotated(attn.norm_q(image_query), image_rotary)]
        key = [rotated(attn.norm_added_k(text_key), text_rotary), rotated(attn.norm_k(image_key), image_rotary)]
        mask = encoder_hidden_states_mask
        if mask is not None:
            mask = F.pad(mask, (0, hidden_states.shape[1]), value=True)
        joint = _attention(torch.cat(query, 1), torch.cat(key, 1), torch.cat([text_value, image_value], 1), mask)
        length = encoder_hidden_states.shape[1]
        return attn.to_out[0](joint[:, length:]), attn.to_add_out(joint[:, :length])
