"""Reading weight files of three formats, whatever they are wrapped in, and checking what is in them."""

import argparse
import logging
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from domainbed_sage.core.errors import UserError, raise_all
from domainbed_sage.core.files import digest
from domainbed_sage.models.archive import is_archive, read_archive

log = logging.getLogger(__name__)

SUFFIXES = (".pt", ".safetensors", ".bin", ".pth", ".pkl")
FORMATS = "OpenAI's TorchScript archive (.pt), a PyTorch checkpoint (.pt, .bin, .pth, .pkl), or .safetensors"
WRAPPERS = ("state_dict", "model_state_dict", "model", "model_dict")  # the last as in DomainBed's model.pkl, and ours
ARCHIVE_CONSTANTS = frozenset({"input_resolution", "context_length", "vocab_size"})
MOST_MISTAKES = 12
DEEPEST = 10  # nested tables; a damaged file may contain itself
_COMPILED = re.compile(r"\b_orig_mod\.")
_REFUSED = re.compile(r"GLOBAL (\S+) was not an allowed global")
# Plain data that training scripts save beside the weights, and that runs nothing when it is read: argparse's options,
# and NumPy's numbers, under their names of NumPy 1 and 2.
_PLAIN: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.bool_, np.int32, np.int64, np.float32, np.float64)),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]

State = dict[str, Tensor]

__all__ = ["FORMATS", "SUFFIXES", "State", "check_tensors", "first_line", "is_archive", "read", "sha256_of"]


def read(path: Path) -> State:
    """Tensors of a weight file by name, floating-point ones in float32, whatever the format.

    A checkpoint's table of weights is taken out of what it is wrapped in (`WRAPPERS`), and the prefixes of distributed
    training (``module.``) and compilation (``_orig_mod.``) are removed; the constants of OpenAI's archive are left
    out. No code stored in a file is run.

    Raises:
        UserError: the file is in none of the formats, or holds objects that only its code could restore.
    """
    try:
        return _table(_reader(path)(path), path)
    except UserError:
        raise
    except Exception as error:  # a damaged file can break a reader in any way
        raise UserError(_unreadable(path, error)) from error


def _table(stored: Any, path: Path) -> State:
    """The table of weights in what a reader found."""
    table, way = stored, list[str]()
    while isinstance(table, Mapping) and len(way) < DEEPEST and (key := _wrapper(table)):
        table, way = table[key], [*way, key]
    if not isinstance(table, Mapping) or not table or not all(isinstance(v, Tensor) for v in table.values()):
        raise UserError(f"{path} holds no table of tensors{_contents(table)}. Allowed: {FORMATS}.")
    if way:
        entries = ", ".join(map(str, stored))
        log.info("%s: took the %d tensors in %s, of its entries %s.", path, len(table), " / ".join(way), entries)
    found = {name: tensor for name, tensor in table.items() if name not in ARCHIVE_CONSTANTS}
    state = {
        _COMPILED.sub("", str(name)).removeprefix("module."): value.float() if value.is_floating_point() else value
        for name, value in found.items()
    }
    if len(state) < len(found):
        raise UserError(f"{path} holds tensors whose names differ in 'module.' or '_orig_mod.' alone. Save one set.")
    return state


def _wrapper(table: Mapping[Any, Any]) -> str | None:
    """The entry that holds the table of weights, if this is not the table itself."""
    return next((key for key in WRAPPERS if isinstance(table.get(key), Mapping)), None)


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


def sha256_of(path: Path) -> str:
    """Sha256 of a file, cached until the file changes."""
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
    return read_archive if is_archive(path) else _read_checkpoint


def _read_checkpoint(path: Path) -> Any:
    with torch.serialization.safe_globals(_PLAIN):
        return torch.load(path, map_location="cpu", weights_only=True)


def _unreadable(path: Path, error: Exception) -> str:
    if refused := _REFUSED.search(str(error)):
        return (
            f"{path} cannot be read: it holds {refused[1]}, which only running code could restore. Save its tensors "
            f"alone, where that code is at home: torch.save(model.state_dict(), 'weights.pt')."
        )
    return f"{path} cannot be read: {first_line(error)}. Allowed: {FORMATS}."


def _contents(found: Any) -> str:
    """What was found in place of a table of tensors."""
    if not isinstance(found, Mapping) or not found:
        return f", but {'nothing' if isinstance(found, Mapping) else 'a ' + type(found).__name__}"
    return f" alone, but {', '.join(f'{key} ({type(value).__name__})' for key, value in list(found.items())[:6])}"


def _shape(size: torch.Size) -> str:
    return "×".join(map(str, size)) or "a single number"
