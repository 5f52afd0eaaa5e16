"""Tokenizers of single letters."""

import string

from tokenizers import pre_tokenizers
from transformers import GemmaTokenizer, Qwen2Tokenizer

CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""
"""The course of Qwen3's own."""


def qwen2() -> Qwen2Tokenizer:
    """Qwen's, over the 256 letters of bytes, without merges."""
    markers = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(vocab={piece: i for i, piece in enumerate([*markers, *letters])}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": markers[1:3], "pad_token": markers[0]})
    tokenizer.add_tokens(markers[3:], special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.padding_side = "right"
    return tokenizer


def gemma() -> GemmaTokenizer:
    """Gemma's, over printable letters and bytes, without merges."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581"]
    printable = [letter for letter in string.printable if letter.isprintable() and letter != " "]
    vocab = {piece: i for i, piece in enumerate([*pieces, *printable, "\n"])}
    return GemmaTokenizer(vocab=vocab, merges=[], add_bos_token=True)
