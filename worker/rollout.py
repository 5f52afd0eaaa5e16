"""Keep the pictures of one job of one model, while the workers of its name serve two: a rollout, or its end."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from jobs.queue.claims import Claim
from worker.redis_retry import until_redis_answers
from worker.results import ResultWriter

log = logging.getLogger(__name__)

PASSED_ON_PAUSE_S = 0.2
"""Pause after tasks were left to others, who are to see them first."""


@dataclass(frozen=True)
class Rollout:
    """Sorts claims by the model that their job is for; its own has the hash `sha256`."""

    result_writer: ResultWriter
    sha256: str

    async def own(self, claims: Sequence[Claim]) -> list[Claim]:
        """Return the claims for this worker's model. The others are left to workers of theirs.

        A job whose model no worker serves any more becomes one of this worker's, or fails if it has images already.
        """
        own = [claim for claim in claims if claim.model_sha in (None, self.sha256)]
        if len(own) == len(claims):
            return own
        queue = self.result_writer.queue
        leases = await until_redis_answers(queue.registry.workers)
        served = {lease.card.sha256 for lease in leases} - {self.sha256}
        others = [claim for claim in claims if claim.model_sha in served]
        orphans = [claim for claim in claims if claim.model_sha not in {None, self.sha256, *served}]
        for claim in orphans:
            if await until_redis_answers(partial(queue.adopt, claim, self.sha256)):
                own.append(claim)
            else:
                await self.result_writer.refuse(claim, "the model was exchanged after the first image of this call")
        if others:
            log.info("left %d tasks to workers of another model", len(others))
            await until_redis_answers(partial(queue.pass_on, others))
            await asyncio.sleep(PASSED_ON_PAUSE_S)
        return own
