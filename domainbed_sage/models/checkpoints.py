"""Reading weight files of three formats, and checking what is in them."""

import warnings
import zipfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from domainbed_sage.core.errors import UserError, raise_all
from domainbed_sage.core.files import digest

SUFFIXES = (".pt", ".safetensors", ".bin", ".pth")
FORMATS = "OpenAI's TorchScript archive (.pt), a PyTorch checkpoint (.pt, .bin, .pth), or .safetensors"
ARCHIVE_CONSTANTS = frozenset({"input_resolution", "context_length", "vocab_size"})
MOST_MISTAKES = 12

State = dict[str, Tensor]


def read(path: Path) -> State:
    """Tensors of a weight file by name, floating-point ones in float32, whatever the format.

    A checkpoint's ``state_dict`` is unwrapped, and so is the prefix ``module.`` of distributed training; the constants
    of OpenAI's archive are left out. No code stored in a file is run.

    Raises:
        UserError: the file is in none of the formats.
    """
    try:
        stored = _reader(path)(path)
    except Exception as error:  # a damaged file can break a reader in any way
        raise UserError(f"{path} cannot be read: {first_line(error)}. Allowed: {FORMATS}.") from error
    if isinstance(stored, Mapping) and isinstance(stored.get("state_dict"), Mapping):
        stored = stored["state_dict"]
    if not isinstance(stored, Mapping) or not stored or not all(isinstance(v, Tensor) for v in stored.values()):
        raise UserError(f"{path} holds no table of tensors. Allowed: {FORMATS}.")
    return {
        name.removeprefix("module."): value.float() if value.is_floating_point() else value
        for name, value in stored.items()
        if name not in ARCHIVE_CONSTANTS
    }


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, torch.Size], where: str) -> None:
    """Compare names and shapes.

    Raises:
        UserError: lists the tensors that are missing, unknown, or of another shape.
    """
    mistakes = [f"{name} ({_shape(size)}) is missing." for name, size in expected.items() if name not in found]
    mistakes += [
        f"{name} should be {_shape(expected[name])}. Found {_shape(tensor.shape)}."
        for name, tensor in found.items()
        if name in expected and tensor.shape != expected[name]
    ]
    mistakes += [f"{name} is not part of the model." for name in found if name not in expected]
    more = len(mistakes) - MOST_MISTAKES
    raise_all(mistakes[:MOST_MISTAKES] + ([f"… and {more} more."] if more > 0 else []), where)


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive, the format OpenAI publishes."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(member.endswith("/constants.pkl") for member in archive.namelist())


def sha256_of(path: Path) -> str:
    """Sha256 of a file, computed once as long as the file does not change."""
    stat = path.stat()
    return _sha256(path, stat.st_mtime_ns, stat.st_size)


def first_line(error: Exception) -> str:
    """First line of an error's message, or its kind when it has none, without the full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


@lru_cache(maxsize=64)
def _sha256(path: Path, changed_ns: int, size: int) -> str:
    del changed_ns, size
    return digest(path)


def _reader(path: Path) -> Callable[[Path], Any]:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file
    return _read_archive if is_archive(path) else _read_checkpoint


def _read_archive(path: Path) -> State:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.load.* is deprecated", FutureWarning)
        return dict(torch.jit.load(path, map_location="cpu").state_dict())


def _read_checkpoint(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _shape(size: torch.Size) -> str:
    return "×".join(map(str, size)) or "a single number"
