"""Quantiles as every benchmark takes them."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

METHOD: Literal["inverted_cdf"] = "inverted_cdf"


def quantile(values: Sequence[float] | np.ndarray, share: float) -> float:
    """The least of `values` that at least `share` of them do not exceed (nearest rank)."""
    return float(np.quantile(values, share, method=METHOD))
