"""A cache of prompt embeddings."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

import torch

from worker.device.accelerator import is_out_of_memory
from worker.families.prompt_embeddings import PromptEmbedding

log = logging.getLogger(__name__)

Encode = Callable[[Sequence[str]], list[PromptEmbedding]]


CAPACITY = 256
CAPACITY_BYTES = 512 << 20
"""Embeddings of Stable Diffusion 3.5 are 2.7 MB each, those of Qwen-Image up to 7.3."""


class PromptCache:
    """Keeps the most recently used embeddings by the prompt's text, `capacity` of them and `capacity_bytes` in all at
    most; misses are encoded in one batch.

    Prompts of rows that still wait may fill that batch up to `fill_to`; 0 for never.
    """

    def __init__(
        self, encode: Encode, max_batch: int, capacity: int = CAPACITY, capacity_bytes: int = CAPACITY_BYTES
    ) -> None:
        self._encode = encode
        self.max_batch = max_batch
        self.fill_to = max_batch
        self._capacity, self._capacity_bytes = capacity, capacity_bytes
        self._kept: OrderedDict[str, tuple[PromptEmbedding, bool]] = OrderedDict()
        self._kept_bytes = 0  # counted along: adding them up takes as long as many operations of a step
        self.hits = 0

    def get(self, prompts: Sequence[str], strict: bool, waiting: Iterable[str] = ()) -> list[PromptEmbedding]:
        """Return one embedding for each of at most `max_batch` prompts, in their order.

        A strict one comes from a batch padded to `max_batch`: like the denoiser, the text encoders repeat their bits
        only at one batch size. An embedding of a call that was not strict is encoded again for one that is. Where
        anything is encoded, prompts that are `waiting` are encoded along, up to `fill_to` in all.
        """
        unique = list(dict.fromkeys(prompts))
        known = {prompt: self._kept[prompt][0] for prompt in unique if self._serves(prompt, strict)}
        missing = [prompt for prompt in unique if prompt not in known]
        self.hits += len(prompts) - len(missing)
        if missing:
            room = max(0, self.fill_to - len(missing))
            others = (p for p in dict.fromkeys(waiting) if p not in missing and not self._serves(p, strict))
            along = list(islice(others, room))
            encoded = self._encoded_with(missing, along, strict)
            self._keep(encoded, strict)
            known.update({prompt: self._kept[prompt][0] for prompt in missing})
        for prompt in unique:
            self._kept.move_to_end(prompt)
        if missing:
            self._forget_oldest()
        return [known[prompt] for prompt in prompts]

    def bytes_to_come(self) -> int:
        """Return the memory in bytes that embeddings like those kept will take beyond these."""
        if not self._kept:
            return 0
        kept = self._kept_bytes
        return max(0, min(self._capacity_bytes, self._capacity * kept // len(self._kept)) - kept)

    def _keep(self, encoded: Mapping[str, PromptEmbedding], strict: bool) -> None:
        for prompt, embedding in encoded.items():
            if replaced := self._kept.get(prompt):
                self._kept_bytes -= replaced[0].nbytes
            self._kept[prompt] = embedding, strict
            self._kept_bytes += embedding.nbytes

    def _forget_oldest(self) -> None:
        while len(self._kept) > self._capacity or self._kept_bytes > self._capacity_bytes:
            _, (embedding, _) = self._kept.popitem(last=False)
            self._kept_bytes -= embedding.nbytes

    def _encoded_with(self, prompts: list[str], along: list[str], strict: bool) -> dict[str, PromptEmbedding]:
        """Encode `prompts` and those `along`, or, if that fails, `prompts` alone: the others fail in their own turn."""
        try:
            return self._encoded(prompts + along, strict)
        except Exception as error:
            if not along or (isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)):
                raise
            log.warning("no prompts encoded along: %s in a batch of %d", type(error).__name__, len(prompts + along))
        # Only here: within the handler the traceback keeps the failed batch's tensors.
        return self._encoded(prompts, strict)

    def _encoded(self, prompts: list[str], strict: bool) -> dict[str, PromptEmbedding]:
        padding = self.max_batch - len(prompts) if strict else 0
        return dict(zip(prompts, self._encode(prompts + [prompts[0]] * padding), strict=False))

    def _serves(self, prompt: str, strict: bool) -> bool:
        kept = self._kept.get(prompt)
        return kept is not None and (kept[1] or not strict)
