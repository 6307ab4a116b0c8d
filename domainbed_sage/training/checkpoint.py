"""The file of a checkpoint: tensors, numbers, strings as `torch.save` writes them, and a seal over every byte of it.

The seal is a line at the end of the file, with the sha256 of all before it; PyTorch and zip tools ignore it. Being
in the same file, it is written atomically with it. The archive's own checksums are not enough: they cover the
tensors, and not the archive's directory, where one flipped bit can hide a tensor or turn it into another.
"""

import errno
import hashlib
import math
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from domainbed_sage.core.errors import UserError

_SEAL = re.compile(rb"\nsha256 ([0-9a-f]{64})\n")
_SEAL_SIZE = len(b"\nsha256 \n") + 64
_BLOCK = 1 << 20
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_PLAIN = "It may hold tensors, numbers, texts, and lists, tuples, sets and dictionaries of them."


class Damaged(Exception):  # noqa: N818 - a finding about a file
    """The file is not what was written; the message says why."""


class _Hashed:
    """A file to write to, and the sha256 of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.sha256.update(content)
        return self.file.write(content)

    def flush(self) -> None:
        self.file.flush()


def write(file: IO[bytes], state: Mapping[str, Any]) -> None:
    """Write a state and its seal to a new, named file.

    Raises:
        UserError: it holds something that could not be read back, or a number that is not finite.
    """
    check_finite(state.get("algorithm", {}))
    hashed = _Hashed(file)
    try:
        torch.save({**state, "sealed": True}, hashed)  # type: ignore[arg-type]  # all that torch.save asks of a file
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserError(f"The algorithm's state cannot be saved: {error}. {_PLAIN}") from error
    file.write(b"\nsha256 %s\n" % hashed.sha256.hexdigest().encode())
    file.flush()
    if unsafe := get_unsafe_globals_in_checkpoint(file.name):
        raise UserError(
            f"The algorithm's state holds {', '.join(sorted(unsafe))}, which no restart could read back. {_PLAIN}"
        )


def read(path: Path) -> dict[str, Any]:
    """Read a state, after verifying every byte of it.

    Files of earlier versions have no seal, only the archive's own checksums, which do not cover everything.

    Raises:
        Damaged: it is not what was written.
    """
    try:
        sealed = _is_sealed(path)
    except OSError as error:
        if error.errno == errno.EIO:  # a bad block of the disk
            raise Damaged(error.strerror) from error
        raise
    if not sealed:
        _check_archive(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if sealed or isinstance(error, MemoryError | torch.OutOfMemoryError):
            raise  # not the file's fault: too little memory, a device that is in trouble
        raise Damaged(_first_line(error)) from error
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise Damaged("it holds no state of a run")
    if state.pop("sealed", False) and not sealed:
        raise Damaged("its checksum is missing")
    return state


def check_finite(state: Any) -> None:
    """Make sure that a state is worth continuing from.

    The model may hold infinities, which serve as masks; its weights were checked before, by the training loop.

    Raises:
        UserError: a tensor of it is not finite; names it.
    """
    for name, tensor in _tensors(state):
        low, high = (float(end) for end in tensor.aminmax())  # NaN if one is; in one pass
        if math.isnan(low) or (math.inf in (-low, high) and not name.startswith("model.")):
            raise UserError(
                f"{name} in the algorithm's state is not finite, so no checkpoint was written. The records and the "
                f"checkpoint from before are kept. Try a lower learning rate or a smaller radius."
            )


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The floating-point tensors of a state, with their names in it."""
    if isinstance(state, Tensor):
        if state.dtype in _FLOATS and state.layout is torch.strided and state.numel():
            yield name, state
    elif isinstance(state, Mapping | list | tuple):
        for key, value in state.items() if isinstance(state, Mapping) else enumerate(state):
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


def _is_sealed(path: Path) -> bool:
    """Whether the file has a seal, which then has to be right."""
    with path.open("rb") as file:
        left = max(os.fstat(file.fileno()).st_size - _SEAL_SIZE, 0)
        file.seek(left)
        seal = _SEAL.fullmatch(file.read())
        if not seal:
            return False
        file.seek(0)
        sha256 = hashlib.sha256()
        while left and (block := file.read(min(left, _BLOCK))):
            sha256.update(block)
            left -= len(block)
    if sha256.hexdigest().encode() != seal[1]:
        raise Damaged("wrong checksum")
    return True


def _check_archive(path: Path) -> None:
    """Verify the archive's own checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()
    except MemoryError:
        raise
    except Exception as error:  # a damaged archive can break its reader in any way
        raise Damaged(_first_line(error)) from error
    if torn:
        raise Damaged(f"{torn} has a wrong checksum")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
