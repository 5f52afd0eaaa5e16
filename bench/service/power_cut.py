"""`python -m bench.service.power_cut`: the cost of a power cut, as what Redis has acknowledged before its disk has it.

Jobs are admitted without a pause. Meanwhile a further connection writes, and asks by WAITAOF when the disk has it. From
the answer to the one until that to the other, a power cut takes along what was acknowledged.
"""

import asyncio
import json
import tempfile
import time
from pathlib import Path

from bench import results_file
from jobs.queue.connection import open_redis
from jobs.queue.job_client import JobClient
from jobs.testing import redis_servers
from jobs.testing.samples import MODEL, sample_tasks

POLICIES = ("always", "everysec")
SAMPLES = 30


async def measured(policy: str, folder: Path) -> dict[str, float]:
    """The longest time until the disk had a write, and the images that were acknowledged meanwhile, at most."""
    port = redis_servers.free_port()
    config = f"appendonly yes\nappendfsync {policy}"
    longest, most, admitted = 0.0, 0, 0
    with redis_servers.server(folder, config, port=port):
        redis = open_redis(f"redis://127.0.0.1:{port}/0")
        client = JobClient(redis, MODEL)

        async def admit_forever() -> None:
            nonlocal admitted
            while True:
                await client.admit(sample_tasks(4), 10**9, 600)
                admitted += 4

        admitting = asyncio.create_task(admit_forever())
        connection = await redis.connection_pool.get_connection()
        for sample in range(SAMPLES):
            written_and_kept = [("SET", "sample", sample), ("WAITAOF", 1, 0, 4000)]
            await connection.send_packed_command(connection.pack_commands(written_and_kept))
            await connection.read_response()
            began, before = time.monotonic(), admitted
            await connection.read_response()
            longest, most = max(longest, time.monotonic() - began), max(most, admitted - before)
            await asyncio.sleep(0.05)
        await redis.connection_pool.release(connection)
        admitting.cancel()
        await redis.aclose()
    return {"longest_s": round(longest, 3), "most_images": most, "admitted": admitted, "samples": SAMPLES}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fourstep-power-cut-") as folder:
        policies = {policy: asyncio.run(measured(policy, Path(folder) / policy)) for policy in POLICIES}
    print(json.dumps(policies, indent=2))
    results_file.write("power_cut", {"policies": policies})


if __name__ == "__main__":
    main()
