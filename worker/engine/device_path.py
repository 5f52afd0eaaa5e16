"""One way to run batches on the device: eagerly or compiled, with CUDA graphs or without."""

from collections.abc import Callable

import torch

from worker.engine.denoising_step import DenoisingStep, StepInputs, StepOutputs
from worker.engine.step_graphs import Graph, StepGraphs
from worker.families.network import Network
from worker.families.prompt_embeddings import PromptEmbedding
from worker.model_folder import LoadedModel


class DevicePath:
    """The denoising step of `model` and the decoder, run by `network`: the model's own or a compiled twin of it.

    Steps are replayed from graphs when `new_graph` makes them. `negative` is the embedding for guidance, if any.
    """

    def __init__(
        self,
        model: LoadedModel,
        network: Network,
        negative: PromptEmbedding | None,
        new_graph: Callable[[], Graph] | None = None,
    ) -> None:
        self._network = network
        table = model.table.to(network.device)
        step = DenoisingStep(network.predict, table, model.contract.guidance_scale, negative, network.guide)
        self._graphs = StepGraphs(step, new_graph) if new_graph else None
        self._step = self._graphs or step

    @property
    def has_graphs(self) -> bool:
        return self._graphs is not None

    def capture(self, example: StepInputs) -> None:
        """Make the graph for batches like `example`, if this path has graphs."""
        if self._graphs:
            self._graphs.capture(example)

    def graph_miss(self, inputs: StepInputs) -> str | None:
        """Why such a batch is not replayed although there are graphs; see StepGraphs.miss."""
        return self._graphs.miss(inputs) if self._graphs else None

    def step(self, inputs: StepInputs) -> StepOutputs:
        """See DenoisingStep."""
        return self._step(inputs)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """fp32 latents [B, C, h, w] → fp32 images [B, 3, H, W], about −1 to 1."""
        return self._network.decode(latents)
