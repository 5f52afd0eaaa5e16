"""The status page: models, workers and counts of calls in words, with a key where the server has keys."""

from playwright.sync_api import Page, expect

from tests.playground.pictures import generate
from tests.playground.served import KEY


def test_models_and_metrics_are_shown_as_tables(playground: Page) -> None:
    generate(playground, "a star", 1)
    playground.get_by_role("link", name="Status").click()
    models = playground.get_by_role("region", name="Models")
    student = models.get_by_role("article").filter(has=playground.get_by_role("heading", name="emoji-student"))
    expect(student).to_contain_text("4 in 4 steps")
    expect(student).to_contain_text("64 × 64")
    expect(student.get_by_role("row")).to_have_count(2)
    service = playground.get_by_role("region", name="Service")
    row = service.get_by_role("row").filter(has_text="/generate")
    expect(row.get_by_role("cell").nth(1)).to_have_text(playground_calls(playground))
    playground.get_by_role("link", name="Playground").click()
    expect(playground.get_by_label("Prompt")).to_be_visible()


def playground_calls(page: Page) -> str:
    """Calls of /generate as the metrics count them."""
    lines = page.request.get(page.url.replace("/status", "/metrics")).text().splitlines()
    counts = [line for line in lines if line.startswith('fourstep_requests_total{endpoint="/generate"')]
    return f"{sum(float(line.split()[-1]) for line in counts):g}"


def test_a_server_with_keys_is_asked_with_the_key_of_the_tab(page: Page, guarded_server: str) -> None:
    page.goto(f"{guarded_server}/status")
    expect(page.get_by_role("alert")).to_contain_text("A key is needed")
    page.get_by_label("API key").fill(KEY)
    page.get_by_label("API key").press("Enter")
    expect(page.get_by_role("heading", name="emoji-student")).to_be_visible()
    expect(page.get_by_role("alert")).to_be_empty()
    page.get_by_role("link", name="Playground").click()
    expect(page.locator("#served")).to_contain_text("emoji-student")


def test_before_the_first_model_the_page_says_so(page: Page, server: str) -> None:
    page.route("**/models", lambda route: route.fulfill(json={"models": []}))
    page.goto(f"{server}/status")
    expect(page.get_by_role("region", name="Models")).to_contain_text("No worker has announced a model yet")
