"""No prompt is logged, at any level, by whatever library an image passes through."""

import io
import logging
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from pydantic import ValidationError

from jobs.models import ImageTask
from jobs.structured_logging import configure_logging
from service.schemas.generate_request import GenerateRequest
from tests.worker.tasks import image_task
from worker.image_bytes import encode_image, recipe

PROMPT = "a prompt nobody may see"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[io.StringIO, Terminal])
def heard(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The log lines that go to a file, and to a terminal, at the lowest level."""
    stderr = request.param()
    monkeypatch.setattr(sys, "stderr", stderr)
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn.error")
    handlers, level, uvicorn_level = root.handlers[:], root.level, uvicorn.level
    configure_logging("debug")
    yield stderr
    root.handlers[:], root.level, uvicorn.level = handlers, level, uvicorn_level


def test_a_traceback_shows_no_values(heard: io.StringIO) -> None:
    prompt = PROMPT
    try:
        raise ValueError(len(prompt))
    except ValueError:
        logging.getLogger("worker").exception("failed")
    assert "ValueError: 23" in heard.getvalue()
    assert PROMPT not in heard.getvalue()


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_encoding_logs_no_prompt(image_format: str, heard: io.StringIO) -> None:
    about = recipe(image_task(PROMPT), "ab", 4, "0.1.0")
    data = encode_image(np.zeros((8, 8, 3), np.uint8), image_format, 90, about)  # type: ignore[arg-type]
    logging.getLogger("worker").debug("own lines are there")
    assert b"prompt nobody" in data
    assert "own lines are there" in heard.getvalue()
    assert PROMPT not in heard.getvalue()


def test_what_does_not_fit_a_model_is_not_quoted() -> None:
    for model, fields in ((ImageTask, {"prompt": PROMPT}), (GenerateRequest, {"prompt": PROMPT, "seeds": PROMPT})):
        with pytest.raises(ValidationError) as refused:
            model.model_validate(fields)
        assert PROMPT not in str(refused.value)
