"""Damaged and invented files of a run, and of weights: each is read as it was written, or refused with one message.

Every check takes what its strategy draws: ``given(DAMAGES)(partial(check_checkpoint, whole))`` is a test of any length.
"""

import json
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from helpers import small_config
from hypothesis import strategies as st
from torch import Tensor

from domainbed_sage.config import RunConfig
from domainbed_sage.core.errors import UserError
from domainbed_sage.models.checkpoints import read
from domainbed_sage.training import checkpoint, notes, ownership, run_folder

CONFIG = small_config().model_dump(mode="json")
PLACES = ("anywhere", "head", "directory", "end", "seal")


# Damage to a file that was whole


@dataclass(frozen=True)
class Damage:
    """What happened to a file: its kind, where (a region of a zip file, and how far into it), and with what."""

    kind: str
    place: str
    at: float
    content: bytes


DAMAGES = st.builds(
    Damage,
    st.sampled_from(["flip", "flip", "flip", "zeros", "overwrite", "cut", "append", "drop", "repeat"]),
    st.sampled_from(PLACES),
    st.floats(0, 1, exclude_max=True),
    st.binary(min_size=1, max_size=100),
)


def region(content, place):
    """First and last byte of a region; places that a file does not have are anywhere in it."""
    directory, end = content.find(b"PK\x01\x02"), content.rfind(b"PK\x05\x06")
    regions = {
        "head": (0, min(200, len(content))),
        "directory": (directory, end),
        "end": (end, len(content)),
        "seal": (content.rfind(b"\nsha256 "), len(content)),
    }
    first, last = regions.get(place, (0, len(content)))
    return (first, last) if 0 <= first < last else (0, len(content))


def damaged(content, damage):
    """The content after the damage."""
    first, last = region(content, damage.place)
    at = first + int(damage.at * (last - first))
    size = len(damage.content)
    if damage.kind == "flip":
        middle, rest = bytes([content[at] ^ (1 << damage.content[0] % 8)]), content[at + 1 :]
    else:
        middle, rest = {
            "zeros": (bytes(len(content[at : at + 40 * size])), content[at + 40 * size :]),
            "overwrite": (damage.content, content[at + size :]),
            "cut": (b"", b""),
            "append": (content[at:] + damage.content, b""),
            "drop": (b"", content[at + size :]),
            "repeat": (content[at : at + size] * 2, content[at + size :]),
        }[damage.kind]
    return content[:at] + middle + rest


def same(a, b):
    """Whether two states are equal to the last bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def _in_file(content, name, call):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        return call(path)


def check_checkpoint(whole, state, damage):
    """A sealed checkpoint is what was written, or damaged."""
    try:
        found = _in_file(damaged(whole, damage), "checkpoint.pt", checkpoint.read)
    except checkpoint.Damaged:
        return
    assert same(found, state)


def check_old_checkpoint(whole, damage):
    """One without a seal, as earlier versions wrote it, never stops a restart."""
    try:
        found = _in_file(damaged(whole, damage), "checkpoint.pt", checkpoint.read)
    except checkpoint.Damaged:
        return
    assert isinstance(found["step"], int)


def check_weights(whole, name, damage):
    """A weight file has tensors, or an explanation."""
    with suppress(UserError):
        found = _in_file(damaged(whole, damage), name, read)
        assert all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in found.items())


# Files of text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
DEEP = st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b'{"step": ' + b"9" * 4000 + b"}"])
TEXTS = VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=50) | DEEP
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


def check_description(content):
    """A run.json is a description, or refused."""
    with suppress(UserError):
        assert isinstance(_in_file(content, "run.json", run_folder.read_description), RunConfig)


def check_note(content):
    """A note is read as far as it makes sense: others format its numbers."""
    assert isinstance(_in_file(content, "progress.json", notes.read_note), dict)
    progress = _in_file(content, "progress.json", lambda path: notes.read_progress(path.parent))
    assert all(f"{number:.1f}" not in ("nan", "inf") and len(f"{number:.0f}") < 15 for number in progress.values())
    assert _in_file(content, "failed.json", lambda path: notes.failed_in(path.parent, "7_1")) in (True, False)


def check_lock(content):
    """A lock file names an owner, or nobody; nobody holds it, so whoever comes next has it."""

    def look(path):
        owner = ownership.read(path)
        with ownership.owned(path) as mine:
            mine.check()
        return owner

    owner = _in_file(content, "lock", look)
    assert owner is None or (content.startswith(f"process {owner.pid} on {owner.host}".encode()) and owner.job == "7_1")
