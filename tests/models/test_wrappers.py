"""Weight files as they lie around: what their tables of weights are wrapped in, and what stands before the names."""

import argparse
import logging
import re

import numpy as np
import pytest
import torch
from torch import nn

from domainbed_sage.core.errors import UserError
from domainbed_sage.models.checkpoints import read

STATE = {"conv.weight": torch.randn(2, 3), "conv.bias": torch.randn(2), "fc.weight": torch.randn(5, 2)}


def stored(content, path):
    torch.save(content, path)
    return path


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "optimizer": {}, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"state_dict": state, "best_acc": np.float64(0.5), "n": np.int64(3)},
        lambda state: {"epoch": 1, "model_state_dict": state},
        lambda state: {"model": {"state_dict": state}, "config": {"model": "resnet"}},
        lambda state: prefixed(state, "module."),
        lambda state: prefixed(state, "_orig_mod."),
        lambda state: prefixed(state, "module._orig_mod."),
        lambda state: {"model": prefixed(state, "_orig_mod.module.")},
    ],
)
def test_wrappers_and_prefixes(tmp_path, wrap):
    found = read(stored(wrap(STATE), tmp_path / "a.pt"))
    assert list(found) == list(STATE)
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())


def test_what_was_taken_is_told(tmp_path, caplog):
    path = stored({"epoch": 3, "model": {"state_dict": STATE}}, tmp_path / "a.pt")
    with caplog.at_level(logging.INFO):
        read(path)
    assert f"{path}: took the 3 tensors in model / state_dict, of its entries epoch, model." in caplog.text


def test_a_compiled_part(tmp_path):
    found = read(
        stored({"visual._orig_mod.proj": torch.zeros(1), "text_orig_mod.x": torch.zeros(1)}, tmp_path / "a.pt")
    )
    assert list(found) == ["visual.proj", "text_orig_mod.x"]


def test_two_sets_of_the_same_names(tmp_path):
    path = stored({"a": torch.zeros(1), "module.a": torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"names differ in 'module\.' or '_orig_mod\.' alone"):
        read(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"epoch": 3, "weights": {}}, r"alone, but epoch \(int\), weights \(dict\)"),
        ({"state_dict": {"a": torch.zeros(1), "b": 2}}, r"alone, but a \(Tensor\), b \(int\)"),
        ([torch.zeros(1)], "but a list"),
        ({}, "but nothing"),
    ],
)
def test_no_table_of_tensors(tmp_path, content, found):
    with pytest.raises(UserError, match=rf"^\S+a\.pt holds no table of tensors.*{found}"):
        read(stored(content, tmp_path / "a.pt"))


class Ema(nn.Linear):
    """Of a project that is not installed here."""


def test_an_object_is_named(tmp_path):
    path = stored({"model": STATE, "ema": Ema(2, 2)}, tmp_path / "a.pt")
    with pytest.raises(
        UserError, match=r"it holds test_wrappers\.Ema, which only running code could restore\. Save its"
    ):
        read(path)


@pytest.mark.parametrize("name", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numbers_of_numpy(tmp_path, name):
    """Hyperparameters in DomainBed's model.pkl, where they were drawn; NumPy 2 calls its parts by other names."""
    content = {"model_dict": STATE, "model_hparams": {"resnet_dropout": np.float64(0.1), "fixed": np.bool_(True)}}
    torch.save(content, tmp_path / "model.pkl", _use_new_zipfile_serialization=False)
    pickled = re.sub(rb"numpy\._?core\.multiarray", name, (tmp_path / "model.pkl").read_bytes())
    assert name in pickled
    (tmp_path / "model.pkl").write_bytes(pickled)
    assert list(read(tmp_path / "model.pkl")) == list(STATE)


def test_a_table_that_holds_itself(tmp_path):
    content = {"epoch": 3}
    content["model"] = content
    with pytest.raises(UserError, match=r"holds no table of tensors alone, but epoch \(int\), model \(dict\)"):
        read(stored(content, tmp_path / "a.pt"))
