"""OpenTelemetry traces: W3C trace context from the HTTP call through the queue to each stage of the worker.

FastAPI makes the spans of requests itself. No span is recorded before `configure_tracing` is given a collector.
"""

from collections.abc import Mapping

from opentelemetry import propagate, trace

from jobs.version import fourstep_version

LAST_SPANS_MS = 1000


def configure_tracing(url: str | None, process: str) -> None:
    """Send this process's spans, under the name `process`, to an OTLP/HTTP collector at `url`, if there is one."""
    if url is None:
        return
    # Packages of the extra `tracing`; the settings have checked that they are installed.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": process, "service.version": fourstep_version()})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{url.rstrip('/')}/v1/traces")))
    trace.set_tracer_provider(provider)


def send_last_spans() -> None:
    """Send the spans that are still buffered, for at most `LAST_SPANS_MS`; to be called before a process ends."""
    provider = trace.get_tracer_provider()
    if flush := getattr(provider, "force_flush", None):
        flush(LAST_SPANS_MS)


def current_traceparent() -> str | None:
    """The ``traceparent`` header (W3C Trace Context) of the current span, for a task to carry."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


def record_image(
    traceparent: str | None, stages: Mapping[str, tuple[float, float]], attributes: Mapping[str, str | int]
) -> None:
    """Record the spans of a finished image: `stages` maps each stage, in order, to its begin and end (Unix seconds)."""
    if traceparent is None or not stages:
        return
    tracer = trace.get_tracer("fourstep")
    caller = propagate.extract({"traceparent": traceparent})
    begins, ends = zip(*stages.values(), strict=True)
    image = tracer.start_span("image", caller, start_time=_nanoseconds(min(begins)), attributes=dict(attributes))
    inside = trace.set_span_in_context(image, caller)
    for stage, (begin, end) in stages.items():
        tracer.start_span(stage, inside, start_time=_nanoseconds(begin)).end(_nanoseconds(end))
    image.end(_nanoseconds(max(ends)))


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
