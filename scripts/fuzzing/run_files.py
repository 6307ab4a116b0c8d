"""Files of a run, and of weights: each is read as it was written, or refused with one message.

Every check takes what its strategy draws: ``given(DAMAGES)(partial(check_checkpoint, whole))`` is a test of any length.
"""

import functools
import io
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from domainbed_sage.config import RunConfig, make_config
from domainbed_sage.core.errors import UserError
from domainbed_sage.models.checkpoints import read
from domainbed_sage.results import failures
from domainbed_sage.training import checkpoint, notes, ownership, run_folder, verify
from fuzzing.damage import DAMAGES, NUMBERS, TEXTS, VALUES, Damage, changed, damaged
from fuzzing.reader import Reader

T = TypeVar("T")
FILES = ("a.bin", "a.safetensors", "archive.pt", "legacy.pth")
CONFIG = make_config(
    dataset="EmojiStyles",
    algorithm="ERM",
    model="small_cnn",
    test_envs=[0],
    steps=6,
    checkpoint_freq=3,
    hparams={"width": 8, "batch_size": 2},
).model_dump(mode="json")


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal to the last bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def _in_file(content: bytes, name: str, call: Callable[[Path], T]) -> T:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        return call(path)


def check_checkpoint(whole: bytes, state: dict[str, Any], damage: Damage) -> None:
    """A sealed checkpoint is what was written, or damaged."""
    try:
        found = _in_file(damaged(whole, damage), "checkpoint.pt", checkpoint.read)
    except checkpoint.Damaged:
        return
    assert same(found, state)


def check_old_checkpoint(whole: bytes, damage: Damage) -> None:
    """One without a seal, as earlier versions wrote it, never stops a restart."""
    try:
        found = _in_file(damaged(whole, damage), "checkpoint.pt", checkpoint.read)
    except checkpoint.Damaged:
        return
    assert isinstance(found["step"], int)


def check_weights(whole: bytes, name: str, damage: Damage) -> None:
    """A weight file has tensors, or an explanation."""
    with suppress(UserError):
        found = _in_file(damaged(whole, damage), name, read)
        assert all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in found.items())


# Files of text


DESCRIPTIONS = TEXTS | st.builds(
    lambda key, value: json.dumps({**CONFIG, key: value}).encode(), st.sampled_from([*CONFIG, "other"]), VALUES
)
NOTES = TEXTS | st.dictionaries(st.sampled_from(["step", "steps", "seconds_per_step", "kind", "by"]), VALUES).map(
    lambda note: json.dumps(note).encode()
)
LONG = st.integers(0, 6000).map(lambda n: "7" * n)
DIGITS = st.integers(1, 10**12).map(str) | LONG | st.sampled_from(["", "-1", "٣"])
LOCKS = st.binary(max_size=100) | st.builds(
    lambda pid, host, restart, tail: f"process {pid} on {host} (job 7_1, start {restart}) [ab]{tail}".encode(),
    DIGITS,
    st.text(max_size=10),
    DIGITS,
    st.text(max_size=2000),
)


def check_description(content: bytes) -> None:
    """A run.json is a description, or refused."""
    with suppress(UserError):
        assert isinstance(_in_file(content, "run.json", run_folder.read_description), RunConfig)


def check_note(content: bytes) -> None:
    """A note is read as far as it makes sense: others format its numbers."""
    assert isinstance(_in_file(content, "progress.json", failures.read_note), dict)
    progress = _in_file(content, "progress.json", lambda path: notes.read_progress(path.parent))
    assert all(f"{number:.1f}" not in ("nan", "inf") and len(f"{number:.0f}") < 15 for number in progress.values())
    assert _in_file(content, "failed.json", lambda path: notes.failed_in(path.parent, "7_1")) in (True, False)


def check_lock(content: bytes) -> None:
    """A lock file names an owner, or nobody; nobody holds it, so whoever comes next has it."""

    def look(path: Path) -> ownership.Owner | None:
        owner = ownership.read(path)
        with ownership.owned(path) as mine:
            mine.check()
        return owner

    owner = _in_file(content, "lock", look)
    assert owner is None or (content.startswith(f"process {owner.pid} on {owner.host}".encode()) and owner.job == "7_1")


# Wholes to damage, made once


@functools.cache
def _checkpoints() -> tuple[bytes, bytes, dict[str, Any]]:
    """A sealed checkpoint, one without a seal, and the state in both."""
    torch.manual_seed(0)
    algorithm = {"model.weight": torch.randn(5, 7), "optimizer": {"state": {0: {"step": torch.tensor(4.0)}}}}
    state = {"step": 4, "algorithm": algorithm, "pending": {"loss": torch.ones(2)}, "best": 0.5, "recorded": 1}
    with tempfile.TemporaryDirectory() as folder:
        with Path(folder, "sealed.pt").open("wb") as file:
            checkpoint.write(file, state)
        old = io.BytesIO()
        torch.save(state, old)
        return Path(folder, "sealed.pt").read_bytes(), old.getvalue(), state


@functools.cache
def _weights() -> dict[str, bytes]:
    """Weight files of every format, by name."""
    torch.manual_seed(0)
    state = {"a.weight": torch.randn(5, 7), "a.bias": torch.randn(5).half()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        safetensors.torch.save_file(state, folder / "a.safetensors")
        torch.save({"state_dict": state, "epoch": 3}, folder / "a.bin")
        torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
        torch.jit.save(torch.jit.script(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))), folder / "archive.pt")
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def _read_checkpoint(damage: Damage, folder: Path) -> None:
    del folder
    sealed, old, state = _checkpoints()
    check_checkpoint(sealed, state, damage)
    check_old_checkpoint(old, damage)


def _read_weights(example: tuple[str, Damage], folder: Path) -> None:
    del folder
    name, damage = example
    check_weights(_weights()[name], name, damage)


def _read_no_weights(content: bytes, folder: Path) -> None:
    del folder
    for name in ("a.pt", "a.safetensors"):
        check_weights(content, name, Damage("append", "anywhere", 0.0, b""))


# Recordings


_METHODS: dict[str, dict[str, Any]] = {
    "ERM": {"lr": 0.1, "weight_decay": 0.0},
    "SAM": {"lr": 0.1, "rho": 0.1},
    "SAGE_quintic": {"lr": 0.1, "rho": 0.03, "gamma": 0.0},
    "Other": {"lr": 0.1},
}
_ORDER = ["featurizer.0.weight", "featurizer.0.bias", "classifier.weight", "classifier.bias"]
_SHAPES = {"x": (2, 2, 3, 4), "y": (2, 2, 3), **{f"{method}/params": (2, 46) for method in _METHODS}}
_SHAPES |= {f"{method}/loss": (2,) for method in _METHODS} | {"SAGE_quintic/agreement": (2,)}
_SHAPES |= dict(zip((f"init/{name}" for name in _ORDER), ((5, 4), (5,), (3, 5), (3,)), strict=True))
_DTYPES = ("<f8", "<f4", "<i8", "<U3", "?", "<c16", "<M8[s]")


def _recordings() -> st.SearchStrategy[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    info = changed({"hparams": _METHODS, "param_order": _ORDER}, VALUES | NUMBERS)
    shape = st.lists(st.integers(0, 5), max_size=4).map(tuple)
    odd = st.tuples(st.sampled_from(sorted(_SHAPES)), st.none() | shape, st.sampled_from(_DTYPES), st.integers(-2, 9))

    def make(info: dict[str, Any], odd: list[tuple[str, tuple[int, ...] | None, str, int]]) -> Any:
        arrays = {name: np.full(shape, 0.5 if name != "y" else 1) for name, shape in _SHAPES.items()}
        arrays["y"] = arrays["y"].astype(np.int64)
        for name, shape, dtype, value in odd:
            if shape is None:
                arrays.pop(name, None)
            else:
                arrays[name] = np.full(shape, value).astype(dtype)
        return info, arrays

    return st.builds(make, info, st.lists(odd, max_size=2))


def _read_recording(example: Any, folder: Path) -> None:
    (info, arrays), damage, text = example
    content = io.BytesIO()
    np.savez(content, **arrays)
    (folder / "r.npz").write_bytes(damaged(content.getvalue(), damage) if damage else content.getvalue())
    (folder / "r.json").write_bytes(json.dumps(info).encode() if text is None else text)
    deviations = verify.replay(folder / "r.npz")
    verify.report(deviations)
    assert [d.method for d in deviations] == list(info["hparams"]), "a recorded method was passed over"


def _rarely(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(*[st.none()] * 4, strategy)


READERS = (
    Reader("checkpoint", DAMAGES, _read_checkpoint),
    Reader(
        "weights",
        st.tuples(st.sampled_from(FILES), DAMAGES),
        _read_weights,
    ),
    Reader("no weights", TEXTS, _read_no_weights),
    Reader("run.json", DESCRIPTIONS, lambda content, _: check_description(content)),
    Reader("notes", NOTES, lambda content, _: check_note(content)),
    Reader("lock", LOCKS, lambda content, _: check_lock(content)),
    Reader("recording", st.tuples(_recordings(), _rarely(DAMAGES), _rarely(TEXTS)), _read_recording),
)
