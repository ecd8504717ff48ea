"""Robust least squares over a few positive constants, without a library and the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STEP: Final = 0.02
"""Relative step of the finite differences; the models have small kinks that a smaller one would see."""
_CONVERGED: Final = 1e-3
_MOST_ITERATIONS: Final = 30


@dataclass(frozen=True, slots=True)
class Minimum:
    """Where the loss is least.

    Attributes:
        x: Logarithms of the constants.
        jacobian: Derivatives of the residuals there, in the measurements only.
        spread: One standard deviation of each logarithm, from the curvature and the scatter.
        cost: The loss.
    """

    x: Floats
    jacobian: Floats
    spread: Floats
    cost: float


def minimise(
    residuals: Callable[[Floats], Floats],
    start: Floats,
    prior_spread: Floats,
    *,
    scale: float,
    prior_weight: float,
) -> Minimum:
    """Levenberg-Marquardt with the loss ``2 (sqrt(1 + (r/s)^2) - 1)``, linear far out, and a weak prior.

    Args:
        residuals: Logarithms of the constants -> logarithms of predicted over measured.
        start: Where to begin, and the centre of the prior.
        prior_spread: One standard deviation of the prior for each.
        scale: Residual s from which rows count less.
        prior_weight: Weight of the prior, in units of residuals; small, so that it decides only what the rows
            leave open.
    """
    prior = prior_weight / prior_spread
    x, values = start.copy(), residuals(start)
    cost = _loss(values, scale) + float(np.sum((prior * (x - start)) ** 2)) / scale**2
    damping = 1e-2
    for _ in range(_MOST_ITERATIONS):
        jacobian = _jacobian(residuals, x, values)
        weights = 1.0 / np.sqrt(1.0 + (values / scale) ** 2)
        normal = (jacobian * weights[:, None]).T @ jacobian + np.diag(prior**2)
        slope = (jacobian * weights[:, None]).T @ values + prior**2 * (x - start)
        moved = False
        while damping < 1e8:
            step = -np.linalg.solve(normal + damping * np.diag(np.diag(normal)), slope)
            step = np.clip(step, -0.7, 0.7)
            tried = residuals(x + step)
            new = _loss(tried, scale) + float(np.sum((prior * (x + step - start)) ** 2)) / scale**2
            if new < cost:
                moved, gain = True, cost - new
                x, values, cost, damping = x + step, tried, new, max(damping / 5, 1e-6)
                break
            damping *= 4
        if not moved or (gain < 1e-5 * cost and float(np.max(np.abs(step))) < 10 * _CONVERGED):
            break
        if float(np.max(np.abs(step))) < _CONVERGED:
            break
    jacobian = _jacobian(residuals, x, values)
    return Minimum(x, jacobian, _spread(jacobian, values, prior, scale), cost)


def _jacobian(residuals: Callable[[Floats], Floats], x: Floats, values: Floats) -> Floats:
    columns = []
    for place in range(len(x)):
        moved = x.copy()
        moved[place] += _STEP
        columns.append((residuals(moved) - values) / _STEP)
    return np.stack(columns, axis=1)


def _loss(values: Floats, scale: float) -> float:
    return float(np.sum(2.0 * (np.sqrt(1.0 + (values / scale) ** 2) - 1.0)))


def _spread(jacobian: Floats, values: Floats, prior: Floats, scale: float) -> Floats:
    weights = 1.0 / np.sqrt(1.0 + (values / scale) ** 2)
    normal = (jacobian * weights[:, None]).T @ jacobian + np.diag(prior**2)
    scatter = float(np.sum(weights * values**2)) / max(1.0, float(np.sum(weights)) - len(prior))
    spread: Floats = np.sqrt(np.maximum(np.diag(np.linalg.inv(normal)), 0.0) * scatter)
    return spread
