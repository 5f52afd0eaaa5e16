"""Addresses in answers are those that the server's clients can reach."""

from collections.abc import Callable

import httpx
import pytest
from pydantic import ValidationError

from jobs.settings import ApiSettings
from tests.service.calls import ASYNC
from tests.service.running_api import running_api

BODY = {"prompt": "a cat", "response": "url"}
BEHIND_TLS = {"X-Forwarded-Proto": "https", "Host": "pictures.example"}

pytestmark = pytest.mark.usefixtures("worker")


async def image_url(api: httpx.AsyncClient, headers: dict[str, str] | None = None) -> str:
    return (await api.post("/generate", json=BODY, headers=headers)).json()["images"][0]["url"]


async def test_a_public_address_stands_in_all_answers(redis_url: str, free_port: Callable[[], int]) -> None:
    public = "https://pictures.example/draw"
    settings = ApiSettings(redis_url=redis_url, port=free_port(), public_url=f"{public}/")
    async with running_api(settings) as api:
        assert (await image_url(api)).startswith(f"{public}/images/")
        (image,) = (await api.post("/v1/images/generations", json={"prompt": "a cat"})).json()["data"]
        assert image["url"].startswith(f"{public}/images/")
        job = (await api.post("/generate", json=BODY, headers=ASYNC)).headers["location"]
        assert job.startswith(f"{public}/jobs/")
        events = (await api.get(f"{job.removeprefix(public)}/events")).text
        assert f'"url": "{public}/images/' in events


@pytest.mark.parametrize(
    ("proxies", "scheme"), [("127.0.0.1", "https"), ("127.0.0.0/8", "https"), ("10.1.2.3", "http")]
)
async def test_only_known_proxies_are_believed(
    redis_url: str, free_port: Callable[[], int], proxies: str, scheme: str
) -> None:
    settings = ApiSettings(redis_url=redis_url, port=free_port(), forwarded_allow_ips=proxies)
    async with running_api(settings) as api:
        assert (await image_url(api, BEHIND_TLS)).startswith(f"{scheme}://pictures.example/images/")


@pytest.mark.parametrize("url", ["pictures.example", "ftp://pictures.example", "https://pictures.example/?a=b"])
def test_an_address_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        ApiSettings(public_url=url)
