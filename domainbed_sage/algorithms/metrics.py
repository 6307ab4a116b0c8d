"""What an update may return."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from domainbed_sage.core.errors import UserError


def check_metrics(metrics: Any, name: str) -> None:
    """Make sure that an update, perhaps a plugin's, returned what can be logged.

    Raises:
        UserError: it did not.
    """
    if not isinstance(metrics, Mapping):
        raise UserError(f"{name}.update should return a dict of scalar tensors to log. Found {metrics!r}.")
    for key, value in metrics.items():
        if not (isinstance(key, str) and isinstance(value, Tensor) and value.numel() == 1):
            found = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise UserError(f"{name}.update should return scalar tensors to log. Found {key!r}: {found}.")
