"""What stands in a room: a plan drawn from random numbers, in classes of the names that NYU-v2's 13 classes have."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from domainbed_sage.data.multitask.room_solids import Array, Ball, Box, Cylinder, Plane, Solid, Turn, turn

CLASSES = (
    *("bed", "books", "ceiling", "chair", "floor", "furniture", "objects"),
    *("picture", "sofa", "table", "tv", "wall", "window"),
)
COLOURS = {  # red, green and blue of a typical surface of each class
    "bed": (0.75, 0.65, 0.75),
    "books": (0.6, 0.3, 0.25),
    "ceiling": (0.9, 0.9, 0.87),
    "chair": (0.55, 0.35, 0.2),
    "floor": (0.5, 0.38, 0.27),
    "furniture": (0.62, 0.48, 0.3),
    "objects": (0.45, 0.6, 0.35),
    "picture": (0.65, 0.5, 0.6),
    "sofa": (0.35, 0.4, 0.6),
    "table": (0.72, 0.58, 0.42),
    "tv": (0.08, 0.08, 0.1),
    "wall": (0.75, 0.75, 0.65),
    "window": (0.7, 0.85, 1.0),
}
SPREAD = 0.18  # of colours around the typical one
TRIES = 40  # places that are tried for a piece of furniture before it is left out
CLEAR = 1.1  # metres that furniture keeps from the camera, beyond its own extent


@dataclass(frozen=True)
class Part:
    """A solid, its class, and the checks on it: colour, side (metres), contrast, and their offset."""

    solid: Solid
    label: int
    colour: Array
    period: float
    contrast: float
    offset: Array


@dataclass(frozen=True)
class Plan:
    """A room: half its width, depth and height (metres), the camera, the light, and everything that can be seen.

    Attributes:
        camera: where it is [3].
        yaw: to the left.
        pitch: upwards.
        light: where the lamp is [3].
        brightness: factor on all colours.
        parts: the room's six sides, and what is in it.
    """

    size: tuple[float, float, float]
    camera: Array
    yaw: Turn
    pitch: Turn
    light: Array
    brightness: float
    parts: list[Part] = field(default_factory=list)


class Draws:
    """Uniform random numbers."""

    def __init__(self, source: np.random.Generator) -> None:
        self.source = source

    def number(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self.source.random())

    def numbers(self, low: float, high: float, *shape: int) -> Array:
        """An array of them."""
        return low + (high - low) * self.source.random(shape)

    def whole(self, low: int, high: int) -> int:
        """A whole number from low to high, both possible."""
        return int(self.source.integers(low, high + 1))


@dataclass
class Builder:
    """Adds solids to a plan, placed relative to a spot on the floor that is turned about the vertical."""

    plan: Plan
    draws: Draws
    at: tuple[float, float] = (0.0, 0.0)
    turn: Turn = (1.0, 0.0)

    def add(self, solid: Solid, name: str) -> None:
        """Add a solid of a class, in a colour of its own."""
        colour = np.clip(np.array(COLOURS[name]) + self.draws.numbers(-SPREAD, SPREAD, 3), 0.03, 1)
        checks = self.draws.number(0.15, 0.7), self.draws.number(0, 0.3)
        self.plan.parts.append(Part(solid, CLASSES.index(name), colour, *checks, self.draws.numbers(0, 1, 3)))

    def spot(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """World coordinates of a place given relative to the spot."""
        c, s = self.turn
        return self.at[0] + c * x + s * z, y, self.at[1] + c * z - s * x

    def box(self, name: str, centre: tuple[float, float, float], half: tuple[float, float, float]) -> None:
        """Add a box."""
        self.add(Box(self.spot(*centre), half, self.turn), name)

    def cylinder(self, name: str, foot: tuple[float, float, float], radius: float, height: float) -> None:
        """Add an upright cylinder."""
        self.add(Cylinder(self.spot(*foot), radius, height), name)

    def ball(self, name: str, centre: tuple[float, float, float], radius: float) -> None:
        """Add a ball."""
        self.add(Ball(self.spot(*centre), radius), name)

    def books(self, y: float, half_width: float) -> None:
        """Add a row of books that stand at a height."""
        x = -half_width
        while x < half_width:
            thick, tall = self.draws.number(0.05, 0.1), self.draws.number(0.12, 0.2)
            self.box("books", (x + thick, y + tall, 0), (thick, tall, 0.13))
            x += 2 * thick


def bed(b: Builder) -> None:
    """Mattress, headboard and pillow."""
    wide, high = b.draws.number(0.6, 0.9), b.draws.number(0.2, 0.3)
    b.box("bed", (0, high, 0), (wide, high, 1.0))
    b.box("bed", (0, 2 * high, -1.05), (wide, 2 * high, 0.05))
    b.box("bed", (0, 2 * high + 0.08, -0.7), (0.7 * wide, 0.08, 0.2))


def sofa(b: Builder) -> None:
    """Seat, back and two arms."""
    wide = b.draws.number(0.7, 1.0)
    b.box("sofa", (0, 0.22, 0), (wide, 0.22, 0.42))
    b.box("sofa", (0, 0.45, -0.45), (wide, 0.45, 0.1))
    for side in (-wide, wide):
        b.box("sofa", (side, 0.32, 0), (0.1, 0.32, 0.45))


def chair(b: Builder) -> None:
    """Seat, back and one leg."""
    high = b.draws.number(0.4, 0.55)
    b.cylinder("chair", (0, 0, 0), 0.07, high)
    b.box("chair", (0, high, 0), (0.24, 0.05, 0.24))
    b.box("chair", (0, high + 0.35, -0.22), (0.24, 0.35, 0.04))


def table(b: Builder) -> None:
    """A top on two sides or on a foot, with something on it."""
    wide, high = b.draws.number(0.45, 0.8), b.draws.number(0.6, 0.8)
    if b.draws.whole(0, 1):
        b.box("table", (0, high, 0), (wide, 0.04, 0.4))
        for side in (-0.9 * wide, 0.9 * wide):
            b.box("table", (side, high / 2, 0), (0.04, high / 2, 0.36))
    else:
        b.cylinder("table", (0, high, 0), 0.8 * wide, 0.05)
        b.cylinder("table", (0, 0, 0), 0.1, high)
    if b.draws.whole(0, 1):
        b.books(high + 0.06, 0.2)
    else:
        b.ball("objects", (0, high + 0.2, 0), 0.14)


def cabinet(b: Builder) -> None:
    """A high piece of furniture."""
    b.box("furniture", (0, 0.9, 0), (b.draws.number(0.4, 0.6), b.draws.number(0.7, 0.9), 0.3))


def shelf(b: Builder) -> None:
    """A low piece of furniture with a row of books on it."""
    wide, high = b.draws.number(0.5, 0.8), b.draws.number(0.2, 0.5)
    b.box("furniture", (0, high, 0), (wide, high, 0.2))
    b.books(2 * high, 0.8 * wide)


def television(b: Builder) -> None:
    """A screen on a stand."""
    wide, high = b.draws.number(0.45, 0.7), b.draws.number(0.2, 0.35)
    b.box("furniture", (0, high, 0), (wide, high, 0.2))
    b.box("tv", (0, 2 * high + 0.6 * wide, 0), (wide, 0.6 * wide, 0.04))


def lamp(b: Builder) -> None:
    """A ball on a pole, and a bin beside it."""
    high = b.draws.number(1.0, 1.5)
    b.cylinder("objects", (0, 0, 0), 0.05, high)
    b.ball("objects", (0, high, 0), b.draws.number(0.15, 0.25))
    b.cylinder("objects", (0.4, 0, 0.1), b.draws.number(0.12, 0.2), b.draws.number(0.3, 0.5))


FURNITURE: dict[Callable[[Builder], None], float] = {  # and how far it reaches from its spot, metres
    bed: 1.5,
    sofa: 1.2,
    chair: 0.5,
    table: 1.0,
    cabinet: 0.8,
    shelf: 1.0,
    television: 0.9,
    lamp: 0.7,
}


def draw(source: np.random.Generator) -> Plan:
    """Draw a room: its sides, things on its walls, and up to six pieces of furniture of different kinds."""
    draws = Draws(source)
    w, d, h = draws.number(1.8, 3.0), draws.number(4.5, 7.0), draws.number(2.4, 3.0)
    plan = Plan(
        (w, d, h),
        np.array([draws.number(-0.4, 0.4) * w, draws.number(1.2, 1.7), -0.3]),
        turn(draws.number(-0.12, 0.12)),
        turn(draws.number(-0.11, 0.01)),
        np.array([draws.number(-0.6, 0.6) * w, 0.95 * h, -draws.number(0.2, 0.6) * d]),
        draws.number(0.85, 1.25),
    )
    builder = Builder(plan, draws)
    builder.add(Plane(1, 0.0, 1.0), "floor")
    builder.add(Plane(1, h, -1.0), "ceiling")
    for axis, at, sign in ((0, -w, 1.0), (0, w, -1.0), (2, -d, 1.0), (2, 0.0, -1.0)):
        builder.add(Plane(axis, at, sign), "wall")
    _hang(builder)
    _furnish(builder)
    return plan


def _hang(b: Builder) -> None:
    """Hang pictures and windows, and at times a screen, on the far wall and on both sides."""
    w, d, h = b.plan.size
    spots = [(-0.5 * w, -d, False), (0.5 * w, -d, False)]
    spots += [(side * w, -share * d, True) for side in (-1, 1) for share in (0.45, 0.75)]
    for x, z, on_side in spots:
        name = ("picture", "window", "picture", "window", "tv", "")[b.draws.whole(0, 5)]
        wide, tall = b.draws.number(0.3, 0.5) * min(w, 2.0), b.draws.number(0.25, 0.45)
        if name:
            half = (0.03, tall, wide) if on_side else (wide, tall, 0.03)
            b.add(Box((x, b.draws.number(0.5, 0.65) * h, z), half), name)


def _furnish(b: Builder) -> None:
    w, d, _ = b.plan.size
    taken = [(float(b.plan.camera[0]), float(b.plan.camera[2]), CLEAR)]
    pieces = list(FURNITURE)
    for _ in range(b.draws.whole(4, 6)):
        piece = pieces.pop(b.draws.whole(0, len(pieces) - 1))
        reach = FURNITURE[piece]
        for _ in range(TRIES):
            x, z = b.draws.number(reach - w, w - reach), -b.draws.number(reach, d - reach)
            if all((x - a) ** 2 + (z - c) ** 2 > (reach + r) ** 2 for a, c, r in taken):
                taken.append((x, z, reach))
                b.at, b.turn = (x, z), turn(b.draws.number(-0.6, 0.6))
                piece(b)
                break
