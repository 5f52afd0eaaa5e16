"""The figures in docs/pictures.md are those that were measured, and as good as they are meant to be."""

import json

from bench.image_to_image import PAGE, RESULT, rendered


def test_the_page_holds_the_table_of_the_result() -> None:
    page = PAGE.read_text()
    assert rendered(page, json.loads(RESULT.read_text())) == page


def test_another_result_is_another_table() -> None:
    result = json.loads(RESULT.read_text())
    result["unmasked_db"]["least"] = 12.34
    assert "12.3 dB at least (99 stands for equal" in rendered(PAGE.read_text(), result)


def test_what_is_measured_reaches_its_aims() -> None:
    result = json.loads(RESULT.read_text())
    assert result["strength_0_to_autoencoder_db"]["least"] >= 35
    assert result["strength_1_equals_text_to_image"] == result["pictures"] >= 50
    assert result["rank_correlation"]["mean"] >= 0.8
    assert result["unmasked_db"]["least"] >= 30
