"""A running Prometheus is asked for every expression of the dashboards and alerts."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import httpx
from PIL import Image

from jobs.testing.waiting import block_until
from tests.operations import expressions

NEEDS_A_FAULT_OR_A_GPU = ("graph_replays", "graph_misses", 'outcome="shed"', "webhooks")
"""Panels of these stay empty while all is well on a CPU, and no call has a webhook."""


@dataclass(frozen=True)
class Stack:
    """A server and the Prometheus that scrapes it, by their addresses."""

    client: httpx.Client
    api: str
    prometheus: str

    def pictures(self, count: int) -> None:
        body = {"prompt": "a smiling cat face", "num_images": count}
        answer = self.client.post(f"{self.api}/generate", json=body)
        answer.raise_for_status()
        images = answer.json()["images"]
        assert len(images) == count
        for image in images:
            picture = Image.open(io.BytesIO(base64.b64decode(image["b64"])))
            assert (picture.format, picture.size) == ("PNG", (image["width"], image["height"]))
            assert picture.convert("L").entropy() > 1, "one flat colour"

    def acknowledged(self, count: int) -> str:
        """The path of a job that the server has promised to do."""
        body = {"prompt": "a red apple", "num_images": count, "response": "url", "timeout": 300}
        answer = self.client.post(f"{self.api}/generate", json=body, headers={"Prefer": "respond-async"})
        assert answer.status_code == 202, answer.text
        return answer.headers["location"]

    def job(self, path: str) -> dict[str, Any]:
        return self.client.get(f"{self.api}{path}").raise_for_status().json()

    def images_by_worker(self) -> dict[str, float]:
        """Images that each worker has made, by its address."""
        made = self.query('sum by (instance) (fourstep_images_total{outcome="ok"})')
        return {series["metric"]["instance"]: float(series["value"][1]) for series in made}

    def listen(self) -> None:
        """Follow a job's events to its end, so that previews are asked for."""
        with self.client.stream("GET", f"{self.api}{self.acknowledged(2)}/events") as events:
            for _ in events.iter_lines():
                pass

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = self.client.get(f"{self.prometheus}/api/v1/query", params={"query": expression})
        answer.raise_for_status()
        return answer.json()["data"]["result"]

    def fill_every_panel(self, seconds: float) -> int:
        """Call, well and badly, until each panel that a healthy server can fill has data; returns their number."""
        panels = expressions.panel_expressions()
        wanted = {name for name, expression in panels.items() if _fillable(expression)}
        empty = set(wanted)

        def filled() -> bool:
            self.pictures(4)
            assert self.client.post(f"{self.api}/generate", json={"prompt": ""}).status_code == 422
            self.listen()
            empty.difference_update([name for name in empty if self.query(panels[name])])
            return not empty

        block_until(filled, lambda: f"no data for {sorted(empty)}", seconds, pause_s=1)
        return len(wanted)

    def check_rules(self, seconds: float, without: tuple[str, ...] = ()) -> int:
        """Wait until each recorded expression and all that the alerts compare has data; returns their number.

        The alerts `without` data are those that this server has nothing for.
        """
        wanted = {
            f"{rule.get('record') or rule['alert']}: {expression}": expression
            for rule in expressions.rules()
            for expression in expressions.series_read(rule)
            if _fillable(expression) and rule.get("alert") not in without
        }

        def empty() -> list[str]:
            return [name for name, expression in wanted.items() if not self.query(expression)]

        block_until(lambda: not empty(), lambda: f"no data for {empty()}", seconds, pause_s=1)
        return len(wanted)


def _fillable(expression: str) -> bool:
    return not any(part in expression for part in NEEDS_A_FAULT_OR_A_GPU)
