"""Student's t: how far a mean of few values may be off. Apart from `evaluate`, so that it needs no torch."""

from __future__ import annotations

from statistics import NormalDist


def student_t_975(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t, exact for 1 and 2 degrees of freedom, within 0.5 % from 3 on.

    Source: Abramowitz and Stegun (1964), Handbook of Mathematical Functions, 26.7.5.
    """
    if degrees == 1:
        return 12.706205
    if degrees == 2:
        return 4.302653
    z, v = NormalDist().inv_cdf(0.975), degrees
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )
