"""One way to run a model's networks."""

from collections.abc import Callable

import torch

from worker.engine.denoising_step import DenoisingStep, StepInputs, StepOutputs
from worker.engine.step_graphs import Graph, StepGraphs
from worker.families.network import Network
from worker.model_folder.loading import LoadedModel


class Executor:
    """One way to run a model: by the eager `network` or by a compiled or converted twin of it.

    Steps are replayed from graphs when `new_graph` makes them; these have buffers of their own, which are the device
    thread's, so that other threads take `step_without_graph`. `any_rows` says that batches of any size run at their
    price, others are padded to a bucket. `batch_invariant` says that a row has the same bits in every batch, of
    whatever size.
    """

    def __init__(
        self,
        model: LoadedModel,
        network: Network,
        new_graph: Callable[[], Graph] | None = None,
        any_rows: bool = False,
    ) -> None:
        table = model.table.to(network.device)
        of_sizes = {
            network.latent_shape(*size)[1:]: each.to(network.device) for size, each in model.size_tables.items()
        }
        step = DenoisingStep(network.predict, table, network.guide, of_sizes)
        self._network = network
        self._graphs = StepGraphs(step, new_graph) if new_graph else None
        self.step_without_graph = step
        self.any_rows = any_rows
        self.batch_invariant = False
        self.encode = network.encode
        self.seal = network.seal

    @property
    def has_graphs(self) -> bool:
        return self._graphs is not None

    @torch.inference_mode()  # as steps run: under another mode compiled code would be compiled anew
    def capture(self, example: StepInputs) -> None:
        """Capture the graph for batches shaped like `example`, if this executor has graphs and has not tried before."""
        if self._graphs and self._graphs.miss(example) in ("batch", "embedding"):
            self._graphs.capture(example)

    def drop_graphs(self) -> None:
        """Give up all graphs: they share memory, which the device gets back when the last of them is gone."""
        if self._graphs:
            self._graphs.drop()

    def graph_miss(self, inputs: StepInputs) -> str | None:
        """Say why such a batch is not replayed although there are graphs; see StepGraphs.miss."""
        return self._graphs.miss(inputs) if self._graphs else None

    def step(self, inputs: StepInputs) -> StepOutputs:
        """Take one step of every row; see DenoisingStep."""
        return self._graphs(inputs) if self._graphs else self.step_without_graph(inputs)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode float32 latents [B, C, h, w] to float32 images [B, 3, H, W], about −1 to 1."""
        return self._network.decode(latents)
