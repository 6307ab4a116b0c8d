"""Rooms: what is seen is there, the same everywhere, and like NYU-v2 in form."""

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.seeding import generator
from domainbed_sage.data.multitask import facts, room_plans, room_views, rooms
from domainbed_sage.data.multitask.room_solids import Ball, Box, Cylinder, Plane
from domainbed_sage.data.multitask.samples import mistakes

GOLDEN = "160 train, 80 test, e61e3c96, synthetic"
SHAPE = (24, 32)


@pytest.fixture(scope="module")
def default():
    return rooms.load()


@pytest.fixture(scope="module", params=range(6))
def room(request):
    """A plan, and what its camera sees at every pixel: surface and rays in world coordinates."""
    plan = room_plans.draw(generator(request.param, "a room of the tests"))
    rays = room_views.axes(plan).T @ room_views.pixels(*SHAPE)
    return plan, room_views.look(plan, rays), rays


# An independent reference: go along the ray until a solid is entered


def inside(solid, points):
    """Whether points [3, m] are in the solid; behind a plane counts as inside."""
    x, y, z = points
    if isinstance(solid, Plane):
        return (points[solid.axis] - solid.at) * solid.sign < 0
    if isinstance(solid, Ball):
        return sum((p - c) ** 2 for p, c in zip(points, solid.centre, strict=True)) < solid.radius**2
    if isinstance(solid, Cylinder):
        a, low, c = solid.foot
        return ((x - a) ** 2 + (z - c) ** 2 < solid.radius**2) & (low < y) & (y < low + solid.height)
    assert isinstance(solid, Box)
    angle = np.arctan2(solid.turn[1], solid.turn[0])
    away = (x - solid.centre[0]) + 1j * -(z - solid.centre[2])  # from above: real to the right, imaginary ahead
    local = away * np.exp(-1j * angle)
    half = solid.half
    return (abs(local.real) < half[0]) & (abs(y - solid.centre[1]) < half[1]) & (abs(local.imag) < half[2])


def entered(plan, ray):
    """Distance along a ray to the first solid, and its number: small steps, then halving the last one."""

    def within(t):
        points = plan.camera[:, None] + t * ray[:, None]
        return np.array([inside(part.solid, points) for part in plan.parts])

    t = np.arange(0, 12, 0.002)
    low, high = t[first := within(t).any(0).argmax()] - 0.002, t[first]
    for _ in range(40):
        middle = np.array([(low + high) / 2])
        low, high = (low, middle[0]) if within(middle).any() else (middle[0], high)
    return high, within(np.array([high + 1e-9])).argmax()


def test_depth_is_the_distance_along_the_axis_to_what_is_seen(room):
    plan, surface, rays = room
    backward = room_views.axes(plan)[2]
    for pixel in np.random.default_rng(0).choice(rays.shape[1], 25, replace=False):
        ray = rays[:, pixel]
        t, number = entered(plan, ray)
        assert surface.depth[pixel] == pytest.approx(-t * (ray @ backward), abs=1e-7)
        assert surface.part[pixel] == number


def test_normals_have_length_1_and_face_the_camera(room):
    _, surface, rays = room
    assert np.linalg.norm(surface.normal, axis=0) == pytest.approx(1, abs=1e-9)
    assert ((surface.normal * rays).sum(0) < 0).all()


def test_normals_agree_with_differences_of_depth_on_planes(default):
    """On 3 x 3 pixels of one normal, which is that of the plane through the points in front of the camera."""
    x, y, z = room_views.pixels(*facts.ROOMS_SIZE).reshape(3, *facts.ROOMS_SIZE)
    checked = 0
    for i in range(0, len(default.train), 20):
        _, (_, depth, normal) = default.train[i]
        points, n = depth.numpy().astype(float) * np.stack([x, y, z]), normal.numpy()
        across, down = points[:, 1:-1, 2:] - points[:, 1:-1, :-2], points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
        found = np.cross(down, across, axis=0)
        found /= np.maximum(np.linalg.norm(found, axis=0), 1e-12)
        windows = np.lib.stride_tricks.sliding_window_view(n, (3, 3), axis=(1, 2))
        flat = (np.ptp(windows, axis=(3, 4)) < 1e-6).all(0) & (np.abs(n[:, 1:-1, 1:-1]).sum(0) > 0)
        inverse = 1 / np.maximum(depth[0].numpy(), 0.1)  # changes evenly on one plane
        second = np.abs(inverse[1:-1, 2:] + inverse[1:-1, :-2] - 2 * inverse[1:-1, 1:-1])
        second += np.abs(inverse[2:, 1:-1] + inverse[:-2, 1:-1] - 2 * inverse[1:-1, 1:-1])
        flat &= second < 1e-5  # not two parallel planes, one before the other
        assert np.abs(found - n[:, 1:-1, 1:-1])[:, flat].max() < 1e-3
        checked += flat.mean()
    assert checked / 8 > 0.5


def test_directions_are_those_of_the_picture(default):
    """The floor faces up, the ceiling down, and the wall to the left faces right."""
    for i in range(20):
        image, (label, depth, normal) = default.train[i]
        known = depth[0] > 0
        for name, sign in (("floor", 1), ("ceiling", -1)):
            here = (label == room_plans.CLASSES.index(name)) & known
            assert (sign * normal[1][here] > 0.9).all()
        wall = (label == room_plans.CLASSES.index("wall")) & known
        assert (normal[0, :, :2][wall[:, :2]] > -0.4).all()
        assert image.shape == (3, *facts.ROOMS_SIZE)


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_class_and_what_the_sensor_misses_occur(default, split):
    samples = default.splits[split]
    assert default.kinds["segmentation"].channels == 13
    labels, depths, normals = (torch.stack([samples[i][1][k] for i in range(len(samples))]) for k in range(3))
    assert labels.unique().tolist() == list(range(-1, 13))
    holes = depths[:, 0] == 0
    assert holes.flatten(1).any(1).all()
    assert torch.equal(holes, (normals == 0).all(1))
    assert 0.005 < holes.float().mean() < 0.05
    assert 0.02 < (labels == -1).float().mean() < 0.15


def test_every_sample_is_as_it_should_be(default):
    assert [m for s in default.splits.values() for i in range(len(s)) for m in mistakes(s[i], default.kinds)] == []


def test_labels_are_missing_only_beside_edges():
    """One row of a picture: two parts, of which the second begins at 3."""
    assert room_views._edges(np.array([[5, 5, 5, 2, 2]])).tolist() == [[False, False, False, True, False]]
    assert room_views._edges(np.array([[5], [5], [2]])).tolist() == [[False], [False], [True]]


def test_the_default_dataset_never_changes(default):
    assert default.population == GOLDEN
    assert default.notes == ("synthetic: rendered rooms, no photographs",)


def test_another_process_on_a_simpler_processor_makes_the_same_bits():
    """NumPy is told to use none of this processor's vector instructions."""
    umath = importlib.import_module("numpy._core._multiarray_umath")
    features = [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__.get(name)]
    code = "from domainbed_sage.data.multitask import rooms; print(rooms.load(6, 3, size=(30, 40), seed=5).population)"
    env = os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(features)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == rooms.load(6, 3, size=(30, 40), seed=5).population


def test_a_scene_depends_on_seed_split_and_number_only():
    small, large = rooms.load(2, 1, size=(8, 10)), rooms.load(3, 2, size=(8, 10))
    for i in range(2):
        for one, same in zip(small.train[i][1], large.train[i][1], strict=True):
            assert torch.equal(one, same)
    images = [
        small.train[0][0],
        small.train[1][0],
        small.test[0][0],
        rooms.load(1, 1, size=(8, 10), seed=1).train[0][0],
    ]
    assert len({image.numpy().tobytes() for image in images}) == 4
    assert len({small.population, large.population, rooms.load(2, 1, size=(8, 10), seed=1).population}) == 3


@pytest.mark.parametrize(
    "change", [{"train": 0}, {"test": 0}, {"size": (7, 8)}, {"size": (8, 7)}, {"seed": -1}], ids=lambda c: str(c)
)
def test_numbers_that_are_too_small_are_refused(change):
    with pytest.raises(UserError, match=r"Rooms should have 1 or more scenes.*Found train = "):
        rooms.load(**({"train": 1, "test": 1, "size": (8, 8)} | change))
