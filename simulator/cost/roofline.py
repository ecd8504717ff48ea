"""Two limits of one kernel at once."""

from __future__ import annotations


def blurred(first: float, second: float, softness: float) -> float:
    """Time of what has two limits: the norm ``(a^q + b^q)^(1/q)`` with ``q = 1 / softness``.

    A roofline has a sharp ridge, the larger of the two, only for kernels that overlap perfectly: softness 0.
    What fills and drains without overlap makes them slower near the ridge, and nowhere else.

    Args:
        first: Time of one limit alone, 0 or more [s].
        second: Time of the other alone [s].
        softness: 0 (the larger of the two) to 1 (their sum).
    """
    larger, smaller = max(first, second), min(first, second)
    if softness <= 0.0 or smaller <= 0.0:
        return larger
    return float(larger * (1.0 + (smaller / larger) ** (1.0 / softness)) ** softness)
