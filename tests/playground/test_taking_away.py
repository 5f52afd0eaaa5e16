"""A picture can be made again from a curl command, and is kept in the browser's history."""

import json
import subprocess
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from jobs.testing.waiting import SAFETY_NET_S
from tests.playground.pictures import addresses, finished, generate
from tests.playground.served import OTHER_KEY

PROMPT = """a cat's "smile" & $HOME"""


@pytest.mark.needs("curl")
def test_the_copied_curl_command_makes_the_same_picture(playground: Page, server: str, tmp_path: Path) -> None:
    playground.context.grant_permissions(["clipboard-read", "clipboard-write"])
    (address,) = addresses(generate(playground, PROMPT, 1, seed=5))
    playground.get_by_role("button", name="Copy as curl, seed 5").click()
    expect(playground.locator("#status")).to_contain_text("copied")
    command = playground.evaluate("() => navigator.clipboard.readText()")
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, timeout=SAFETY_NET_S)
    assert (tmp_path / "5.png").read_bytes() == httpx.get(server + address).content


def test_without_a_clipboard_the_command_is_shown_and_names_no_key(page: Page, guarded_server: str) -> None:
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")  # as without https
    page.goto(guarded_server)
    page.get_by_label("API key").fill(OTHER_KEY)
    generate(page, "a star", 1, seed=5)
    page.get_by_role("button", name="Copy as curl, seed 5").click()
    command = page.get_by_role("dialog").get_by_role("textbox").input_value()
    assert '-H "Authorization: Bearer $FOURSTEP_API_KEY"' in command
    assert OTHER_KEY not in command
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_history_survives_a_reload_draws_again_and_can_be_cleared(playground: Page) -> None:
    expect(playground.get_by_role("region", name="History")).to_be_hidden()
    before = addresses(generate(playground, "fruit", 2))
    playground.reload()
    again = playground.get_by_role("button", name="Draw again: fruit, 2 pictures")
    expect(again.locator("img")).to_have_count(2)
    again.click()
    assert addresses(finished(playground, 2)) == before
    expect(playground.locator("#runs li")).to_have_count(1)
    playground.get_by_role("button", name="Clear").click()
    expect(playground.get_by_role("region", name="History")).to_be_hidden()
    assert playground.evaluate("localStorage.length") == 0


def test_history_keeps_the_latest_runs_only(playground: Page) -> None:
    asked = {"num_images": 1, "diverse": False, "model": ""}
    runs = [{"asked": asked | {"prompt": f"old {i}", "seed": i}, "thumbnails": []} for i in range(24)]
    playground.evaluate("runs => localStorage.setItem('fourstep-history', runs)", json.dumps(runs))
    generate(playground, "fruit", 1)
    kept = [run["asked"]["prompt"] for run in json.loads(playground.evaluate("localStorage['fourstep-history']"))]
    assert kept == ["fruit", *[f"old {i}" for i in range(23)]]


def test_a_history_that_is_not_ours_does_no_harm(playground: Page) -> None:
    playground.evaluate("localStorage.setItem('fourstep-history', '{broken')")
    playground.reload()
    expect(playground.locator("#served")).to_contain_text("emoji-student")
    generate(playground, "fruit", 1)
    expect(playground.locator("#runs li")).to_have_count(1)
