"""LitServe with its own batching. ``python -m bench.peers.lit_serve``."""

from typing import Any

import litserve as ls
from PIL import Image

from bench.peers.engine import load, png
from bench.peers.settings import BATCH_SIZE, PORT, WAIT_S


class Drawing(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.draw = load()

    def decode_request(self, request: dict[str, Any]) -> tuple[str, int]:
        return request["prompt"], request["seed"]

    def predict(self, calls: list[tuple[str, int]]) -> list[tuple[int, Image.Image]]:
        prompts, seeds = zip(*calls, strict=True)
        return list(zip(seeds, self.draw(prompts, seeds), strict=True))

    def unbatch(self, output: list[tuple[int, Image.Image]]) -> list[tuple[int, Image.Image]]:
        return output

    def encode_response(self, output: tuple[int, Image.Image]) -> dict[str, Any]:
        seed, image = output
        return {"seed": seed, "b64": png(image)}


if __name__ == "__main__":
    api = Drawing(max_batch_size=BATCH_SIZE, batch_timeout=WAIT_S, api_path="/generate")
    ls.LitServer(api, accelerator="cpu", timeout=60).run(host="127.0.0.1", port=PORT, generate_client_file=False)
