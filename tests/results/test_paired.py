"""Pairs of a table's rows: equality with loops over its numbers, in a sweep full of gaps."""

import math
import zlib

import numpy as np
import pytest
from reference import sweep_folder
from report_cases import grow

import domainbed_sage as dg
from domainbed_sage.results.paired import Pairs


def is_kept(dataset, method, env, trial):
    """About two of three runs, and no run of SAGE on VLCS."""
    return (dataset, method) != ("VLCS", "SAGE") and zlib.crc32(f"{dataset}{method}{env}{trial}".encode()) % 3 > 0


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return dg.table(grow(tmp_path_factory.mktemp("gaps"), trials=4, keep=is_kept))


@pytest.fixture(scope="module")
def accuracies(table):
    columns = ["algorithm", "dataset", "env", "trial_seed", "test_acc"]
    return {row[:4]: 100 * row[4] for row in table.results[columns].itertuples(index=False, name=None)}


def mean(numbers):
    return sum(numbers) / len(numbers) if numbers else math.nan


@pytest.mark.parametrize(("row", "reference"), [("SAGE", "ERM"), ("ERM", "SAGE"), ("SAM", "SAGE")])
def test_equals_loops(table, accuracies, row, reference):
    paired = Pairs(table).of(row, reference)
    ours, theirs = ({key[1:] for key in accuracies if key[0] == name} for name in (row, reference))
    points = {key: accuracies[row, *key] - accuracies[reference, *key] for key in ours & theirs}
    assert 0 < len(points) < len(ours | theirs)
    places = [(paired.datasets[d], e, paired.trials[t]) for d, t, e in paired.places.tolist()]
    assert sorted(places) == sorted(ours | theirs)
    assert {key for key, common in zip(places, paired.is_common, strict=True) if common} == set(points)
    for at, dataset in enumerate(paired.datasets):
        own = {key[1:]: value for key, value in points.items() if key[0] == dataset}
        by_trial = [mean([value for (_, t), value in own.items() if t == trial]) for trial in paired.trials]
        by_env = [
            mean([value for (e, _), value in own.items() if e == env]) for env in range(paired.by_environment.shape[1])
        ]
        np.testing.assert_allclose(paired.by_trial[at], by_trial, rtol=1e-12)
        np.testing.assert_allclose(paired.by_environment[at], by_env, rtol=1e-12)


def test_a_dataset_without_a_common_triple_stays_as_nan(table):
    paired = Pairs(table).of("SAGE", "ERM")
    assert paired.datasets == ("OfficeHome", "PACS", "VLCS")
    assert np.isnan(paired.by_trial).all(axis=1).tolist() == [False, False, True]


def test_nothing_in_common(tmp_path):
    for trial, method in enumerate(("ERM", "SAM")):
        sweep_folder.write_flat(tmp_path, [0.5, 0.6], algorithm=method, trial=trial)
    paired = Pairs(dg.table(tmp_path)).of("SAM", "ERM")
    assert (len(paired.points), int(paired.is_common.sum())) == (4, 0)
    assert np.isnan(paired.by_trial).all()
    assert np.isnan(paired.by_environment).all()
