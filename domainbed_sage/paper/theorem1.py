"""Theorem 1 by Monte Carlo: the excess risk of the empirical minimizer over K distributions, beside its leading term.

For each draw of K distributions the excess R(θ̂) - R(θ*) is compared with ½ ĝᵀH̄⁻¹ĝ of the same draw, whose mean is
the alignment term tr(H̄⁻¹Σ_g)/(2K) exactly: their difference is the remainder, with far less noise than the excess.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """Excess risk over its leading term, at one K.

    Attributes:
        K: distributions.
        ratio: the estimate.
        half_width: of its 95% interval; 0 if it is exact.
        leading: the alignment term, tr(H̄⁻¹Σ_g)/(2K).
    """

    K: int
    ratio: float
    half_width: float
    leading: float

    @property
    def scaled_remainder(self) -> float:
        """K² times excess less leading term: bounded if the remainder is O(K⁻²)."""
        return self.K**2 * (self.ratio - 1) * self.leading

    def __str__(self) -> str:
        return f"{self.ratio:.3f}" + (f" ± {self.half_width:.3f}" if self.half_width else "")


class Family(ABC):
    """Losses of random distributions, with the trace tr(H̄⁻¹Σ_g)."""

    trace: float

    @abstractmethod
    def remainders(self, rng: np.random.Generator, K: int, draws: int) -> Values:
        """R(θ̂) - R(θ*) - ½ ĝᵀH̄⁻¹ĝ of so many draws of K distributions; their mean is what is wanted."""

    def estimate(self, rng: np.random.Generator, K: int, draws: int) -> Estimate:
        """The ratio with its interval."""
        leading = self.trace / (2 * K)
        found = self.remainders(rng, K, draws) / leading
        return Estimate(K, 1 + float(found.mean()), Z95 * float(found.std(ddof=1)) / math.sqrt(draws), leading)


@dataclass(frozen=True)
class CommonHessian(Family):
    """L_e = ½θᵀAθ + b_eᵀθ with skewed b_e = M(x_e - 1), x_e standard exponential: Σ_g = MMᵀ."""

    A: tuple[tuple[float, float], ...] = ((2.0, 0.5), (0.5, 1.0))
    M: tuple[tuple[float, float], ...] = ((1.0, 0.0), (0.8, 1.5))

    @property
    def trace(self) -> float:  # type: ignore[override]
        """tr(A⁻¹MMᵀ)."""
        M = np.array(self.M)
        return float(np.trace(np.linalg.solve(np.array(self.A), M @ M.T)))

    def _minimizers(self, rng: np.random.Generator, K: int, draws: int) -> tuple[Values, Values]:
        """ĝ [draws, 2] and θ̂ = -A⁻¹ĝ; the mean of K exponentials is a gamma variable."""
        g = (rng.standard_gamma(K, (draws, 2)) / K - 1) @ np.array(self.M).T
        return g, -np.linalg.solve(np.array(self.A), g.T).T

    def remainders(self, rng: np.random.Generator, K: int, draws: int) -> Values:
        """See `Family.remainders`; zero but for rounding."""
        g, theta = self._minimizers(rng, K, draws)
        A = np.array(self.A)
        return ((theta @ A) * theta).sum(1) / 2 - (g * np.linalg.solve(A, g.T).T).sum(1) / 2

    def deviation(self, rng: np.random.Generator, K: int, draws: int, sigma: float) -> float:
        """How many standard errors the mean of R(θ̂ + ξ) - R(θ*) is from both terms together, ξ ~ N(0, σ²I)."""
        A = np.array(self.A)
        theta = self._minimizers(rng, K, draws)[1] + sigma * rng.standard_normal((draws, 2))
        excess = ((theta @ A) * theta).sum(1) / 2
        terms = self.trace / (2 * K) + sigma**2 / 2 * float(np.trace(A))
        return float((excess.mean() - terms) / (excess.std(ddof=1) / math.sqrt(draws)))


@dataclass(frozen=True)
class RandomHessians(Family):
    """L_e = ½(θ - c_e)ᵀH_e(θ - c_e) in d dimensions, nH_e Wishart with n degrees of freedom, c_e standard normal.

    H̄ = I and Σ_g = E[H_e²] = (n + d + 1)/n I. In one dimension the ratio is Kn/(Kn + 2).
    """

    d: int = 3
    n: int = 24

    @property
    def trace(self) -> float:  # type: ignore[override]
        """tr(Σ_g)."""
        return self.d * (self.n + self.d + 1) / self.n

    def remainders(self, rng: np.random.Generator, K: int, draws: int) -> Values:
        """See `Family.remainders`; the mean over the c_e is taken exactly: ½ tr(S⁻²Q) - ½ tr(Q)/K², Q = ΣH_e²."""
        Z = rng.standard_normal((draws, K, self.n, self.d))
        H = np.einsum("akni,aknj->akij", Z, Z) / self.n
        Q = np.einsum("akij,akjl->ail", H, H)
        inverse = np.linalg.inv(H.sum(1))
        return np.einsum("aij,ajl,ali->a", inverse, inverse, Q) / 2 - np.einsum("aii->a", Q) / (2 * K**2)


@dataclass(frozen=True)
class NotQuadratic(Family):
    """L_e = log cosh(θ - c_e) in one dimension with skewed, standard exponential c_e.

    R is a Gauss-Laguerre sum over c_e.
    """

    nodes: int = 100

    @cached_property
    def _rule(self) -> tuple[Values, Values]:
        points, weights = np.polynomial.laguerre.laggauss(self.nodes)
        return points, weights

    @cached_property
    def _optimum(self) -> float:
        points, weights = self._rule
        theta = 0.7
        for _ in range(50):
            slope = np.tanh(theta - points)
            theta -= float(weights @ slope / (weights @ (1 - slope**2)))
        return theta

    @cached_property
    def curvature(self) -> float:
        """H̄ = R''(θ*)."""
        points, weights = self._rule
        return float(weights @ (1 - np.tanh(self._optimum - points) ** 2))

    @cached_property
    def trace(self) -> float:  # type: ignore[override]
        """Σ_g / H̄."""
        points, weights = self._rule
        return float(weights @ np.tanh(self._optimum - points) ** 2) / self.curvature

    def risk(self, theta: Values) -> Values:
        """R(θ) - R(θ*)."""
        points, weights = self._rule
        return _log_cosh(theta[:, None] - points) @ weights - float(_log_cosh(self._optimum - points) @ weights)

    def remainders(self, rng: np.random.Generator, K: int, draws: int) -> Values:
        """See `Family.remainders`."""
        c = rng.standard_exponential((draws, K))
        g = np.tanh(self._optimum - c).mean(1)
        return self.risk(minimizer(c)) - g**2 / (2 * self.curvature)


def _log_cosh(x: Values) -> Values:
    return np.logaddexp(x, -x) - math.log(2)


def minimizer(c: Values, steps: int = 30) -> Values:
    """The minimizer of the mean of log cosh(θ - c) over the last axis, by Newton steps inside a shrinking bracket."""
    theta, low, high = c.mean(-1), c.min(-1), c.max(-1)
    for _ in range(steps):
        slopes = np.tanh(theta[..., None] - c)
        g, h = slopes.mean(-1), (1 - slopes**2).mean(-1)
        low, high = np.where(g < 0, theta, low), np.where(g > 0, theta, high)
        newton = theta - g / h
        theta = np.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
    return theta
