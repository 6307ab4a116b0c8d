"""Looks of methods: distinct and visible on white and dark pages, also for the colour-blind; the order of the table."""

import itertools

import numpy as np
import pytest
from reference import sweep_folder

from domainbed_sage.results import expected, tables
from domainbed_sage.results.folder import load_records
from domainbed_sage.results.looks import DISTINCT, looks, order

LABELS = [f"method {at}" for at in range(40)]
PAGES = {"colour": "#ffffff", "on_dark": "#14171a"}
SIGHT = {  # linear RGB as seen; Machado, Oliveira and Fernandes, 2009, severity 1
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
CONES = np.array([[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]])
OKLAB = np.array([[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]])


def linear(colour):
    srgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def oklab(rgb):
    """Ottosson's perceptual colour space, from linear RGB."""
    return OKLAB @ np.cbrt(CONES @ rgb)


@pytest.mark.parametrize("theme", PAGES)
def test_contrast_with_the_page(theme):
    """The ratio that WCAG 2 asks of graphics, 3:1."""
    for look in looks(LABELS).values():
        weights = [0.2126, 0.7152, 0.0722]
        low, high = sorted(float(linear(colour) @ weights) for colour in (getattr(look, theme), PAGES[theme]))
        assert (high + 0.05) / (low + 0.05) >= 3


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("theme", PAGES)
def test_colours_are_told_apart(theme, sight):
    """0.02 is a just noticeable difference of large areas."""
    colours = {getattr(look, theme) for look in looks(LABELS).values()}
    seen = [oklab(np.clip(SIGHT[sight] @ linear(colour), 0, 1)) for colour in colours]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 0.06


def test_looks_do_not_repeat_for_thirty_methods():
    found = list(looks(LABELS[:DISTINCT]).values())
    assert DISTINCT >= 30
    for theme in PAGES:
        assert len({(getattr(look, theme), look.dash) for look in found}) == DISTINCT
        assert len({(getattr(look, theme), look.marker) for look in found}) == DISTINCT
    assert looks(LABELS)[LABELS[DISTINCT]] == found[0]


def test_order_is_that_of_the_table(tmp_path):
    """As planned; a row of which nothing is planned comes last. Without a plan, ERM is first."""
    for label in ("sam", "ERM", "SAGE", "GGA"):
        sweep_folder.write_flat(tmp_path, [0.5, 0.6], algorithm=label)
    records = load_records(tmp_path).records
    names = expected.environment_names(records, (), {})
    plan = [("PACS", label, env, 0) for label in ("SAGE", "sam", "GAM") for env in (0, 1)]
    for keys, rows in (
        (plan, ["SAGE", "sam", "GAM", "ERM", "GGA"]),
        (expected.every_combination(records, names), ["ERM", "GGA", "SAGE", "sam"]),
    ):
        assert order(keys, records) == rows
        assert list(tables.build(records, "oracle", expected=keys, labels={}).averages.cells.index) == rows
