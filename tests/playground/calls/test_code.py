"""The same call as code: what the page shows is run as it stands, and makes the pictures of the page."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.playground.calls.shown_code import LANGUAGES, pictures_in, run, shown
from tests.playground.pictures import addresses, generate, pixels, psnr, seeds
from tests.playground.served import OTHER_KEY

PROMPT = """a cat's "smile" & $HOME \\n `id` 😀\nin a hat"""


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_code_of_a_run_makes_its_pictures(playground: Page, server: str, tmp_path: Path, language: str) -> None:
    playground.get_by_label("Format").select_option("WebP")
    playground.get_by_label("Diverse set").check()
    of_the_page = addresses(generate(playground, PROMPT, 2, seed=5))
    expect(playground.locator("#code-of")).to_have_text("2 pictures, seed 5")
    output = run(shown(playground, language), language, tmp_path)
    made = pictures_in(tmp_path, "webp")
    if language == "curl":  # several pictures come as addresses
        images = json.loads(output)["images"]
        made = {image["seed"]: pixels(server, httpx.URL(image["url"]).path) for image in images}
    assert sorted(made) == sorted(seeds(playground))
    for seed, address in zip(seeds(playground), of_the_page, strict=True):
        assert psnr(made[seed], pixels(server, address)) > 40


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_code_of_a_picture_makes_it_alone(playground: Page, server: str, tmp_path: Path, language: str) -> None:
    of_the_page = addresses(generate(playground, PROMPT, 3, seed=5))[1]
    playground.get_by_role("button", name=f"{PROMPT}, seed 6").click()
    playground.get_by_role("dialog").get_by_role("button", name="Code").click()
    expect(playground.locator("#code-of")).to_have_text("the picture of seed 6")
    expect(playground.get_by_role("tab", selected=True)).to_be_focused()
    run(shown(playground, language), language, tmp_path)
    ((seed, made),) = pictures_in(tmp_path, "png").items()
    assert seed == 6
    assert psnr(made, pixels(server, of_the_page)) > 40


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_code_reads_the_key_from_the_environment_and_shows_none(
    page: Page, guarded_server: str, tmp_path: Path, language: str
) -> None:
    page.goto(guarded_server)
    page.get_by_label("API key").fill(OTHER_KEY)
    page.get_by_label("Prompt").fill("a star")
    page.get_by_label("Images").fill("1")
    page.get_by_label("Seed", exact=True).fill("5")
    code = shown(page, language)
    assert OTHER_KEY not in code
    assert "FOURSTEP_API_KEY" in code
    with pytest.raises(AssertionError):
        run(code, language, tmp_path, FOURSTEP_API_KEY="unknown")


def test_the_code_follows_the_form_and_names_only_what_is_asked_for(playground: Page) -> None:
    playground.get_by_label("Prompt").fill("a star")
    playground.get_by_label("Images").fill("1")
    assert body_shown(playground) == {"prompt": "a star"}
    expect(playground.locator("#code-of")).to_have_text("1 picture, a random seed")
    playground.get_by_label("Format").select_option("JPEG")
    playground.get_by_label("Seed", exact=True).fill("7")
    assert body_shown(playground) == {"prompt": "a star", "seed": 7, "format": "jpeg"}


def body_shown(page: Page) -> dict[str, Any]:
    """The body in the curl command, without the model, which is named once there are several."""
    (body,) = re.findall(r"-d '(.*)'", shown(page, "curl"))
    return {name: value for name, value in json.loads(body).items() if name != "model"}


def test_the_tabs_are_moved_through_by_keys_and_remembered(playground: Page) -> None:
    playground.get_by_role("tab", name="curl").focus()
    playground.keyboard.press("ArrowLeft")
    expect(playground.get_by_role("tab", name="JavaScript", selected=True)).to_be_focused()
    for key, name in (("Home", "curl"), ("End", "JavaScript")):
        playground.keyboard.press(key)
        expect(playground.get_by_role("tab", name=name, selected=True)).to_be_focused()
    playground.reload()
    expect(playground.get_by_role("tabpanel", name="JavaScript")).to_contain_text("await fetch")


def test_the_code_is_copied_as_it_is_shown(playground: Page) -> None:
    playground.context.grant_permissions(["clipboard-read", "clipboard-write"])
    code = shown(playground, "Python")
    playground.get_by_role("button", name="Copy code").click()
    expect(playground.locator("#code-status")).to_have_text("The Python code is copied.")
    assert playground.evaluate("() => navigator.clipboard.readText()") == code
