"""Every Prometheus metric of fourstep: name, unit, help, labels and buckets."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
STAGE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
GAP_BUCKETS_S = (0.0001, 0.0002, 0.0003, 0.0004, 0.0006, 0.001, 0.002, 0.004, 0.008, 0.016, 0.064, 0.25)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
SCORE_BUCKETS = tuple(tenth / 10 for tenth in range(1, 11))
LIMITS = (
    *("images", "evaluations", "queue", "store", "event_streams"),
    *("head", "body", "body_time", "picture", "answer_time"),
)
"""The limits that refuse calls, as docs/limits.md lists them."""


class ApiMetrics:
    """Metrics of one API process. The queue gauges are set from Redis whenever they are scraped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, registry=registry)
        request_time = partial(Histogram, registry=registry, buckets=REQUEST_BUCKETS_S)
        self.requests = Counter(
            "fourstep_requests_total",
            "Requests answered, by outcome: ok, cached, cancelled, expired, shed, invalid, unauthorized or error.",
            ["endpoint", "outcome"],
            registry=registry,
        )
        self.request_duration = request_time(
            "fourstep_request_duration_seconds", "Time from a request's first byte to its answer's last.", ["endpoint"]
        )
        self.time_to_first_preview = request_time(
            "fourstep_time_to_first_preview_seconds", "Time from a request to its first preview."
        )
        self.refusals = Counter(
            "fourstep_limit_refusals_total",
            f"Calls refused by a limit: {', '.join(LIMITS)}.",
            ["limit"],
            registry=registry,
        )
        for limit in LIMITS:
            self.refusals.labels(limit)  # 0 until it refuses something
        self.answer_bytes = gauge("fourstep_answer_bytes", "Bytes that answers being written take.")
        self.answer_bytes_limit = gauge("fourstep_answer_bytes_limit", "Bytes that the answers to one caller may take.")
        self.answers_waiting = gauge("fourstep_answers_waiting", "Answers that wait for earlier ones of their caller.")
        self.input_bytes = gauge("fourstep_input_bytes", "Bytes that calls with pictures take.")
        self.inputs_waiting = gauge(
            "fourstep_inputs_waiting", "Calls whose picture waits for room or its turn, or is being read."
        )
        self.event_streams = gauge("fourstep_event_streams", "Event streams that clients hold open.")
        self.connections_refused = Counter(
            "fourstep_connections_refused_total",
            "Connections closed at once, since their address held too many.",
            registry=registry,
        )
        self.model_versions = gauge(
            "fourstep_model_versions", "Different weights that live workers serve under one name.", ["model"]
        )
        self.webhooks = Counter(
            "fourstep_webhooks_total",
            "Attempts to send a webhook, by outcome: sent, failed, or given_up when none is left.",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("sent", "failed", "given_up"):
            self.webhooks.labels(outcome)
        self.webhooks_waiting = gauge(
            "fourstep_webhooks_waiting", "Webhooks that are due and were not taken for 5 seconds.", ["model"]
        )
        self.queue_images = gauge("fourstep_queue_images", "Images waiting for a worker.", ["model"])
        self.inflight_images = gauge("fourstep_inflight_images", "Images held by workers.", ["model"])
        self.workers = gauge("fourstep_workers", "Workers with a live lease.", ["model"])
        self.usage_images = gauge("fourstep_usage_images", "Images made for an API key, ever.", ["key", "model"])
        self.usage_seconds = gauge(
            "fourstep_usage_seconds", "Seconds that an API key's images kept devices busy, ever.", ["key", "model"]
        )
        self.redis_up = gauge("fourstep_redis_up", "Whether Redis answered at this scrape: 1 or 0.")
        self.redis_writable = gauge("fourstep_redis_writable", "Whether Redis takes writes: 1 or 0.")
        self.redis_memory = gauge("fourstep_redis_memory_bytes", "Memory that Redis uses.")
        self.redis_memory_limit = gauge(
            "fourstep_redis_memory_limit_bytes", "Memory that Redis may use; 0 for no limit."
        )


class WorkerMetrics:
    """Metrics of one worker process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        histogram, counter = partial(Histogram, registry=registry), partial(Counter, registry=registry)
        self.images = counter(
            "fourstep_images_total",
            "Images settled by this worker, by outcome: ok, expired, cancelled, error, refused or duplicate.",
            ["outcome"],
        )
        self.queue_time = histogram(
            "fourstep_queue_time_seconds",
            "Time from an image's admission to its first step.",
            buckets=REQUEST_BUCKETS_S,
        )
        self.stage_duration = histogram(
            "fourstep_stage_duration_seconds",
            "Time of one run of a stage: encode, denoise_step, decode, encode_image or store.",
            ["stage"],
            buckets=STAGE_BUCKETS_S,
        )
        self.step_gap = histogram(
            "fourstep_step_gap_seconds",
            "Time of the host between two steps of a busy engine, beside encoding and decoding.",
            buckets=GAP_BUCKETS_S,
        )
        self.batch_size = histogram("fourstep_batch_size", "Images in a denoising step.", buckets=BATCH_BUCKETS)
        self.batch_padding = counter("fourstep_batch_padding_total", "Padding rows computed to fill a bucket.")
        self.graph_replays = counter("fourstep_graph_replays_total", "CUDA graph replays, by bucket.", ["bucket"])
        self.graph_misses = counter(
            "fourstep_graph_misses_total",
            "Steps run without a graph, by reason: batch, embedding or capture_failed.",
            ["reason"],
        )
        self.prompt_cache_hits = counter("fourstep_prompt_cache_hits_total", "Prompts whose embedding was cached.")
        self.redeliveries = counter(
            "fourstep_redeliveries_total", "Tasks taken over from a worker whose lease was gone."
        )
        self.dead_letters = counter(
            "fourstep_dead_letters_total", "Tasks given up, since every worker that tried them died."
        )
        self.diversity_score = histogram(
            "fourstep_diversity_score", "Diversity of the answered sets.", buckets=SCORE_BUCKETS
        )
        self.build = Info(
            "fourstep_build", "Build of this worker: version, model, model_sha, torch and device.", registry=registry
        )
