"""Problems are shown beside the form, in the API's own words."""

import json
import re

import pytest
from playwright.sync_api import Page, expect

from tests.playground.pictures import addresses, generate
from tests.playground.served import KEY


def test_a_key_is_asked_for_kept_in_the_tab_only_and_a_used_up_rate_says_when(page: Page, guarded_server: str) -> None:
    page.goto(guarded_server)
    expect(page.locator("#served")).to_have_text("This server asks for an API key.")
    page.get_by_label("Prompt").fill("fruit")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("alert")).to_contain_text("A key is needed")
    key = page.get_by_label("API key")
    expect(key).to_be_focused()
    key.fill(KEY)
    key.press("Tab")
    expect(page.locator("#served")).to_contain_text("emoji-student")
    generate_until_limited(page)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(re.compile("images a minute"))
    retry = page.get_by_role("button", name="Try again")
    expect(retry).to_have_text(re.compile(r"Try again in \d+ s"))
    expect(retry).to_be_disabled()
    stored = page.evaluate("[JSON.stringify({...sessionStorage}), JSON.stringify({...localStorage})]")
    assert [KEY in each for each in stored] == [True, False]
    page.reload()
    expect(key).to_have_value(KEY)


def generate_until_limited(page: Page) -> None:
    """Other tests may have used some of the minute's images already."""
    for _ in range(2):
        page.get_by_role("button", name="Generate").click()
        expect(page.get_by_role("button", name="Cancel")).to_be_hidden()


def test_a_field_beyond_its_limit_is_named_and_marked(page: Page, guarded_server: str) -> None:
    page.goto(guarded_server)
    page.get_by_label("API key").fill(KEY)
    prompt = page.get_by_label("Prompt")
    prompt.fill("an apple " * 6)
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("alert")).to_contain_text("prompt: at most 40 characters")
    expect(prompt).to_have_attribute("aria-invalid", "true")


def test_a_server_that_does_not_answer_can_be_asked_again(playground: Page) -> None:
    playground.context.set_offline(True)
    playground.get_by_role("button", name="Generate").click()
    expect(playground.get_by_role("alert")).to_contain_text("The server does not answer")
    playground.context.set_offline(False)
    playground.get_by_role("button", name="Try again").click()
    expect(playground.locator("#pictures img")).to_have_count(4)
    expect(playground.get_by_role("alert")).to_be_empty()


def test_a_call_that_is_refused_leaves_the_earlier_pictures(playground: Page) -> None:
    before = addresses(generate(playground, "fruit", 2))
    playground.route("**/generate", lambda route: route.fulfill(status=429, json={"title": "Too busy"}))
    playground.get_by_role("button", name="Generate").click()
    expect(playground.get_by_role("alert")).to_have_text("Too busy")
    assert addresses(playground.locator("#pictures img")) == before


def test_a_redrawing_that_fails_leaves_the_picture(playground: Page) -> None:
    before = addresses(generate(playground, "fruit", 1, seed=5))
    playground.route("**/generate", lambda route: route.fulfill(status=429, json={"title": "Too busy"}))
    playground.get_by_role("button", name="Again with seed 5").click()
    expect(playground.get_by_role("alert")).to_have_text("Too busy")
    expect(playground.locator(".frame.waiting")).to_have_count(0)
    assert addresses(playground.locator("#pictures img")) == before


def test_a_picture_that_the_server_refuses_is_told_with_the_reason(playground: Page) -> None:
    failures = [
        {"index": 0, "reason": "error", "detail": "out of memory"},
        {"index": 1, "reason": "refused", "detail": "the safety model says so"},
    ]
    body = f"event: failed\ndata: {json.dumps({'failures': failures})}\n\n"
    events = "**/jobs/*/events"
    playground.route(events, lambda route: route.fulfill(content_type="text/event-stream", body=body))
    playground.get_by_role("button", name="Generate").click()
    expect(playground.get_by_role("alert")).to_have_text("A picture was refusedthe safety model says so")


@pytest.mark.parametrize("prompt", ["", "  \n "])
def test_a_blank_prompt_is_refused_by_the_form_itself(playground: Page, prompt: str) -> None:
    playground.get_by_label("Prompt").fill(prompt)
    playground.get_by_role("button", name="Generate").click()
    assert playground.get_by_label("Prompt").evaluate("field => field.matches(':invalid')")
    expect(playground.get_by_text("Your pictures will appear here.")).to_be_visible()
    generate(playground, "fruit", 1)
