"""Settings of a peer, by environment variables: the engine, its batch size and wait, the cores."""

import os

ENGINE = os.environ.get("BENCH_ENGINE", "sampler")
"""`diffusers`, `sampler` or `latency-model`."""

BATCH_SIZE = int(os.environ.get("BENCH_BATCH_SIZE", "8"))
WAIT_S = float(os.environ.get("BENCH_WAIT_S", "0.01"))
"""Most calls of a batch, and the longest time that the first of them waits for others."""

PORT = int(os.environ.get("BENCH_PORT", "8000"))
MODEL = os.environ.get("BENCH_MODEL", "models/emoji-student")
MODEL_CORE = os.environ.get("BENCH_MODEL_CORE")
"""The core of the thread that draws; unset for any."""
BATCH_LOG = os.environ.get("BENCH_BATCH_LOG")
"""A file that is given a line with the size of each batch."""
