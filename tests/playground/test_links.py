"""People can take away a file, a link to a picture, a link to a call; and what comes back with such a link."""

from pathlib import Path

import httpx
from playwright.sync_api import Page, expect

from tests.playground.pictures import addresses, finished, generate
from tests.playground.served import OTHER_KEY


def clipboard(page: Page) -> str:
    return page.evaluate("() => navigator.clipboard.readText()")


def test_a_picture_is_downloaded_under_a_name_that_says_what_it_is(
    playground: Page, server: str, tmp_path: Path
) -> None:
    (address,) = addresses(generate(playground, "a cat's smile!", 1, seed=5))
    with playground.expect_download() as download:
        playground.get_by_role("link", name="Download seed 5").click()
    assert download.value.suggested_filename == "a-cat-s-smile-5.png"
    assert Path(download.value.path()).read_bytes() == httpx.get(server + address).content


def test_the_link_to_a_picture_leads_to_its_bytes(playground: Page, server: str) -> None:
    playground.context.grant_permissions(["clipboard-read", "clipboard-write"])
    (address,) = addresses(generate(playground, "a star", 1, seed=5))
    playground.get_by_role("button", name="a star, seed 5").click()
    playground.get_by_role("button", name="Copy link", exact=True).click()
    expect(playground.locator("#viewer-status")).to_contain_text("It works for 1 hour")
    assert clipboard(playground) == server + address


def test_the_link_to_a_call_fills_the_form_in_and_draws_nothing(playground: Page) -> None:
    playground.context.grant_permissions(["clipboard-read", "clipboard-write"])
    playground.get_by_label("Diverse set").check()
    playground.get_by_label("Format").select_option("WebP")
    before = addresses(generate(playground, "a #star & more", 2, seed=5))
    playground.get_by_role("button", name="Copy link to this call").click()
    expect(playground.locator("#code-status")).to_contain_text("copied")
    link = clipboard(playground)
    other = playground.context.new_page()
    asked: list[str] = []
    other.on("request", lambda request: asked.append(request.url))
    other.goto(link)
    expect(other.get_by_label("Prompt")).to_have_value("a #star & more")
    expect(other.get_by_label("Images")).to_have_value("2")
    expect(other.get_by_label("Seed", exact=True)).to_have_value("5")
    expect(other.get_by_label("Diverse set")).to_be_checked()
    expect(other.get_by_label("Format")).to_have_value("webp")
    expect(other.locator("#served")).to_contain_text("emoji-student")
    assert not [url for url in asked if "star" in url or "/generate" in url]
    other.get_by_role("button", name="Generate").click()
    assert addresses(finished(other, 2)) == before


def test_a_link_that_asks_for_nonsense_does_no_harm(page: Page, server: str) -> None:
    page.goto(f"{server}/#prompt=<img src=x onerror=alert(1)>&num_images=many&seed=-&model=none&format=bmp&size=huge")
    expect(page.get_by_label("Prompt")).to_have_value("<img src=x onerror=alert(1)>")
    expect(page.get_by_label("Format")).to_have_value("png")
    expect(page.get_by_label("Images")).to_have_value("")
    expect(page.locator("#served")).to_contain_text("emoji-student")
    generate(page, "a star", 1)


def test_a_link_that_is_followed_on_the_page_itself_fills_the_form_in(playground: Page) -> None:
    playground.evaluate("location.hash = new URLSearchParams({prompt: 'a cat', num_images: 2})")
    expect(playground.get_by_label("Prompt")).to_have_value("a cat")
    expect(playground.get_by_label("Images")).to_have_value("2")
    expect(playground.get_by_label("Lock the seed")).not_to_be_checked()


def test_without_a_clipboard_the_text_is_shown_and_names_no_key(page: Page, guarded_server: str) -> None:
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")  # as without https
    page.goto(guarded_server)
    page.get_by_label("API key").fill(OTHER_KEY)
    generate(page, "a star", 1, seed=5)
    page.get_by_role("button", name="Copy code").click()
    command = page.get_by_role("dialog").get_by_role("textbox").input_value()
    assert '-H "Authorization: Bearer $FOURSTEP_API_KEY"' in command
    assert OTHER_KEY not in command
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
