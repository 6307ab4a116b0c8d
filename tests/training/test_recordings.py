"""What recorded methods are called here, that their random numbers are used in order, and what of them is compared."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from domainbed_sage.algorithms import algorithms
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import declared
from domainbed_sage.models.optimizers import optimizers
from domainbed_sage.training.recordings import RECORDINGS, RecordedDraws, Recording, load, recording
from domainbed_sage.training.verify import TOLERANCE, replay

GOLDENS = Path(__file__).parents[1] / "data" / "goldens.json"


def test_names():
    assert recording("SAGE_quintic5") == recording("SAGE+noise") == recording("SAGE") == Recording("SAGE")
    assert recording("SAGE_noorth_noscale") == Recording("SAGE")
    assert recording("GGA_L") == Recording("GGA_L")
    assert recording("GGA+noise") is RECORDINGS["GGA+noise"]
    assert recording("ERM+muon").fixed == {"muon_params": "matrices"}
    assert recording("MIRO") is recording("MIRO+noise") is None


def test_hyperparameters_by_our_names():
    recorded = {"lr": 0.1, "neighborhoodSize": 0.2, "start_step": 3, "end_step": 6, "search_steps": 8}
    row = recording("GGA+noise")
    assert row.hparams(recorded) == {"lr": 0.1, "radius": 0.2, "start": 3, "end": 6, "trials": 8, "random_walk": True}
    assert row.optimizer_name(recorded) == "adam"
    assert row.optimizer_name({"optimizer": "sgd"}) == "sgd"
    official = RECORDINGS["Fish+official"]
    assert official.optimizer_name({"amsgrad": True}) == "amsgrad"
    assert official.hparams({"amsgrad": True, "optimizer": "x", "meta_lr": 0.3}) == {"meta_lr": 0.3}


@pytest.mark.parametrize("method", [m for m in json.loads(GOLDENS.read_text())["hparams"] if recording(m)])
def test_every_hyperparameter_of_the_recordings_is_known(method):
    recorded, row = json.loads(GOLDENS.read_text())["hparams"][method], recording(method)
    ours = declared(algorithms[row.algorithm], optimizers[row.optimizer_name(recorded)])
    assert set(row.hparams(recorded)) - set(ours) == set()


def test_an_archive_that_would_run_code_is_refused(tmp_path):
    np.savez(tmp_path / "r.npz", x=np.array([{}], dtype=object))
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(UserError, match=r"should be a recording\. Found: Object arrays cannot be loaded"):
        load(tmp_path / "r.npz")


ARRAYS = {
    "M+noise/noise/xi": np.arange(12.0).reshape(2, 6),
    "M+noise/noise/lam": np.arange(6.0).reshape(2, 3),
    "M+noise/noise/perm": np.array([[2, 0, 1], [1, 2, 0]]),
    "M+noise/noise/order": np.array([[1, 0], [0, 1]]),
    "N/noise/xi": np.zeros((2, 6)),
}


def test_numbers_of_tensors_are_read_on_and_on():
    draws = RecordedDraws("M+noise", ARRAYS)
    shapes = [(2, 2), (2,), (3,), (3,)]
    drawn = [draws.normal("xi", torch.zeros(shape)) for shape in shapes]
    assert [tuple(t.shape) for t in drawn] == shapes
    assert torch.cat([t.flatten() for t in drawn]).tolist() == list(range(12))
    assert draws.uniform("lam", torch.zeros(2)).tolist() == [0, 1]
    assert draws.beta("lam", 0.2, 3) == [2, 3, 4]


def test_rows_of_permutations_come_one_after_the_other():
    draws = RecordedDraws("M+noise", ARRAYS)
    assert [draws.permutation("perm", 3) for _ in range(2)] == [[2, 0, 1], [1, 2, 0]]
    assert draws.sort("order", torch.zeros(2)).tolist() == [1, 0]
    assert draws.within("order", torch.zeros(2)).tolist() == [0, 1]


def test_what_was_not_recorded_is_drawn():
    draws, like = RecordedDraws("P", ARRAYS), torch.zeros(4)
    torch.manual_seed(3)
    drawn = draws.normal("xi", like), draws.uniform("xi", like)
    torch.manual_seed(3)
    assert all(torch.equal(*pair) for pair in zip(drawn, (torch.randn_like(like), torch.rand_like(like)), strict=True))
    assert sorted(draws.permutation("perm", 5)) == [0, 1, 2, 3, 4]
    assert len(draws.beta("lam", 1.0, 2)) == 2
    assert draws.sort("order", torch.tensor([1, 0])).tolist() == [1, 0]
    assert draws.within("order", torch.tensor([0, 1])).tolist() == [0, 1]


def test_a_variant_without_draws_of_its_own_uses_those_of_another():
    arrays = {"GGA+noise/noise/uniform": np.ones(3)}
    assert RecordedDraws("GGA+noise_centred", arrays).uniform("uniform", torch.zeros(3)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("key", ["nll", "penalty"])
@pytest.mark.parametrize("error", [1e-6, math.nan])
def test_the_worst_of_several_other_metrics_counts(tmp_path, key, error):
    """Of VREx, which reports two, as the authors' own code recorded them."""
    recorded, info = np.load(GOLDENS.with_suffix(".npz")), json.loads(GOLDENS.read_text())
    arrays = {name: recorded[name] for name in recorded.files if name.split("/")[0] in ("x", "y", "init", "VREx")}
    (tmp_path / "r.json").write_text(json.dumps(info | {"hparams": {"VREx": info["hparams"]["VREx"]}}))
    np.savez(tmp_path / "r.npz", **arrays)
    (before,) = replay(tmp_path / "r.npz")
    assert before.others < TOLERANCE
    arrays[f"VREx/{key}"][1] *= 1 + error
    np.savez(tmp_path / "r.npz", **arrays)
    (after,) = replay(tmp_path / "r.npz")
    assert after.others == pytest.approx(error, rel=1e-3, nan_ok=True)
    assert after.worst == (math.inf if math.isnan(error) else after.others)
