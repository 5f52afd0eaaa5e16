"""Spans of an image, sent to a collector."""

import subprocess
import sys

import pytest
from opentelemetry import trace
from pydantic import ValidationError

from jobs.settings import ApiSettings
from jobs.tracing import current_traceparent, record_image
from tests.span_collector import Collector

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_stages_of_an_image_hang_under_its_call(collector: Collector) -> None:
    program = f"""
from opentelemetry import trace
from jobs.tracing import configure_tracing, record_image
configure_tracing({collector.url!r}, "fourstep-worker")
record_image({TRACEPARENT!r}, {{"queue": (10.0, 11.0), "denoise_step": (11.0, 13.5)}}, {{"seed": 7}})
trace.get_tracer_provider().shutdown()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    spans = {span.name: span for span in collector.spans}
    assert set(spans) == {"image", "queue", "denoise_step"}
    assert {span.trace_id.hex() for span in collector.spans} == {TRACEPARENT.split("-")[1]}
    assert spans["image"].parent_span_id.hex() == TRACEPARENT.split("-")[2]
    assert spans["queue"].parent_span_id == spans["denoise_step"].parent_span_id == spans["image"].span_id
    assert (spans["image"].start_time_unix_nano, spans["image"].end_time_unix_nano) == (10 * 10**9, 135 * 10**8)
    assert spans["denoise_step"].start_time_unix_nano == 11 * 10**9


def test_without_a_collector_nothing_is_recorded() -> None:
    assert current_traceparent() is None
    record_image(TRACEPARENT, {"queue": (0.0, 1.0)}, {})
    assert not trace.get_current_span().is_recording()


def test_without_the_extra_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.settings.find_spec", lambda name: None)
    with pytest.raises(ValidationError, match=r"'\.\[tracing\]'"):
        ApiSettings(traces_url="http://127.0.0.1:4318")
