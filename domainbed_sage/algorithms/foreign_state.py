"""What an object of unknown making needs to go on after a restart, as far as checkpoints hold it."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_PLAIN = (bool, int, float, str, type(None))


class Attributes:
    """The optimizers, schedulers, tensors, numbers, texts and plain containers among an object's attributes.

    Also those of objects among them, one level down, such as a moving average. Modules have a state of their own.
    """

    def __init__(self, thing: nn.Module) -> None:
        self.thing = thing

    def state_dict(self) -> dict[str, Any]:
        """Their states, by dotted names."""
        return {name: _state(value) for name, value in self._found()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the states back; what is a tensor or plain is replaced, optimizers and schedulers load theirs."""
        known = dict(self._found())
        for name, value in state.items():
            owner, _, attribute = name.rpartition(".")
            target = getattr(self.thing, owner) if owner else self.thing
            if isinstance(known.get(name), Optimizer | LRScheduler):
                known[name].load_state_dict(value)
            else:
                setattr(target, attribute, value)

    def _found(self) -> Iterator[tuple[str, Any]]:
        for name, value in _attributes(self.thing):
            if _keeps(value):
                yield name, value
            elif hasattr(value, "__dict__") and not isinstance(value, nn.Module | type) and not callable(value):
                yield from ((f"{name}.{inner}", v) for inner, v in _attributes(value) if _keeps(v))


def _attributes(thing: Any) -> list[tuple[str, Any]]:
    own = set(vars(nn.Module())) if isinstance(thing, nn.Module) else set()
    return [(name, value) for name, value in vars(thing).items() if name not in own]


def _state(value: Any) -> Any:
    return value.state_dict() if isinstance(value, Optimizer | LRScheduler) else value


def _keeps(value: Any) -> bool:
    if isinstance(value, list | tuple | set):
        return all(_keeps(v) for v in value)
    if isinstance(value, dict):
        return all(isinstance(k, str | int) and _keeps(v) for k, v in value.items())
    return isinstance(value, (*_PLAIN, Tensor, torch.Size, Optimizer, LRScheduler))
