"""The random numbers of an update, by name, so that recorded ones can be put in their place."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Draws:
    """Draws from PyTorch's global generators, which the training loop seeds before every step.

    Every method takes the name of what is drawn: recordings keep the numbers of a method under that name.
    Tensors are drawn where they are needed; Python numbers on the CPU, so that nobody waits for a device.
    """

    def normal(self, name: str, like: Tensor) -> Tensor:
        """N(0, 1), of the shape of `like`."""
        del name
        return torch.randn_like(like)

    def uniform(self, name: str, like: Tensor) -> Tensor:
        """U(0, 1), of the shape of `like`."""
        del name
        return torch.rand_like(like)

    def beta(self, name: str, alpha: float, n: int) -> Sequence[float]:
        """n draws of Beta(α, α)."""
        del name
        concentration = torch.full((n,), alpha, dtype=torch.float64)
        return torch.distributions.Beta(concentration, concentration, validate_args=False).sample().tolist()

    def permutation(self, name: str, n: int) -> Sequence[int]:
        """The numbers 0 … n - 1 in random order."""
        del name
        return torch.randperm(n).tolist()

    def sort(self, name: str, values: Tensor) -> Tensor:
        """Positions [N] that sort `values` [N]; equal ones keep their order."""
        del name
        return torch.sort(values, stable=True).indices

    def within(self, name: str, sorted_groups: Tensor) -> Tensor:
        """Positions [N] that shuffle each group among itself, for ascending group numbers [N]."""
        del name
        return torch.argsort(sorted_groups + torch.rand_like(sorted_groups, dtype=torch.float64))
