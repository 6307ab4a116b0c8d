"""Where rays meet planes, boxes, cylinders and balls.

World coordinates in metres: x to the right, y up, z towards the viewer. A vector, or a set of n vectors, is an array
[3] or [3, n]. Only operations that IEEE 754 rounds exactly are used (+, -, *, /, square root, comparison), each on its
own, so that equal scenes give equal bits on every processor; sines, powers and matrix products do not.
"""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Turn: TypeAlias = tuple[float, float]  # cosine and sine of an angle


class Solid(Protocol):
    """Something that rays can meet."""

    def hit(self, origin: Array, rays: Array) -> tuple[Array, Array]:
        """Where each ray ``origin + t * ray`` first enters.

        Args:
            origin: [3], outside.
            rays: [3, n].

        Returns:
            t [n], infinite or not positive where it misses, and the outward unit normals there [3, n].
        """
        ...


def dot(a: Array, b: Array) -> Array:
    """Inner product over the first axis."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def turn(half_tangent: float) -> Turn:
    """Cosine and sine of the angle whose half has this tangent."""
    square = half_tangent * half_tangent
    return (1 - square) / (1 + square), 2 * half_tangent / (1 + square)


def turned(vectors: Array, by: Turn) -> Array:
    """Vectors turned about the vertical axis, anticlockwise as seen from above."""
    c, s = by
    return np.stack([c * vectors[0] + s * vectors[2], vectors[1], c * vectors[2] - s * vectors[0]])


@dataclass(frozen=True)
class Plane:
    """All points whose coordinate `axis` is `at`; its normal points along that axis, in direction `sign`."""

    axis: int
    at: float
    sign: float

    def hit(self, origin: Array, rays: Array) -> tuple[Array, Array]:
        """See `Solid`."""
        normals = np.zeros_like(rays)
        normals[self.axis] = self.sign
        return (self.at - origin[self.axis]) / rays[self.axis], normals


@dataclass(frozen=True)
class Box:
    """A box by its centre and half its sides, turned about the vertical axis."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    turn: Turn = (1.0, 0.0)

    def hit(self, origin: Array, rays: Array) -> tuple[Array, Array]:
        """See `Solid`."""
        back = (self.turn[0], -self.turn[1])
        half, local = np.array(self.half)[:, None], turned(rays, back)
        start = turned(origin - np.array(self.centre), back)[:, None]
        one, other = (-half - start) / local, (half - start) / local
        enter, leave = np.minimum(one, other), np.maximum(one, other)
        axis = enter.argmax(0)
        t = np.take_along_axis(enter, axis[None], 0)[0]
        normals = np.where(np.arange(3)[:, None] == axis, -np.sign(local), 0.0)
        return np.where(t < leave.min(0), t, np.inf), turned(normals, self.turn)


@dataclass(frozen=True)
class Ball:
    """A ball by its centre and radius."""

    centre: tuple[float, float, float]
    radius: float

    def hit(self, origin: Array, rays: Array) -> tuple[Array, Array]:
        """See `Solid`."""
        start = origin - np.array(self.centre)
        a, b = dot(rays, rays), dot(rays, start)
        square = b * b - a * (dot(start, start) - self.radius * self.radius)
        t = np.where(square > 0, (-b - np.sqrt(np.maximum(square, 0))) / a, np.inf)
        at = np.where(np.isfinite(t), t, 0.0)
        return t, (start[:, None] + at * rays) / self.radius


@dataclass(frozen=True)
class Cylinder:
    """An upright cylinder by the centre of its lower end, radius and height."""

    foot: tuple[float, float, float]
    radius: float
    height: float

    def hit(self, origin: Array, rays: Array) -> tuple[Array, Array]:
        """See `Solid`."""
        start = origin - np.array(self.foot)
        a = rays[0] * rays[0] + rays[2] * rays[2]
        b = rays[0] * start[0] + rays[2] * start[2]
        square = b * b - a * (start[0] * start[0] + start[2] * start[2] - self.radius * self.radius)
        root = np.sqrt(np.maximum(square, 0))
        side = (-b - root) / a
        ends = np.stack([-start[1] / rays[1], (self.height - start[1]) / rays[1]])
        end = ends.min(0)
        t = np.maximum(side, end)
        meets = t < np.minimum((-b + root) / a, ends.max(0))  # never where the root is 0: it misses the side
        across = (start[:, None] + np.where(meets, t, 0.0) * rays) / self.radius
        across[1] = 0
        up = np.zeros_like(rays)
        up[1] = -np.sign(rays[1])
        return np.where(meets, t, np.inf), np.where(side > end, across, up)
