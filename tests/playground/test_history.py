"""The latest runs are kept in this browser, and each can be drawn again."""

import json

from playwright.sync_api import Page, expect

from tests.playground.pictures import addresses, finished, generate


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
