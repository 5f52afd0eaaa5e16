"""The page is for everyone: by keyboard alone, by screen reader, on a phone and a desktop, in light and dark."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.playground.pictures import finished, generate, seeds


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.innerText.trim()")


def go_to(page: Page, element_id: str) -> None:
    while page.evaluate("document.activeElement.id") != element_id:
        page.keyboard.press("Tab")


def test_everything_can_be_done_by_keyboard(playground: Page) -> None:
    go_to(playground, "prompt")
    playground.keyboard.press("Control+A")
    playground.keyboard.type("a star")
    go_to(playground, "num_images")
    playground.keyboard.type("1")
    go_to(playground, "generate")
    playground.keyboard.press("Enter")
    finished(playground, 1)
    (seed,) = seeds(playground)
    while focused(playground) != f"Again with seed {seed}":
        playground.keyboard.press("Tab")
    outline = playground.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    playground.keyboard.press("Enter")
    finished(playground, 1)
    assert seeds(playground) == [seed]
    assert focused(playground) == f"Again with seed {seed}"


def test_pictures_are_looked_at_by_keyboard(playground: Page) -> None:
    generate(playground, "fruit", 3, seed=7)
    opener = playground.get_by_role("button", name="fruit, seed 8")
    opener.press("Enter")
    viewer = playground.get_by_role("dialog", name="Seed 8")
    expect(viewer.get_by_role("img", name="fruit, seed 8")).to_have_js_property("naturalWidth", 64)
    for key, seed in (("ArrowRight", 9), ("ArrowRight", 7), ("ArrowLeft", 9)):
        playground.keyboard.press(key)
        expect(playground.get_by_role("dialog", name=f"Seed {seed}").get_by_role("img")).to_be_visible()
    expect(playground.locator("#viewer-place")).to_have_text("3 of 3")
    playground.keyboard.press("Escape")
    expect(playground.get_by_role("dialog")).to_be_hidden()
    expect(opener).to_be_focused()


def test_names_and_roles_for_screen_readers(playground: Page) -> None:
    expect(playground.get_by_role("form")).to_match_aria_snapshot("""
        - form "What to draw":
          - textbox "Prompt": fruit
          - list "Try":
            - listitem:
              - button "fruit"
          - spinbutton "Images": "4"
          - spinbutton "Seed"
          - checkbox "Lock the seed"
          - checkbox "Diverse set"
          - combobox "Format"
          - combobox "Size"
          - button "Generate"
    """)
    generate(playground, "fruit", 2, seed=3)
    expect(playground.get_by_role("region", name="Pictures", exact=True)).to_match_aria_snapshot("""
        - region "Pictures":
          - status: /2 pictures in .* s\\./
          - alert
          - region "Pictures of emoji-student":
            - heading "emoji-student" [level=2]
            - paragraph: /4 evaluations · .* s/
            - list:
              - listitem:
                - figure "seed 3":
                  - button "fruit, seed 3"
                  - button "Again with seed 3"
                  - link "Download seed 3"
              - listitem:
                - figure "seed 4":
                  - button "fruit, seed 4"
                  - button "Again with seed 4"
                  - link "Download seed 4"
    """)
    expect(playground.get_by_role("region", name="The same call as code")).to_match_aria_snapshot("""
        - region "The same call as code":
          - heading "The same call as code" [level=2]
          - tablist "The same call as code":
            - tab "curl" [selected]
            - tab "Python"
            - tab "JavaScript"
          - tabpanel "curl"
          - button "Copy code"
          - button "Copy link to this call"
          - status
    """)
    expect(playground.get_by_role("region", name="History")).to_match_aria_snapshot("""
        - region "History":
          - heading "History" [level=2]
          - button "Clear"
          - list:
            - listitem:
              - 'button "Draw again: fruit, 2 pictures · seed 3"'
    """)


@pytest.mark.parametrize("width", [375, 1280])
def test_no_sideways_scrolling(browser: Browser, server: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme="dark")
    page.goto(server)
    generate(page, "incomprehensibilities" * 8, 3, seed=9007199254740900)
    page.get_by_role("tab", name="Python").click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.get_by_role("button", name="seed 9007199254740901").first.click()
    assert page.get_by_role("dialog").evaluate("dialog => dialog.scrollWidth - dialog.clientWidth") == 0
    expect(page.get_by_role("dialog").get_by_role("img")).to_be_in_viewport(ratio=1)
    for path in ("/docs", "/status"):
        page.goto(server + path)
        expect(page.get_by_text("/generate", exact=True)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == width, path
    page.close()


def test_on_a_phone_the_pictures_come_into_view(browser: Browser, server: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(server)
    generate(page, "fruit", 1)
    expect(page.locator("#pictures img")).to_be_in_viewport(ratio=1)
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, server: str, scheme: str) -> None:
    """WCAG 2.2 AA: a contrast of 4.5 for text."""
    page = browser.new_page(color_scheme=scheme)
    page.goto(server)
    for ink, ground in (
        ("text", "page"),
        ("quiet", "page"),
        ("quiet", "card"),
        ("on-accent", "accent"),
        ("wrong", "wrong-card"),
    ):
        assert contrast(colour(page, ink), colour(page, ground)) >= 4.5, (ink, ground)
    page.close()


def colour(page: Page, name: str) -> list[float]:
    """Red, green and blue of 0…255 of one of the page's colours as it is used now."""
    script = """name => {
      const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
      document.body.style.caretColor = `var(--${name})`;
      probe.fillStyle = getComputedStyle(document.body).caretColor;
      probe.fillRect(0, 0, 1, 1);
      return [...probe.getImageData(0, 0, 1, 1).data.slice(0, 3)];
    }"""
    return page.evaluate(script, name)


def contrast(one: list[float], other: list[float]) -> float:
    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(rgb: list[float]) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (c / 255 for c in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
