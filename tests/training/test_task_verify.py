"""Multi-task updates repeat what was recorded from their authors' codes, and what is wrong is seen."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from domainbed_sage.cli import main
from domainbed_sage.core.errors import UserError
from domainbed_sage.training.replays.files import verify
from domainbed_sage.training.task_verify import TaskDeviation, _relative, replay_tasks, report_tasks
from domainbed_sage.training.verify import TOLERANCE

DATA = Path(__file__).parents[1] / "data" / "mtl"
FILES = {
    "trajectories_k2": 69,
    "trajectories_k3": 64,
    "trajectories_fmtl_multimnist": 12,
    "trajectories_conv_k2": 17,
    "trajectories_conv_k3": 17,
}


def recording(name):
    return json.loads((DATA / f"{name}.json").read_text()), dict(np.load(DATA / f"{name}.npz"))


@pytest.mark.parametrize(("name", "methods"), FILES.items())
def test_every_update_is_the_recorded_one(name, methods):
    found = replay_tasks(*recording(name))
    assert len(found) == methods
    assert {d.method: d for d in found if d.close and not max(d.worst, d.params) <= TOLERANCE} == {}
    assert all((d.running is not None) == ("conv" in name) for d in found)


def test_where_the_recorded_solver_stops_early_an_exact_one_takes_its_place():
    """Every such row of the networks with an «@exact» twin is repeated by that one."""
    for name in ("trajectories_k2", "trajectories_k3"):
        found = {d.method: d for d in replay_tasks(*recording(name))}
        early = {method for method, d in found.items() if not d.close}
        assert early
        assert all(found[f"{method}@exact"].worst <= 1e-10 for method in early if f"{method}@exact" in found)
        assert {method for method in early if f"{method}@exact" not in found} <= {"F-CAGrad@adaptive"}


def test_the_command(capsys):
    assert main(["verify", str(DATA / "trajectories_k2.npz")]) == 0
    out = capsys.readouterr().out
    assert "DIFFERS" not in out
    assert "its solver stops early, see CAGrad@exact" in out
    assert out.count("  ok") + out.count("its solver stops early") == FILES["trajectories_k2"]


@pytest.fixture
def damaged(tmp_path):
    def write(change):
        info, arrays = recording("trajectories_k2")
        keep = {"SAGE-LS", "UW"}
        info["hparams"] = {name: h for name, h in info["hparams"].items() if name in keep}
        arrays = {k: a for k, a in arrays.items() if "/" not in k or k.split("/")[0] in {"init", *keep}}
        change(info, arrays)
        (tmp_path / "x.json").write_text(json.dumps(info))
        np.savez(tmp_path / "x.npz", **arrays)
        return tmp_path / "x.npz"

    return write


def test_statistics_that_another_pass_moves_are_seen():
    info, arrays = recording("trajectories_conv_k2")
    info["hparams"] = {"SAGE-LS": info["hparams"]["SAGE-LS"]}
    arrays["SAGE-LS/running"][-1] *= 1 + 1e-7
    (found,) = replay_tasks(info, arrays)
    assert found.gradient <= TOLERANCE < found.worst


@pytest.mark.parametrize("key", ["SAGE-LS/gradient", "SAGE-LS/agreement", "SAGE-LS/noise", "UW/gradient"])
def test_a_small_change_is_seen(damaged, key):
    def change(info, arrays):
        arrays[key][-1] *= 1 + 1e-7

    text, ok = verify(damaged(change))
    assert not ok
    assert [line.split()[0] for line in text.splitlines() if "DIFFERS" in line] == [key.split("/")[0]]


def test_no_number_is_worse_than_any():
    one = TaskDeviation("SAGE-LS", gradient=1e-12, params=1.0, agreement=math.nan, running=None, close=True)
    assert one.worst == math.inf
    assert replace(one, agreement=2e-12).worst == 2e-12, "Adam makes motion of rounding: the weights do not count"


def test_only_who_stops_early_is_referred_to_an_exact_twin():
    row = TaskDeviation("CAGrad", 1e-3, 0.0, None, None, close=False)
    rows = [row, replace(row, method="CAGrad@exact", gradient=0.0, close=True)]
    for close, said in ((False, "its solver stops early, see CAGrad@exact"), (True, "DIFFERS")):
        text, ok = report_tasks([replace(row, close=close), rows[1]], TOLERANCE)
        assert text.splitlines()[1].endswith(said)
        assert ok != close


def test_a_deviation_is_relative_to_the_largest_number_of_its_step():
    recorded = np.array([[1e3, 1.0], [1e-3, 0.0]])
    assert _relative(recorded + np.array([[0.0, 1.0], [0.0, 2e-6]]), recorded) == pytest.approx(2e-3)


def test_what_was_recorded_in_half_precision_is_not_compared():
    info, arrays = recording("trajectories_k2")
    hparams = info["hparams"]["UW"]
    info["hparams"] = {"UW": hparams, "UW@prototype_bf16": hparams}
    assert [one.method for one in replay_tasks(info, arrays)] == ["UW"]


def test_numbers_that_are_none_differ(damaged):
    def change(info, arrays):
        arrays["init/trunk.0.weight"][:] = np.nan

    assert not verify(damaged(change))[1]


@pytest.mark.parametrize("key", ["x", "init/heads.1.bias", "SAGE-LS/params"])
def test_what_is_missing_is_named(damaged, key):
    with pytest.raises(UserError, match=rf"(?s)should be a recording of multi-task.*{key.split('/')[-1]}"):
        verify(damaged(lambda info, arrays: arrays.pop(key)))
