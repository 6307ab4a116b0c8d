"""Pickles of NumPy arrays, read so that they cannot do anything else than hold arrays."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.files import explained_reading

_REBUILD = np.empty(0).__reduce__()[0]  # how arrays are pickled by the protocols before 5, and since
_FROM_BUFFER: Any = np.empty(0).__reduce_ex__(5)[0]


def _latin1(text: str, encoding: str) -> bytes:
    """What pickles of Python 2's protocols call to turn text into the bytes of an array."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding}")
    return text.encode("latin1")


ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
    **{(f"{numpy}.multiarray", "_reconstruct"): _REBUILD for numpy in ("numpy.core", "numpy._core")},
    **{(f"{numpy}.numeric", "_frombuffer"): _FROM_BUFFER for numpy in ("numpy.core", "numpy._core")},
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} in it")
        return ALLOWED[module, name]


def load_arrays(path: Path) -> list[np.ndarray[Any, np.dtype[Any]]]:
    """The arrays of a pickled list or tuple.

    Raises:
        UserError: there is no such file, it is damaged, or it holds anything but arrays of numbers; nothing of it is
            then carried out.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}. It should be a pickle of NumPy arrays.")
    with explained_reading(path), path.open("rb") as file:
        try:
            found = _ArraysOnly(file).load()
        except OSError:
            raise
        except Exception as error:  # a damaged pickle can raise anything
            raise UserError(
                f"{path} should be a pickle of NumPy arrays and nothing else. Found {error}. Get it again; a file that "
                "holds code is not opened."
            ) from None
    if not isinstance(found, list | tuple) or not all(isinstance(a, np.ndarray) and a.dtype != object for a in found):
        raise UserError(f"{path} should be a list of NumPy arrays of numbers. Found {type(found).__name__}, or others.")
    return list(found)
