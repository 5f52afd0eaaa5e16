import re

from prometheus_client import CollectorRegistry, generate_latest

from jobs.metrics import ApiMetrics, WorkerMetrics

NAMES = {
    "limit_refusals_total",
    "answer_bytes",
    "answer_bytes_limit",
    "answers_waiting",
    "event_streams",
    "input_bytes",
    "inputs_waiting",
    "webhooks_waiting",
    "connections_refused_total",
    "model_versions",
    "redis_writable",
    "step_gap_seconds",
    "requests_total",
    "request_duration_seconds",
    "time_to_first_preview_seconds",
    "images_total",
    "queue_time_seconds",
    "stage_duration_seconds",
    "batch_size",
    "batch_padding_total",
    "graph_replays_total",
    "graph_misses_total",
    "prompt_cache_hits_total",
    "redeliveries_total",
    "dead_letters_total",
    "diversity_score",
    "build_info",
    "webhooks_total",
    "usage_images",
    "usage_seconds",
    "queue_images",
    "inflight_images",
    "workers",
    "redis_up",
    "redis_memory_bytes",
    "redis_memory_limit_bytes",
}


def test_the_names_of_the_contract_are_exposed() -> None:
    registry = CollectorRegistry()
    ApiMetrics(registry)
    WorkerMetrics(registry)
    exposed = set(re.findall(r"# TYPE fourstep_(\w+) ", generate_latest(registry).decode()))
    assert {name for name in exposed if not name.endswith("_created")} == NAMES
