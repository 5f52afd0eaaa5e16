"""The rate limit of an API key, in the headers of draft-ietf-httpapi-ratelimit-headers."""

import math

from jobs.queue.admission import Admission, RateLimit
from service.problems import Problem


def over_the_rate(admission: Admission, limit: RateLimit) -> Problem:
    """429 problem, with the time after which the call would fit."""
    wait_s = max(1, math.ceil(admission.wait_s))
    headers = {
        "Retry-After": str(wait_s),
        "RateLimit-Policy": f'"images";q={limit.images_per_minute};w=60',
        "RateLimit": f'"images";r={admission.remaining_images};t={wait_s}',
    }
    detail = f"This key may make {limit.images_per_minute} images a minute; this call fits in {wait_s} s."
    return Problem(429, "rate-limited", "Over the rate", detail, headers=headers)
