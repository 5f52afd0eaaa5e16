"""Limits of what a client may ask for in a minute, over all models."""

from redis.asyncio import Redis

from jobs.queue.admission import Admission, RateLimit
from jobs.queue.keys import rate_record
from jobs.queue.scripts import register_script


class Rates:
    """Charges clients for jobs, and takes the charge back for those that are not admitted."""

    def __init__(self, redis: Redis) -> None:
        self._charge = register_script(redis, "charge")
        self._refund = register_script(redis, "refund", allow_oom=True)

    async def charge(self, rate: RateLimit, job_id: str) -> Admission | None:
        """Charge for a job once; for one that is over the rate, the refusal. Without a job id nothing is charged."""
        over, wait_ms, remaining = await self._charge(keys=[rate_record(rate.client)], args=_arguments(rate, job_id))
        if not over:
            return None
        return Admission("limited", 0, job_id, over=over.decode(), remaining=int(remaining), wait_s=wait_ms / 1000)

    async def refund(self, rate: RateLimit, job_id: str) -> None:
        """Take the charge for a job back."""
        await self._refund(keys=[rate_record(rate.client)], args=_arguments(rate, job_id))


def _arguments(rate: RateLimit, job_id: str) -> list[str | int]:
    arguments: list[str | int] = [job_id]
    for unit, (cost, most) in rate.per_minute.items():
        arguments += [unit, cost, most]
    return arguments
