"""A picture that the safety model refuses is no black image and no fault of the server."""

import httpx
import pytest

from jobs.testing.waiting import wait_until
from tests.service.calls import is_problem, start
from tests.service.stand_in_worker import REFUSED_PROMPT

pytestmark = pytest.mark.usefixtures("worker")


async def test_callers_are_told_and_their_clients_do_not_try_again(api: httpx.AsyncClient) -> None:
    answer = await api.post("/generate", json={"prompt": REFUSED_PROMPT})
    assert is_problem(answer, 422, "image-refused")
    assert answer.json()["detail"] == "Image 0: the server's safety model takes the picture for dark"
    assert answer.headers["x-should-retry"] == "false"
    answer = await api.post("/v1/images/generations", json={"prompt": REFUSED_PROMPT})
    assert answer.json()["error"]["code"] == "image_refused"


async def test_a_job_lists_it(api: httpx.AsyncClient) -> None:
    job = await start(api, prompt=REFUSED_PROMPT)

    async def failed() -> bool:
        return (await api.get(job)).json()["status"] == "failed"

    await wait_until(failed)
    assert (await api.get(job)).json()["failures"][0]["reason"] == "refused"
