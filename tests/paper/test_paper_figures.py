"""Figures 1 and 2: within what seeds make of them, against naive formulas, twice the same."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from finding_cases import by_place
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from domainbed_sage.cli import main
from domainbed_sage.core.seeding import generator
from domainbed_sage.paper import fig1, fig2, fig4, landscape

pytestmark = pytest.mark.usefixtures("in_one_thread")


# Figure 1


def test_ascents_on_a_diagonal():
    """By hand: SAM follows (h₁ w₁, h₂ w₂), SAGE its signs, both to the same radius."""
    g, w = torch.tensor([3.0, -4.0], dtype=torch.float64), torch.tensor([2.0, 1.0], dtype=torch.float64)
    found = fig1.ascents(g, w)
    assert found["SAM"].tolist() == pytest.approx([0.6 * fig1.RADIUS, -0.8 * fig1.RADIUS])
    assert found["SAGE"].tolist() == pytest.approx([fig1.RADIUS, -fig1.RADIUS])


def test_figure_1():
    found = by_place(fig1.findings())
    equal, circle, column = (
        found[f"Figure 1, {name}"] for name in ("equal magnitude", "dashed circle", "a column of weights")
    )
    assert equal.numbers["ratio_SAGE"] == pytest.approx(1, abs=1e-12)
    assert equal.numbers["ratio_SAM"] == pytest.approx(fig1.H[0] * fig1.W[0] / (fig1.H[1] * fig1.W[1]))
    assert circle.numbers == {"places_SAM": fig1.TURNS, "places_SAGE": 4}
    assert column.numbers["cosine_column"] == pytest.approx(1, abs=1e-12)
    assert [one.verdict for one in (equal, circle, column)] == ["holds", "does not hold", "holds in part"]


def test_the_step_descends_from_the_perturbed_weights():
    step = fig1.step("SAM")
    for i in range(2):
        gradient = fig1.H[i] * (fig1.W[i] + float(step.epsilon[i]))
        assert float(step.landed[i]) == pytest.approx(fig1.W[i] - fig1.LR * gradient)


def test_the_picture_shows_where_the_ascents_go():
    """SAM's lies on a circle, SAGE's on a square, to whose corner it points."""
    sam, sage = fig1.check(0, False).figure.axes
    assert [type(patch) for patch in sam.patches] == [Circle]
    assert [type(patch) for patch in sage.patches] == [Rectangle, Circle]
    for panel, method in ((sam, "SAM"), (sage, "SAGE")):
        found = fig1.step(method)
        arrow = next(text for text in panel.texts if text.get_text() == "")
        assert arrow.xy == pytest.approx([w + float(e) for w, e in zip(fig1.W, found.epsilon, strict=True)])
        (star,) = (line for line in panel.lines if line.get_marker() == "*")
        assert star.get_xydata()[0].tolist() == pytest.approx(found.landed.tolist())
    assert sage.patches[0].get_xy() == pytest.approx([w - fig1.RADIUS for w in fig1.W])


# Figure 2


def test_gradients_are_those_of_the_losses():
    at, h = generator(0, "points").uniform(-2, 2, (20, 2)), 1e-6
    for k in range(2):
        slopes = [
            (landscape.losses(at + h * unit)[k] - landscape.losses(at - h * unit)[k]) / (2 * h) for unit in np.eye(2)
        ]
        np.testing.assert_allclose(landscape.gradients(at)[k], np.stack(slopes, axis=-1), atol=1e-8)


def test_nothing_in_the_mean_loss_prefers_a_minimum():
    at = generator(0, "points").uniform(-2, 2, (20, 2))
    mean, mirrored = (sum(landscape.losses(points)) for points in (at, at * [-1, 1]))
    np.testing.assert_allclose(mean, mirrored, atol=1e-12)


def test_a_path_is_that_of_a_naive_loop():
    method, runs = landscape.Method("any", gamma=0.4, sigma=0.2, rho=0.1), 2
    path = landscape.paths([landscape.Method("still"), method], runs, generator(3, "path"))[:4, 1, 1]
    rng, theta = generator(3, "path"), landscape.START
    for there in path[1:]:
        g1, g2 = landscape.gradients(theta)
        beta = 0.2 + 0.4 * (1 - g1 @ g2 / np.linalg.norm(g1) / np.linalg.norm(g2))
        g = (g1 + g2) / 2
        g1, g2 = landscape.gradients(theta + 0.1 * g / np.linalg.norm(g))
        theta = theta - landscape.LR * ((g1 + g2) / 2 + beta * rng.standard_normal((runs, 2))[1])
        np.testing.assert_allclose(there, theta, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_which_minimum_is_reached(seed):
    """With 50 runs a share of one half has a standard error of 7 points: the bounds are four of them wide."""
    part = fig2.check(seed, quick=True)
    found = by_place(part.findings)
    numbers, most = found["Figure 2, ERM and SAM"].numbers, f"{fig2.SHOWN:g}"
    assert numbers["ends_ERM_0"] == numbers["ends_SAM_0"] == 0
    assert numbers[f"ends_SAGE_{most}"] > 0.9
    assert numbers["ends_SAGE_0.5"] < 0.1
    assert 0.22 < numbers[f"ends_SGLD_{most}"] < 0.78
    assert numbers[f"visits_SGLD_{most}"] > 0.9
    assert numbers[f"stays_SGLD_{most}"] < 0.3 < numbers[f"stays_SAGE_{most}"]
    assert found["Figure 2, ERM and SAM"].how.startswith("50 runs of 1500 steps")
    verdicts = [found[f"Figure 2, {name}"].verdict for name in ("ERM and SAM", "only gradient-aligned noise")]
    assert verdicts == ["holds", "holds in part"]


def test_two_domains_contradict_each_other_wherever_their_mean_rests():
    numbers = by_place([fig2._vanishing()])["Section 3.2, vanishing noise"].numbers
    assert numbers["S_A"] == pytest.approx(-1, abs=1e-6)
    assert numbers["S_B"] == pytest.approx(-1, abs=1e-6)
    assert numbers["S_beside_B"] > 0.9


def test_interval_is_wilsons():
    """Of 3 runs of 10, by the formula."""
    path = np.full((2, 10, 2), landscape.A)
    path[1, :3] = landscape.B
    share, z, p, n = fig2.share(path), 1.959964, 0.3, 10
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert share == pytest.approx((0.3, centre - half, centre + half, 0.3, 0.3), abs=1e-6)


def ends(**by_name):
    """Methods of the figure, and the share of the runs that end nearer to B: a number, or one for each noise."""
    every, shares = fig2.methods(), []
    for method in every:
        noises = [0.0] if method.name in ("ERM", "SAM") else list(fig2.NOISES)
        at = noises.index(max(method.gamma, method.sigma / 2))
        value = by_name.get(method.name, 0.0)
        end = value if isinstance(value, float) else value[at]
        shares.append(fig2.Share(end, end - 0.01, end + 0.02, 0.9, 0.4))
    return every, shares


def test_sgld_has_the_noise_of_sage_where_domains_are_opposed():
    """There S = -1, and β = 2 γ."""
    by_name = {name: [m for m in fig2.methods() if m.name == name] for name in ("SAGE", "SGLD")}
    assert [m.sigma for m in by_name["SGLD"]] == [2 * m.gamma for m in by_name["SAGE"]] == [1, 1.5, 2, 2.5, 3]
    shown = [(m.name, m.gamma, m.sigma) for m in fig2.methods() if fig2._is_shown(m)]
    assert shown == [("ERM", 0, 0), ("SAM", 0, 0), ("SAGE", 1.5, 0), ("SGLD", 0, 3)]


@pytest.mark.parametrize(
    ("still", "verdict"), [((0.0, 0.0), "holds"), ((0.0, 0.1), "does not hold"), ((0.1, 0.0), "does not hold")]
)
def test_both_methods_without_noise_have_to_end_at_a(still, verdict):
    found = fig2.findings(*ends(ERM=still[0], SAM=still[1]), runs=10)
    assert found[0].verdict == verdict


@pytest.mark.parametrize(
    ("shares", "verdict", "weak"),
    [((0.5,) * 5, "holds", "none"), ((0.3, 0.49, 0.5, 0.6, 1.0), "holds in part", "0.5, 0.75")],
)
def test_the_noise_that_is_too_weak_is_named(shares, verdict, weak):
    found = fig2.findings(*ends(SAGE=shares), runs=10)
    assert found[1].verdict == verdict
    assert f"at γ = {weak} fewer than half" in found[1].computed


def test_near_is_within_three_tenths():
    path = np.stack([np.tile(landscape.A, (3, 1)), landscape.B + np.array([[0.29, 0.0], [0.31, 0.0], [0.0, 2.0]])])
    share = fig2.share(path)
    assert (share.ends, share.visits, share.stays) == (1, pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_the_picture_of_shares_has_their_intervals():
    panel = Figure().subplots()
    fig2._shares(panel, *ends(SAGE=(0.1, 0.3, 0.5, 0.7, 0.9)))
    sage: Any = panel.containers[3]
    points, _, (bars,) = sage.lines
    assert points.get_ydata().tolist() == pytest.approx([10, 30, 50, 70, 90])
    assert [y for bar in bars.get_segments() for _, y in bar][:4] == pytest.approx([9, 12, 29, 32])


# The command


@pytest.fixture
def light(monkeypatch, tmp_path):
    """Few steps, and a place without records."""
    monkeypatch.setattr(landscape, "STEPS", 60)
    monkeypatch.setattr(fig4.trained, "__defaults__", (30,))
    monkeypatch.chdir(tmp_path)


def figures(folder, capsys, *options):
    assert main(["paper", "figures", "--quick", "--output_dir", str(folder), *options]) == 0
    return {path.name: path.read_bytes() for path in folder.iterdir()}, capsys.readouterr()


def test_the_same_seed_gives_the_same_bytes(light, tmp_path, capsys):
    first, _ = figures(tmp_path / "a", capsys, "--seed", "3")
    again, said = figures(tmp_path / "b", capsys, "--seed", "3", "--json")
    assert first == again
    assert {"figures.json", "figures.md", "figures.html", "fig1.png", "fig2.png", "fig4.png"} <= set(first)
    assert json.loads(said.out)["seed"] == 3
    other, _ = figures(tmp_path / "c", capsys, "--seed", "4")
    assert other["fig4.png"] != first["fig4.png"]
    assert other["fig2.png"] != first["fig2.png"]
