"""Progress is shown while pictures are made: previews from the job's events, over a broken connection too."""

import base64
import io
import json
import re
from typing import Any

from PIL import Image
from playwright.sync_api import Page, Request, Route, expect

from tests.playground.pictures import finished
from tests.playground.served import STUDENT


def red_dot() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_preview_stands_until_its_picture_comes_over_a_second_connection(playground: Page) -> None:
    preview = {"index": 1, "step": 2, "steps": 4, "format": "png", "b64": red_dot()}
    last_ids: list[str | None] = []

    def break_off_once(route: Route, request: Request) -> None:
        last_ids.append(request.headers.get("last-event-id"))
        if len(last_ids) > 1:
            route.continue_()
        else:
            body = f": hello\r\n\r\nevent: preview\r\nid: 0\r\ndata: {json.dumps(preview)}\r\n\r\nevent: ima"
            route.fulfill(content_type="text/event-stream", body=body)

    playground.route("**/jobs/*/events", break_off_once)
    playground.get_by_label("Images").fill("2")
    playground.get_by_role("button", name="Generate").click()
    second = playground.locator("figure").nth(1)
    expect(second.locator("img")).to_have_attribute("src", f"data:image/png;base64,{red_dot()}")
    expect(second).to_contain_text("2 / 4")
    finished(playground, 2)
    expect(second.locator("img")).to_have_attribute("src", re.compile("^/images/[0-9a-f]{64}.png$"))
    assert last_ids == ["0", "0"]


def test_a_diverse_set_is_asked_for_where_the_server_has_it(playground: Page) -> None:
    asked: list[dict[str, Any]] = []

    def take(route: Route, request: Request) -> None:
        asked.append(request.post_data_json)
        route.abort("internetdisconnected")

    offer_select(playground, True)
    playground.reload()
    expect(playground.locator("#served")).to_contain_text(STUDENT.name)
    playground.route("**/generate", take)
    playground.get_by_label("Diverse set").check()
    playground.get_by_role("button", name="Generate").click()
    expect(playground.get_by_role("alert")).not_to_be_empty()
    assert asked[0]["num_images"] == 4
    assert asked[0]["select"] == {"diverse": True}


def test_no_diverse_toggle_where_the_server_has_no_such_field(playground: Page) -> None:
    offer_select(playground, False)
    playground.reload()
    expect(playground.locator("#served")).to_contain_text(STUDENT.name)
    expect(playground.get_by_label("Diverse set")).to_be_hidden()


def offer_select(page: Page, offered: bool) -> None:
    def change(route: Route) -> None:
        document = route.fetch().json()
        fields = document["components"]["schemas"]["GenerateRequest"]["properties"]
        if offered:
            fields["select"] = {}
        else:
            fields.pop("select", None)
        route.fulfill(json=document)

    page.route("**/openapi.json", change)
