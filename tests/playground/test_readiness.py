"""Before a model is ready the page waits for it, and draws by itself what was asked for meanwhile."""

from playwright.sync_api import Page, Route, expect

from tests.playground.pictures import finished


class NoModelYet:
    """Answers /models as before the first worker is ready, until `ready` is set."""

    def __init__(self, page: Page) -> None:
        self.ready = False
        page.route("**/models", self._answer)

    def _answer(self, route: Route) -> None:
        if self.ready:
            route.continue_()
        else:
            route.fulfill(json={"models": []})


def test_what_is_asked_for_too_early_is_drawn_once_a_model_is_ready(page: Page, server: str) -> None:
    model = NoModelYet(page)
    page.goto(server)
    expect(page.locator("#served")).to_have_text("Waiting for a worker…")
    page.get_by_label("Prompt").fill("a star")
    page.get_by_label("Images").fill("1")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#status")).to_have_text("Waiting for a model to be ready…")
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    expect(page.get_by_role("alert")).to_be_empty()
    model.ready = True
    finished(page, 1)


def test_waiting_for_a_model_can_be_cancelled(page: Page, server: str) -> None:
    NoModelYet(page)
    page.goto(server)
    page.get_by_label("Prompt").fill("a star")
    page.get_by_role("button", name="Generate").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#status")).to_have_text("Cancelled.")
    expect(page.get_by_role("button", name="Generate")).to_have_attribute("aria-disabled", "false")
