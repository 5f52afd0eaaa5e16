"""Calls to the API, and the answers that they must get."""

import httpx

from jobs.testing.waiting import wait_until

ASYNC = {"Prefer": "wait=5, Respond-Async"}


async def generate(api: httpx.AsyncClient, **body: object) -> dict:
    answer = await api.post("/generate", json={"prompt": "a smiling cat face", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def start(api: httpx.AsyncClient, num_images: int = 1, prompt: str = "a cat") -> str:
    answer = await api.post("/generate", json={"prompt": prompt, "num_images": num_images}, headers=ASYNC)
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


async def noticed(api: httpx.AsyncClient, ended: str) -> None:
    """Wait until the API has counted one call that ended so."""

    async def counted() -> bool:
        return f'{{endpoint="/generate",outcome="{ended}"}} 1.0' in (await api.get("/metrics")).text

    await wait_until(counted)


def is_problem(answer: httpx.Response, status: int, name: str) -> bool:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert {"type", "title", "status", "detail"} <= set(body)
    found = (answer.status_code, body["status"], body["type"])
    assert found == (status, status, f"urn:fourstep:problem:{name}"), answer.text
    return True
