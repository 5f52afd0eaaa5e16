"""Small pictures are enlarged honestly: at a whole multiple of their size, which is said, smooth or in sharp pixels."""

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.playground.pictures import generate


@pytest.fixture
def viewer(playground: Page) -> Locator:
    generate(playground, "fruit", 2, seed=7)
    playground.get_by_role("button", name="fruit, seed 7").click()
    return playground.get_by_role("dialog", name="Seed 7")


@pytest.mark.parametrize(("width", "height", "times"), [(1280, 900, 11), (375, 812, 5), (320, 480, 4)])
def test_a_picture_is_enlarged_by_a_whole_number(
    playground: Page, viewer: Locator, width: int, height: int, times: int
) -> None:
    playground.set_viewport_size({"width": width, "height": height})
    expect(viewer).to_contain_text(f"64 × 64 PNG, shown {times} times as large")
    box = viewer.get_by_role("img").bounding_box()
    assert box is not None
    assert (box["width"], box["height"]) == (64 * times, 64 * times)
    expect(viewer.get_by_role("img")).to_be_in_viewport(ratio=1)


def test_smooth_at_first_and_in_sharp_pixels_by_choice(viewer: Locator) -> None:
    expect(viewer.get_by_role("img")).to_have_css("image-rendering", "auto")
    viewer.get_by_label("Sharp pixels").check()
    expect(viewer.get_by_role("img")).to_have_css("image-rendering", "pixelated")


def test_a_click_beside_the_picture_closes_it(playground: Page, viewer: Locator) -> None:
    playground.mouse.click(4, 4)
    expect(viewer).to_be_hidden()


def test_what_is_enlarged_says_how_it_was_made(viewer: Locator) -> None:
    expect(viewer).to_contain_text("emoji-student, 4 evaluations")
    expect(viewer.get_by_role("link", name="Download")).to_have_attribute("download", "fruit-7.png")
