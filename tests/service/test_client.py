import asyncio
import io
from pathlib import Path

import httpx
import pytest
from PIL import Image
from rich.console import Console

from service.client import GenerationFailedError, generate_files

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
