"""TorchScript archives, the format that OpenAI publishes CLIP in: their tensors are read, and no code of theirs is run.

Such an archive is a zip file. ``data.pkl`` holds the modules as objects with attributes; a tensor among them points to
its bytes in ``data/``. ``code/`` holds the source of every class, which PyTorch's own reader runs in part
(``__setstate__``) as it loads. Here two lists of names are taken from the source, the parameters and the buffers of a
class, and the unpickler allows nothing but what tensors are made of.
"""

import io
import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MOST_TENSORS = 100_000
_CLASS = re.compile(r"^class (\w+)\(\w+\):\n((?:  __\w+__ = \[.*\]\n)*)", re.MULTILINE)
_STATE = re.compile(r"  __(?:parameters|buffers)__ = \[(.*)\]")
_LONGEST_SOURCE = 1 << 24  # bytes
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_VALUES = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(member.endswith("/constants.pkl") for member in archive.namelist())
    except Exception:  # a damaged file can break a reader in any way
        return False


def read_archive(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of the stored module, by the names that PyTorch gives them, as they are stored.

    Raises:
        ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile, …: the archive is damaged, or holds what only
            running its code could restore.
    """
    with zipfile.ZipFile(path) as archive:
        (root,) = {name.removesuffix("constants.pkl") for name in archive.namelist() if name.endswith("/constants.pkl")}
        if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
            raise ValueError("its bytes are in an order that is not this machine's")
        module = _Objects(archive, root).load()
        found: dict[str, Tensor] = {}
        for name, tensor in _tensors(module, archive, root):
            found[name] = tensor
            if len(found) > MOST_TENSORS:
                raise ValueError(f"it holds more than {MOST_TENSORS:,} tensors")
        return found


class _Module:
    """A stored module: an object with attributes, whose class is known by name alone."""

    stored_as = ""

    def __setstate__(self, attributes: Any) -> None:
        if not isinstance(attributes, dict):
            raise pickle.UnpicklingError(f"only the code of {self.stored_as} could restore its state")
        self.attributes = attributes


class _Objects(pickle._Unpickler):  # in Python: the C one allocates as much memory as a damaged file asks for
    """Reads ``data.pkl`` with modules, tensors, numbers, strings, and lists, tuples and dictionaries of them."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(_stored(archive, root + "data.pkl")))
        self.archive, self.root = archive, root
        self.known: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor_v2"): _view,
            ("collections", "OrderedDict"): OrderedDict,
            ("torch", "device"): str,
            **{("torch", name): dtype for name, dtype in _DTYPES.items()},
            **{("torch.jit._pickle", name): lambda value, *tag: value for name in _VALUES},
        }

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle stands for; nothing is imported."""
        if module.split(".")[0] == "__torch__" and (module, name) not in self.known:
            self.known[module, name] = type(name, (_Module,), {"stored_as": f"{module}.{name}"})
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, of which no tensor is made")
        return self.known[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        """The storage that tensors are views of [number of elements]."""
        _, dtype, key, _, count = pid
        content = _stored(self.archive, f"{self.root}data/{key}")
        numbers = torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)
        if len(numbers) != count:
            raise pickle.UnpicklingError(f"data/{key} should hold {count} numbers. Found {len(numbers)}")
        return numbers


def _view(numbers: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> Tensor:
    del rest  # whether it was trained, and hooks
    if math.prod(size) > len(numbers):
        raise pickle.UnpicklingError(f"a tensor of shape {size} cannot be made of {len(numbers)} numbers")
    return numbers.as_strided(size, stride, offset)


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """A data entry as PyTorch writes it: not compressed, so never larger than the file."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, as PyTorch never does it")
    return archive.read(name)


def _tensors(module: Any, archive: zipfile.ZipFile, root: str) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and of those in it."""
    if not isinstance(module, _Module):
        raise ValueError("it holds no module")
    state = _state_names(module.stored_as, archive, root)
    for name, value in module.attributes.items():
        if isinstance(value, _Module):
            for inner, tensor in _tensors(value, archive, root):
                yield f"{name}.{inner}", tensor
        elif isinstance(value, Tensor) and name in state:
            yield name, value


def _state_names(stored_as: str, archive: zipfile.ZipFile, root: str) -> set[str]:
    """Names of the parameters and buffers of a class, from its source."""
    place, _, name = stored_as.rpartition(".")
    with archive.open(f"{root}code/{place.replace('.', '/')}.py") as file:
        source = file.read(_LONGEST_SOURCE).decode()
    lists = next((found[2] for found in _CLASS.finditer(source) if found[1] == name), "")
    return {text for names in _STATE.findall(lists) for text in re.findall(r'"([^"]*)"', names)}
