"""Tokenizers and the three text encoders of a Stable Diffusion 3 pipeline, in small.

Two CLIP text models and one T5 encoder learn which pictures a caption means: each one's pooled
output, against one free embedding per picture, must give the exact posterior P(picture | caption).
"""

import json
import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel
from transformers import T5TokenizerFast as T5Tokenizer

from distill import image_grid
from distill.emoji.captions import Captions
from distill.training import training_loop
from distill.training.checkpoints import Stateful

TOKENS = 16
"""Length of a prompt in tokens, for the CLIP and the T5 encoders alike: `max_sequence_length`."""
CLIP_WIDTH, T5_WIDTH, PROJECTION = 64, 128, 64
VOCABULARY = 2000
LETTERS = f"▁{string.ascii_letters}{string.digits}'-,.!?"
LETTER_SCORE = -20.0
"""Log-probability of a letter, below that of every word."""
BATCH = 128
CORPUS_WORDINGS = 3
CPU = torch.device("cpu")
GRID_COLUMNS, GRID_ROWS = 16, 4


@dataclass(frozen=True)
class TextEncoders:
    """The tokenizer(_2, _3) and text_encoder(_2, _3) of a `StableDiffusion3Pipeline`."""

    clip_tokenizer: CLIPTokenizer
    t5_tokenizer: T5Tokenizer
    clip: CLIPTextModelWithProjection
    clip_2: CLIPTextModelWithProjection
    t5: T5EncoderModel


def train(captions: Captions, folder: Path, steps: int, device: torch.device = CPU) -> TextEncoders:
    """Train (or go on training) in `folder` on `device`; the sample grid shows the pictures closest to 16 captions.

    Returns the encoders on the CPU.
    """
    torch.manual_seed(0)
    encoders = build(corpus(captions))
    pictures = captions.posterior.shape[1]
    readers = nn.ModuleDict({name: _Reader(width, pictures) for name, width in _POOLED_WIDTHS.items()})
    parts = nn.ModuleDict({"clip": encoders.clip, "clip_2": encoders.clip_2, "t5": encoders.t5, "readers": readers}).to(
        device
    )
    optimizer = torch.optim.AdamW(parts.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    stream = training_loop.RandomStream(1)
    posterior = captions.posterior.to(device)

    def step(index: int) -> dict[str, float]:
        drawn = captions.draw(torch.randint(pictures, (BATCH,), generator=stream.generator), stream.generator)
        clip_ids, t5_ids = _tokenize(encoders, captions.say(drawn, stream.generator), device)
        pooled = {
            "clip": encoders.clip(clip_ids).text_embeds,
            "clip_2": encoders.clip_2(clip_ids).text_embeds,
            "t5": encoders.t5(t5_ids).last_hidden_state.mean(1),
        }
        target = posterior[drawn.to(device)]
        losses = {name: _divergence(readers[name](value), target) for name, value in pooled.items()}
        training_loop.update(torch.stack(list(losses.values())).sum(), optimizer, schedule, clip=1.0)
        return {name: loss.item() for name, loss in losses.items()}

    @torch.no_grad()
    def sample(done: int) -> None:
        shown = torch.arange(0, len(posterior), len(posterior) // GRID_COLUMNS)[:GRID_COLUMNS]
        clip_ids, _ = _tokenize(encoders, captions.say(shown, torch.Generator().manual_seed(done)), device)
        scores = readers["clip"](encoders.clip(clip_ids).text_embeds)
        best = scores.topk(GRID_ROWS).indices.T.flatten().cpu().numpy()
        image_grid.save_grid(captions.artwork.images[best], GRID_COLUMNS, folder / f"grid-{done:06}.png")

    stateful: dict[str, Stateful] = {"parts": parts, "optimizer": optimizer, "schedule": schedule, "stream": stream}
    training_loop.run(folder, stateful, step, steps, save_every=500, sample=sample, samples=BATCH)
    parts.cpu()
    return TextEncoders(*_eval(encoders))


def corpus(captions: Captions) -> list[str]:
    """Every caption in a few wordings, without nonsense: what the tokenizers' vocabularies are fitted to."""
    generator = torch.Generator().manual_seed(7)
    every = torch.arange(len(captions.posterior))
    return sorted({text for _ in range(CORPUS_WORDINGS) for text in captions.say(every, generator, nonsense=False)})


def build(texts: Sequence[str]) -> TextEncoders:
    """Tokenizers fitted to `texts`, encoders with random weights."""
    clip_tokenizer, t5_tokenizer = train_clip_tokenizer(texts), train_t5_tokenizer(texts)
    return TextEncoders(
        clip_tokenizer, t5_tokenizer, _clip(clip_tokenizer, 3), _clip(clip_tokenizer, 4), _t5(t5_tokenizer)
    )


def train_clip_tokenizer(texts: Sequence[str]) -> CLIPTokenizer:
    """Byte-level BPE with CLIP's own splitting rules; unknown words fall apart into bytes."""
    bpe = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>", continuing_subword_prefix=""))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = CLIPTokenizer(
        vocab={"<|startoftext|>": 0, "<|endoftext|>": 1}, merges=[]
    ).backend_tokenizer.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    fitted = _model_of(bpe)
    vocabulary: dict[str, int] = fitted["vocab"]
    for letter in sorted(alphabet):
        vocabulary.setdefault(letter + "</w>", len(vocabulary))
    merges = [tuple(pair) for pair in fitted["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS)


def train_t5_tokenizer(texts: Sequence[str]) -> T5Tokenizer:
    """The words of `texts`, in lower case and capitalised, as a Unigram vocabulary in T5's layout; other words fall
    apart into letters."""
    counts = Counter(word for text in texts for word in re.findall(r"[\w'-]+", text.lower()))
    total = counts.total()
    words: dict[str, float] = {}
    for word, count in sorted(counts.items()):
        words |= dict.fromkeys((f"▁{word}", f"▁{word.capitalize()}"), math.log(count / total))
    letters = [(letter, LETTER_SCORE) for letter in LETTERS]
    special = [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")]
    return T5Tokenizer(vocab=[*special, *words.items(), *letters], extra_ids=0, model_max_length=TOKENS)


_POOLED_WIDTHS = {"clip": PROJECTION, "clip_2": PROJECTION, "t5": T5_WIDTH}


class _Reader(nn.Module):
    """Scores pictures by their learned embeddings: pooled float [B, width] → logits float [B, pictures]."""

    def __init__(self, width: int, pictures: int) -> None:
        super().__init__()
        self.pictures = nn.Parameter(torch.randn(pictures, width) / width**0.5)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.scale.exp() * F.normalize(pooled, dim=-1) @ F.normalize(self.pictures, dim=-1).T


def _divergence(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.kl_div(F.log_softmax(logits, -1), target, reduction="batchmean")


def _tokenize(encoders: TextEncoders, texts: list[str], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    def ids(tokenizer):
        read = tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
        return read.input_ids.to(device)

    return ids(encoders.clip_tokenizer), ids(encoders.t5_tokenizer)


def _clip(tokenizer: CLIPTokenizer, layers: int) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=CLIP_WIDTH,
        intermediate_size=4 * CLIP_WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        projection_dim=PROJECTION,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config)


def _t5(tokenizer: T5Tokenizer) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(tokenizer), d_model=T5_WIDTH, d_kv=32, num_heads=4, d_ff=256, num_layers=2, dropout_rate=0.0
    )
    return T5EncoderModel(config)


def _eval(encoders: TextEncoders):
    for part in (encoders.clip, encoders.clip_2, encoders.t5):
        part.eval().requires_grad_(False)
    return encoders.clip_tokenizer, encoders.t5_tokenizer, encoders.clip, encoders.clip_2, encoders.t5


def _model_of(tokenizer: Tokenizer) -> dict:
    return json.loads(tokenizer.to_str())["model"]
