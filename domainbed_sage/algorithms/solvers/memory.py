"""What a solver remembers from one step to the next."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Memory:
    """Tensors, vectors and numbers, as attributes of a dataclass below it; a restart takes them up bit for bit."""

    def state_dict(self) -> dict[str, Any]:
        """The attributes by name; as in PyTorch, the tensors are not copied."""
        return dict(vars(self))

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned, tensors in place."""
        for name, now in vars(self).items():
            then = state[name]
            if isinstance(now, Tensor):
                now.copy_(then)
            elif isinstance(now, tuple):
                torch._foreach_copy_(list(now), list(then))
            else:
                setattr(self, name, then)
