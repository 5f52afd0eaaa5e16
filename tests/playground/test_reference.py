"""The API reference at /docs, made from the OpenAPI document in the browser."""

from playwright.sync_api import Page, expect


def test_a_call_unfolds_into_its_fields_errors_and_answer(page: Page, server: str) -> None:
    page.goto(f"{server}/docs")
    call = page.get_by_role("group").filter(has_text="POST/generate")
    field = call.get_by_role("row").filter(has=page.get_by_role("rowheader", name="prompt required"))
    expect(field).to_be_hidden()
    call.locator("summary").press("Enter")
    expect(field).to_contain_text("at most 2000 characters")
    expect(call.get_by_role("row", name="seed integer · 0 … 2^63 − 1")).to_be_visible()
    expect(call.get_by_role("row", name="errors")).to_contain_text("429 Too Many Requests")
    expect(call.get_by_role("rowheader", name="images[].sha256")).to_be_visible()


def test_every_operation_of_the_document_is_shown(page: Page, server: str) -> None:
    page.goto(f"{server}/docs")
    expect(page.locator("#about")).to_contain_text("Version")
    paths = page.request.get(f"{server}/openapi.json").json()["paths"]
    shown = sorted(
        page.locator("summary").evaluate_all("all => all.map(one => one.innerText.split('\\n').slice(0, 2).join(' '))")
    )
    assert shown == sorted(f"{method.upper()} {path}" for path, methods in paths.items() for method in methods)
