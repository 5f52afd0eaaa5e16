"""Every Prometheus metric of fourstep: name, unit, help, labels and buckets."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
STAGE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
SCORE_BUCKETS = tuple(tenth / 10 for tenth in range(1, 11))


class ApiMetrics:
    """Metrics of one API process. The queue gauges are set from Redis whenever they are scraped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "fourstep_requests_total",
            "Requests answered, by outcome: ok, cached, cancelled, expired, shed, invalid, unauthorized or error.",
            ["endpoint", "outcome"],
            registry=registry,
        )
        self.request_duration = Histogram(
            "fourstep_request_duration_seconds",
            "Time from a request's first byte to its answer's last.",
            ["endpoint"],
            buckets=REQUEST_BUCKETS_S,
            registry=registry,
        )
        self.time_to_first_preview = Histogram(
            "fourstep_time_to_first_preview_seconds",
            "Time from a request to its first preview.",
            buckets=REQUEST_BUCKETS_S,
            registry=registry,
        )
        self.queue_images = Gauge("fourstep_queue_images", "Images waiting for a worker.", ["model"], registry=registry)
        self.inflight_images = Gauge(
            "fourstep_inflight_images", "Images held by workers.", ["model"], registry=registry
        )
        self.workers = Gauge("fourstep_workers", "Workers with a live lease.", ["model"], registry=registry)
        self.redis_up = Gauge("fourstep_redis_up", "Whether Redis answered at this scrape: 1 or 0.", registry=registry)
        self.redis_memory = Gauge("fourstep_redis_memory_bytes", "Memory that Redis uses.", registry=registry)
        self.redis_memory_limit = Gauge(
            "fourstep_redis_memory_limit_bytes", "Memory that Redis may use; 0 for no limit.", registry=registry
        )


class WorkerMetrics:
    """Metrics of one worker process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.images = Counter(
            "fourstep_images_total",
            "Images settled by this worker, by outcome: ok, expired, cancelled, error or duplicate.",
            ["outcome"],
            registry=registry,
        )
        self.queue_time = Histogram(
            "fourstep_queue_time_seconds",
            "Time from an image's admission to its first step.",
            buckets=REQUEST_BUCKETS_S,
            registry=registry,
        )
        self.stage_duration = Histogram(
            "fourstep_stage_duration_seconds",
            "Time of one run of a stage: encode, denoise_step, decode, encode_image or store.",
            ["stage"],
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        self.batch_size = Histogram(
            "fourstep_batch_size", "Images in a denoising step.", buckets=BATCH_BUCKETS, registry=registry
        )
        self.batch_padding = Counter(
            "fourstep_batch_padding_total", "Padding rows computed to fill a bucket.", registry=registry
        )
        self.graph_replays = Counter(
            "fourstep_graph_replays_total", "CUDA graph replays, by bucket.", ["bucket"], registry=registry
        )
        self.graph_misses = Counter(
            "fourstep_graph_misses_total",
            "Steps run without a graph, by reason: batch, embedding or capture_failed.",
            ["reason"],
            registry=registry,
        )
        self.prompt_cache_hits = Counter(
            "fourstep_prompt_cache_hits_total", "Prompts whose embedding was cached.", registry=registry
        )
        self.redeliveries = Counter(
            "fourstep_redeliveries_total", "Tasks reclaimed from a worker that lost its lease.", registry=registry
        )
        self.dead_letters = Counter(
            "fourstep_dead_letters_total", "Tasks given up after too many deliveries.", registry=registry
        )
        self.diversity_score = Histogram(
            "fourstep_diversity_score", "Diversity of the answered sets.", buckets=SCORE_BUCKETS, registry=registry
        )
        self.build = Info(
            "fourstep_build", "Build of this worker: version, model, model_sha, torch and device.", registry=registry
        )
