"""Replaying recordings: of any size, right and wrong ones, and files that are no recording."""

import json

import numpy as np
import pytest
import torch
from algorithm_cases import one_thread, weights
from reference.literals import LITERALS
from torch import nn

from domainbed_sage import cli
from domainbed_sage.core.errors import UserError
from domainbed_sage.models import ImageSpec, Model
from domainbed_sage.training.verify import TOLERANCE, Deviation, known_as, replay, report

ADAM = {"lr": 0.02, "weight_decay": 0.01}

# Recorded under this name, with these hyperparameters; SAGE's noise is not recorded, so gamma is 0.
RECORDED = {
    "ERM": {},
    "SAM": {"rho": 0.1},
    "SAGM": {"rho": 0.1, "alpha": 0.01},
    "DISAM": {"rho": 0.1, "lambda_weight": 0.2},
    "GGA": {"radius": 0.0, "start": 0, "end": 2, "trials": 2, "tolerance": 0.1},
    "GGA_L": {"gamma": 0.0},
    "SAGE_quintic": {"rho": 0.03, "gamma": 0.0},
    "SAGE_cubic": {"rho": 0.03, "gamma": 0.0, "ns": "cubic", "ns_steps": 12},
}


def network(inputs, width, classes, depth):
    torch.manual_seed(0)
    layers = [nn.Linear(inputs, width)]
    for _ in range(depth - 1):
        layers += [nn.ReLU(), nn.Linear(width, width)]
    return Model(nn.Sequential(*layers), nn.Linear(width, classes), ImageSpec(0, (0, 0, 0), (1, 1, 1))).double()


def record(folder, methods=RECORDED, *, K=2, B=4, inputs=5, classes=3, steps=3, width=7, depth=2):
    """Write a recording made by the literal references, and return its path."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(steps, K, B, inputs)), rng.integers(classes, size=(steps, K, B))
    arrays = {"x": x, "y": y}
    for name, p in network(inputs, width, classes, depth).named_parameters():
        arrays[f"init/{name}"] = p.detach().numpy()
    for method, hparams in methods.items():
        model = network(inputs, width, classes, depth)
        optimizer = torch.optim.Adam(model.parameters(), **ADAM)
        params, metrics = [], []
        for t in range(steps):
            domains = [(torch.from_numpy(x[t, k]), torch.from_numpy(y[t, k])) for k in range(K)]
            metrics.append(LITERALS[known_as(method)](model, optimizer, domains, t, **hparams))
            params.append(weights(model).numpy())
        arrays[f"{method}/params"] = np.stack(params)
        for key in {"loss", "agreement"} & metrics[0].keys():
            arrays[f"{method}/{key}"] = np.array([float(m[key]) for m in metrics])
    info = {"hparams": {m: h | ADAM for m, h in methods.items()}}
    info["param_order"] = [name for name, _ in network(inputs, width, classes, depth).named_parameters()]
    write(folder / "r.npz", arrays, info)
    return folder / "r.npz"


def write(path, arrays, info):
    np.savez(path, **arrays)
    path.with_suffix(".json").write_text(json.dumps(info))


def read(path):
    return dict(np.load(path)), json.loads(path.with_suffix(".json").read_text())


@one_thread()
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"K": 1, "B": 3, "steps": 1},
        {"K": 5, "B": 1, "inputs": 3, "classes": 2, "width": 4},
        {"K": 3, "B": 8, "inputs": 12, "classes": 9, "steps": 5, "width": 20, "depth": 4},
        {"depth": 1},
    ],
    ids=str,
)
def test_recording_of_any_size(tmp_path, sizes):
    deviations = replay(record(tmp_path, **sizes))
    assert [d.method for d in deviations] == list(RECORDED)
    for d in deviations:
        assert d.worst <= TOLERANCE
        assert d.free <= TOLERANCE
    assert {d.method for d in deviations if d.agreement is not None} == {"GGA_L", "SAGE_quintic", "SAGE_cubic"}


@pytest.mark.parametrize("depth", [1, 2])
def test_svd_repeats_where_every_gradient_has_full_rank(tmp_path, depth):
    """More classes than features and many rows: there the polar factor is unique, on every machine."""
    svd = {"SAGE_svd": {"rho": 0.03, "gamma": 0.0, "ns": "svd"}}
    path = record(tmp_path, svd, K=3, B=12, inputs=4, classes=9, width=4, steps=4, depth=depth)
    (deviation,) = replay(path)
    assert deviation.worst <= TOLERANCE
    assert deviation.free <= TOLERANCE


@pytest.mark.parametrize("array", ["SAM/params", "SAM/loss"])
def test_deviation_is_relative_and_the_largest_over_the_steps(tmp_path, array):
    """An error of 2e-9 of the largest number of one step of three."""
    path = record(tmp_path, {"SAM": {"rho": 0.1}})
    arrays, info = read(path)
    step = arrays[array][1:2].reshape(-1)
    step[np.abs(step).argmax()] *= 1 + 2e-9
    write(path, arrays, info)
    (deviation,) = replay(path)
    assert deviation.worst == pytest.approx(2e-9, rel=1e-4)


@one_thread()
@pytest.mark.parametrize(
    ("array", "index"),
    [("SAM/params", (1, 3)), ("SAM/loss", (2,)), ("SAGE_quintic/agreement", (0,)), ("ERM/params", (2, -1))],
)
@pytest.mark.parametrize("error", [1e-6, np.nan])
def test_one_wrong_number_is_found(tmp_path, capsys, array, index, error):
    methods = {m: RECORDED[m] for m in ("ERM", "SAM", "SAGE_quintic")}
    path = record(tmp_path, methods)
    arrays, info = read(path)
    arrays[array][index] += error
    write(path, arrays, info)
    assert cli.main(["verify", str(path)]) == 1
    verdicts = {line.split()[0]: line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]}
    wrong = array.split("/")[0]
    assert verdicts == {m: "DIFFERS" if m == wrong else "ok" for m in methods}


@one_thread()
@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("SAM", {"rho": 0.1001}),
        ("DISAM", {"lambda_weight": 0.0}),
        ("SAGM", {"alpha": 0.0}),
        ("SAGE_quintic", {"ns_steps": 4}),
        ("SAGE_cubic", {"ns": "quintic"}),
        ("SAGE_quintic", {"gamma": 1e-3}),
        ("ERM", {"weight_decay": 0.0}),
    ],
)
def test_another_formula_is_found(tmp_path, method, wrong):
    path = record(tmp_path, {method: RECORDED[method]})
    arrays, info = read(path)
    info["hparams"][method] |= wrong
    write(path, arrays, info)
    text, ok = report(replay(path))
    assert not ok
    assert "DIFFERS" in text


@one_thread()
def test_right_recording_exits_with_0(tmp_path, capsys):
    assert cli.main(["verify", str(record(tmp_path))]) == 0
    assert "DIFFERS" not in capsys.readouterr().out


def test_method_of_another_suite_is_named_and_does_not_count(tmp_path):
    path = record(tmp_path, {"ERM": {}})
    arrays, info = read(path)
    info["hparams"]["MIRO"] = {"lr": 1.0}
    write(path, arrays, info)
    deviations = replay(path)
    assert deviations[1] == Deviation("MIRO")
    text, ok = report(deviations)
    assert ok
    assert text.splitlines()[-1].split()[-4:] == ["not", "in", "this", "suite"]


def test_rounding_is_that_of_domains_summed_in_another_order(tmp_path):
    (deviation,) = replay(record(tmp_path, {"ERM": {}}, K=5))
    assert 0 < deviation.rounding < 1e-11


def test_worst_counts_steps_and_not_the_free_run():
    assert Deviation("SAGE_svd", params=1e-16, loss=3e-16, agreement=2e-16, free=0.1).worst == 3e-16
    assert Deviation("SAM", params=1e-16, loss=float("nan")).worst == float("inf")
    assert Deviation("SAM", params=1e-16, others=2e-3).worst == 2e-3
    text, ok = report([Deviation("MIRO"), Deviation("VREx")])
    assert not ok
    assert text.endswith("The recording has no method of this suite, so nothing was verified.")
    assert report([Deviation("SAM", params=TOLERANCE)])[1]
    assert not report([Deviation("SAM", params=1.01 * TOLERANCE)])[1]


def test_missing_files_are_named(tmp_path, capsys):
    with pytest.raises(UserError, match=r"r\.npz does not exist.* description X\.json"):
        replay(tmp_path / "r.npz")
    record(tmp_path, {"ERM": {}}).with_suffix(".json").unlink()
    assert cli.main(["verify", str(tmp_path / "r.npz")]) == 2
    assert "r.json does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("array", ["x", "y", "init/classifier.bias", "SAM/params"])
def test_missing_array_is_named(tmp_path, array):
    path = record(tmp_path, {"SAM": {"rho": 0.1}})
    arrays, info = read(path)
    del arrays[array]
    write(path, arrays, info)
    with pytest.raises(UserError, match=rf"Missing in it: {array}\."):
        replay(path)


@pytest.mark.parametrize("key", ["hparams", "param_order"])
def test_missing_description_is_named(tmp_path, key):
    path = record(tmp_path, {"ERM": {}})
    arrays, info = read(path)
    del info[key]
    write(path, arrays, info)
    with pytest.raises(UserError, match=rf"Missing in it: .*{key}"):
        replay(path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04torn"])
def test_file_that_is_no_archive(tmp_path, content):
    path = record(tmp_path, {"ERM": {}})
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"r\.npz and r\.json should be a recording\. Found: "):
        replay(path)


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_description_that_is_no_json_object(tmp_path, content):
    path = record(tmp_path, {"ERM": {}})
    path.with_suffix(".json").write_text(content)
    with pytest.raises(UserError, match=r"r\.npz and r\.json should be a recording\. Found: "):
        replay(path)


@pytest.mark.parametrize("hparams", [{"rho": -1.0}, {"radius": 0.1}, {"lr": "fast"}])
def test_impossible_hyperparameter_is_named(tmp_path, hparams):
    path = record(tmp_path, {"SAM": {"rho": 0.1}})
    arrays, info = read(path)
    info["hparams"]["SAM"] |= hparams
    write(path, arrays, info)
    with pytest.raises(UserError, match=repr(next(iter(hparams)))):
        replay(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hparams": None}, r"hparams should be hyperparameters by method\. Found None"),
        ({"hparams": {"SAM": 3}}, r"hparams should be hyperparameters by method\. Found \{'SAM': 3\}"),
        ({"param_order": 7}, r"param_order should be a list of names\. Found 7"),
        ({"param_order": [["x"]]}, r"param_order should be a list of names"),
        ({"param_order": []}, r"param_order should be classifier\.weight, classifier\.bias, for example\. Found \[\]"),
        ({"param_order": ["a.weight", "a.bias"]}, r"param_order should be classifier\.weight, classifier\.bias, for"),
    ],
)
def test_description_of_the_wrong_types(tmp_path, change, message):
    path = record(tmp_path, {"SAM": {"rho": 0.1}})
    arrays, info = read(path)
    write(path, arrays, info | change)
    with pytest.raises(UserError, match=message):
        replay(path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("x", lambda a: a[0], r"x should have the sizes \[T, K, B, d\]\. Found \(2, 4, 5\)"),
        ("x", lambda a: a[:0], r"x should have the sizes \[T, K, B, d\]\. Found \(0, 2, 4, 5\)"),
        ("x", lambda a: a.astype("f4"), r"x should be of float64 .* Found float32"),
        ("y", lambda a: a + 1, r"y should be classes from 0 to 2, int64 \(3, 2, 4\)"),
        ("y", lambda a: a - 1, r"y should be classes from 0 to 2"),
        ("y", lambda a: a.astype("f8"), r"y should be classes from 0 to 2, .* Found float64"),
        ("y", lambda a: a[:2], r"y should be classes from 0 to 2, int64 \(3, 2, 4\)\. Found int64 \(2, 2, 4\)"),
        (
            "SAM/params",
            lambda a: a[:2],
            r"SAM/params should be of float64 and the sizes \(3, 122\)\. Found float64 \(2,",
        ),
        ("SAM/params", lambda a: a[:, 1:], r"SAM/params should be of float64 and the sizes \(3, 122\)"),
        ("SAM/loss", lambda a: a[:2], r"SAM/loss should be of float64 and the sizes \(3,\)"),
        ("init/classifier.bias", lambda a: a[:2], r"init/classifier\.bias should be of float64 and the sizes \(3,\)"),
        ("init/classifier.weight", lambda a: a[:, 1:], r"init/classifier\.weight should be .* the sizes \(3, 7\)"),
        ("init/featurizer.0.weight", lambda a: a[0, 0], r"init/featurizer\.0\.weight should be"),
        ("init/featurizer.2.weight", lambda a: a.astype("U3"), r"init/featurizer\.2\.weight should be of float64"),
    ],
)
def test_arrays_that_do_not_fit_together(tmp_path, name, change, message):
    path = record(tmp_path, {"SAM": {"rho": 0.1}})
    arrays, info = read(path)
    write(path, arrays | {name: change(arrays[name])}, info)
    with pytest.raises(UserError, match=message):
        replay(path)
