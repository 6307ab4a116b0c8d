"""What the camera sees of a room: image, classes, depth and normals of every pixel."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainbed_sage.data.multitask.room_plans import Draws, Plan
from domainbed_sage.data.multitask.room_solids import Array, dot

FOCAL = 0.8  # focal length in widths of the image, about that of the camera behind NYU-v2
AMBIENT, LAMP, FADING = 0.35, 1.0, 0.1  # light from everywhere, from the lamp, and the latter's decrease per metre²
NOISE = 0.05
HOLES = 3  # at most, in depth and normals
IGNORED = 0.5  # share of the pixels beside an edge that have no label


@dataclass(frozen=True)
class View:
    """One picture, H x W pixels.

    Attributes:
        image: uint8 [3, H, W].
        label: index into `CLASSES`, or -1 where it is ignored, int8 [H, W].
        depth: metres along the optical axis, or 0 where it is unknown, float32 [1, H, W].
        normal: unit normals in camera coordinates (x to the right, y up, z towards the viewer), or (0, 0, 0) where
            they are unknown, float32 [3, H, W].
    """

    image: NDArray[np.uint8]
    label: NDArray[np.int8]
    depth: NDArray[np.float32]
    normal: NDArray[np.float32]


@dataclass(frozen=True)
class Surface:
    """What n pixels really show: number of the part [n], depth [n], unit normal in world coordinates [3, n]."""

    part: NDArray[np.intp]
    depth: Array
    normal: Array


def axes(plan: Plan) -> Array:
    """The camera's right, up and backward directions in world coordinates, as rows [3, 3]."""
    (c, s), (level, rise) = plan.yaw, plan.pitch
    return np.array([[c, 0, -s], [rise * s, level, rise * c], [level * s, -rise, level * c]])


def pixels(height: int, width: int) -> Array:
    """Rays through the pixels' centres in camera coordinates, of length 1 along the optical axis [3, H * W]."""
    focal = FOCAL * width
    x = (np.arange(width) + 0.5 - width / 2) / focal
    y = -(np.arange(height) + 0.5 - height / 2) / focal
    return np.stack(np.broadcast_arrays(x[None, :], y[:, None], -1.0)).reshape(3, -1)


def look(plan: Plan, rays: Array) -> Surface:
    """Find the nearest surface on each ray [3, n] of world coordinates.

    A ray has length 1 along the optical axis, so that the distance in rays is the depth.
    """
    n = rays.shape[1]
    depth, part, normal = np.full(n, np.inf), np.full(n, -1), np.zeros((3, n))
    for number, thing in enumerate(plan.parts):
        with np.errstate(divide="ignore", invalid="ignore"):  # rays along a side: infinite, and then not the nearest
            t, normals = thing.solid.hit(plan.camera, rays)
            nearer = (t > 0) & (t < depth)
        depth[nearer], part[nearer], normal[:, nearer] = t[nearer], number, normals[:, nearer]
    return Surface(part, depth, normal)


def view(plan: Plan, height: int, width: int, source: np.random.Generator) -> View:
    """Render a room, with a sensor's holes in depth and normals, and pixels beside edges that have no label."""
    draws, camera, seen = Draws(source), axes(plan), pixels(height, width)
    rays = camera[0][:, None] * seen[0] + camera[1][:, None] * seen[1] + camera[2][:, None] * seen[2]
    surface = look(plan, rays)
    shape = (height, width)
    normal = np.stack([dot(axis, surface.normal) for axis in camera]).reshape(3, *shape).astype(np.float32)
    depth = surface.depth.reshape(1, *shape).astype(np.float32)
    label = np.array([part.label for part in plan.parts], np.int8)[surface.part].reshape(shape)
    colours = _shaded(plan, surface, rays) + NOISE * draws.numbers(-1, 1, 3, height * width)
    image = np.rint(255 * np.clip(colours, 0, 1)).astype(np.uint8).reshape(3, *shape)
    for _ in range(draws.whole(1, HOLES)):
        hole = (..., _stretch(draws, height), _stretch(draws, width))
        depth[hole], normal[hole] = 0, 0
    label[_edges(surface.part.reshape(shape)) & (draws.numbers(0, 1, *shape) < IGNORED)] = -1
    return View(image, label, depth, normal)


def _stretch(draws: Draws, length: int) -> slice:
    """Some neighbouring rows or columns, at most a sixth of them."""
    start = draws.whole(0, length - 1)
    return slice(start, start + draws.whole(1, length // 6))


def _edges(part: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a pixel shows another part than the one above or to the left."""
    down, right = np.diff(part, axis=0, prepend=part[:1]), np.diff(part, axis=1, prepend=part[:, :1])
    return (down != 0) | (right != 0)


def _shaded(plan: Plan, surface: Surface, rays: Array) -> Array:
    """Colours [3, n] of checked surfaces without gloss, in the light of a lamp that throws no shadows."""
    colour, offset = (np.stack([getattr(p, name) for p in plan.parts], 1) for name in ("colour", "offset"))
    period, contrast = (np.array([getattr(p, name) for p in plan.parts]) for name in ("period", "contrast"))
    part, points = surface.part, plan.camera[:, None] + surface.depth * rays
    squares = np.floor(points / period[part] + offset[:, part])
    checks = 1 - contrast[part] * np.mod(squares[0] + squares[1] + squares[2], 2)
    to_lamp = plan.light[:, None] - points
    square = dot(to_lamp, to_lamp)
    facing = np.maximum(dot(surface.normal, to_lamp) / np.sqrt(square), 0)
    light = AMBIENT + LAMP * facing / (1 + FADING * square)
    return plan.brightness * colour[:, part] * checks * light
