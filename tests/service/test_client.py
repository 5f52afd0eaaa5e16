import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner, Result

from fourstep import app
from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL
from jobs.version import fourstep_version
from service.client import GenerationFailedError, generate_files
from tests.service.pictures.files import mask, picture
from tests.service.running_api import running_api
from tests.service.stand_in_worker import StandInWorker

pytestmark = pytest.mark.usefixtures("worker")


async def test_files_are_named_by_seed_and_seeds_printed(api: httpx.AsyncClient, tmp_path: Path) -> None:
    request = {"prompt": "a cat", "num_images": 3, "seed": 7, "format": "webp"}
    output = io.StringIO()
    paths = await asyncio.to_thread(
        generate_files, str(api.base_url), request, tmp_path / "out", Console(file=output, width=200)
    )
    assert [path.name for path in paths] == ["7.webp", "8.webp", "9.webp"]
    assert all(Image.open(path).size == (64, 64) for path in paths)
    assert [f"seed {seed}" in output.getvalue() for seed in (7, 8, 9)] == [True] * 3


async def test_a_problem_is_told_in_its_own_words(api: httpx.AsyncClient, tmp_path: Path) -> None:
    request = {"prompt": "a cat", "num_images": 65, "format": "png"}
    with pytest.raises(GenerationFailedError, match=r"num_images: .* 64"):
        await asyncio.to_thread(generate_files, str(api.base_url), request, tmp_path, Console(file=io.StringIO()))


async def run(api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    """`fourstep generate` with the port of `api` in the environment."""
    monkeypatch.setenv("FOURSTEP_PORT", str(api.base_url.port))
    return await asyncio.to_thread(CliRunner().invoke, app, ["generate", "a cat", *arguments])


async def test_the_command_finds_the_port_and_sends_its_options(
    api: httpx.AsyncClient, worker: StandInWorker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = f"--model {MODEL} --width 96 --height 64 --mode strict --timeout 500 --seed 7 -o {tmp_path}"
    result = await run(api, monkeypatch, *options.split())
    assert result.exit_code == 0, result.output
    (task,) = worker.made
    assert (task.width, task.height, task.mode, task.seed) == (96, 64, "strict", 7)
    assert task.deadline is not None
    assert task.deadline - task.created == pytest.approx(500)


async def test_a_picture_and_its_mask_are_sent(
    api: httpx.AsyncClient, worker: StandInWorker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "picture.png").write_bytes(picture())
    (tmp_path / "mask.png").write_bytes(mask())
    options = f"--image {tmp_path}/picture.png --mask {tmp_path}/mask.png --strength 0.5 -o {tmp_path}"
    result = await run(api, monkeypatch, *options.split())
    assert result.exit_code == 0, result.output
    source, (claim,) = worker.made[0].source, worker.claims
    assert source is not None
    assert (source.strength, claim.source is not None) == (0.5, True)
    assert (await run(api, monkeypatch, "--image", str(tmp_path / "missing.png"))).exit_code == 2
    result = await run(api, monkeypatch, "--negative-prompt", "a dog")
    assert "negative_prompt: emoji-test takes no negative prompt" in result.output


async def test_a_folder_that_cannot_be_made_costs_no_image(
    api: httpx.AsyncClient, worker: StandInWorker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    result = await run(api, monkeypatch, "-o", str(tmp_path / "file" / "out"))
    assert result.exit_code == 1
    assert worker.made == []


async def test_the_first_key_of_the_settings_is_sent(
    redis_url: str, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = ApiSettings(redis_url=redis_url, port=free_port(), api_keys="one,two")  # type: ignore[arg-type]
    monkeypatch.setenv("FOURSTEP_API_KEYS", "one,two")
    async with running_api(settings) as api:
        assert (await run(api, monkeypatch, "-o", str(tmp_path))).exit_code == 0


def test_the_version_is_printed() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"fourstep {fourstep_version()}\n")
