"""The API reference at /docs: Swagger UI on the OpenAPI document, from the server alone."""

from playwright.sync_api import Locator, Page, expect

from tests.playground.served import KEY


def unfold(page: Page, path: str) -> Locator:
    """Open the first operation at `path` by keyboard, and return it."""
    call = page.locator(".opblock").filter(has=page.get_by_text(path, exact=True)).first
    call.locator(".opblock-summary-control").press("Enter")
    return call


def answer_to(call: Locator, status: int) -> Locator:
    """Press the button, wait for an answer of this status, and return it."""
    call.get_by_role("button", name="Execute").click()
    answer = call.locator(".live-responses-table")
    expect(answer.locator("tbody .response-col_status")).to_have_text(f"{status}")
    return answer


def test_a_call_unfolds_into_its_fields_errors_and_answer(page: Page, server: str) -> None:
    page.goto(f"{server}/docs")
    tabs = page.get_by_role("tab", name="Schema")
    expect(page.get_by_text("/generate", exact=True)).to_be_visible()
    expect(tabs).to_have_count(0)
    call = unfold(page, "/generate")
    tabs.first.click()
    body = call.locator(".opblock-section-request-body")
    expect(body.locator(".json-schema-2020-12-property--required")).to_have_text("promptstring[1, 2000] characters")
    expect(body.get_by_text("seed", exact=True)).to_be_visible()
    expect(call.get_by_role("row", name="429")).to_contain_text("Too Many Requests")
    expect(call.get_by_role("row", name="200")).to_contain_text("sha256")


def test_every_operation_of_the_document_is_shown(page: Page, server: str) -> None:
    page.goto(f"{server}/docs")
    document = page.request.get(f"{server}/openapi.json").json()
    expect(page.locator(".info")).to_contain_text(document["info"]["version"])
    shown = page.locator(".opblock").evaluate_all(
        "all => all.map(one => one.querySelector('.opblock-summary-method').textContent"
        " + ' ' + one.querySelector('[data-path]').dataset.path)"
    )
    paths = document["paths"]
    assert sorted(shown) == sorted(f"{method.upper()} {path}" for path, methods in paths.items() for method in methods)


def test_pictures_are_made_by_keyboard_on_a_phone(page: Page, server: str) -> None:
    page.set_viewport_size({"width": 375, "height": 812})
    page.goto(f"{server}/docs")
    for name in ("POST /generate", "Try it out", "Execute"):
        button = page.get_by_role("button", name=name).first
        expect(button).to_be_visible()
        while not button.evaluate("button => button === document.activeElement"):
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
    call = page.locator(".opblock.is-open")
    expect(call.locator(".live-responses-table")).to_contain_text('"b64"')
    call.get_by_label("Media Type").first.select_option("image/png")
    call.locator("textarea").fill('{"prompt": "fruit"}')
    expect(answer_to(call, 200).get_by_role("img")).to_have_js_property("naturalWidth", 64)
    assert page.evaluate("document.documentElement.scrollWidth") == 375


def test_a_key_is_sent_once_authorized_and_gone_with_the_page(page: Page, guarded_server: str) -> None:
    page.goto(f"{guarded_server}/docs")
    call = unfold(page, "/models")
    call.get_by_role("button", name="Try it out").click()
    expect(answer_to(call, 401)).to_contain_text("A key is needed")
    page.get_by_role("button", name="Authorize").click()
    page.get_by_label("auth-bearer-value").fill(KEY)
    page.get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").last.click()
    expect(answer_to(call, 200)).to_contain_text("emoji-student")
    page.reload()
    call.get_by_role("button", name="Try it out").click()  # it is open: the address names it
    answer_to(call, 401)
