"""FLOPs and memory of the PyTorch operations inside a block."""

import weakref
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten
CPU_ATTENTION = {  # PyTorch's counter knows the fused attention of CUDA, not that of a CPU
    aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda g, q, k, v, *_, **__: sdpa_backward_flop_count(g, q, k, v)
    ),
}
SIXTEEN_BITS = (torch.bfloat16, torch.float16)
FORMULAS = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION).flop_registry


class Tally(TorchDispatchMode):
    """FLOPs of the operations inside the block, and bytes of the tensors made there while they live.

    Attributes:
        flops: since the start.
        low: those of them whose operands have 16 bits.
        live: bytes alive now.
        trace: bytes alive at the start and after each allocation.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live, self.known = 0, set[int]()
        self.restart()

    def restart(self) -> int:
        """Restart the counts from the bytes alive now, which are returned."""
        self.flops, self.low, self.trace = 0, 0, [self.live]
        return self.live

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation; note its FLOPs and the new memory among its results."""
        kwargs = kwargs or {}
        if _is_composite(func):  # as in inference mode
            with self:
                return func.decompose(*args, **kwargs)
        results = func(*args, **kwargs)
        if formula := FORMULAS.get(func.overloadpacket):
            found = formula(*args, **kwargs, out_val=results)
            self.flops += found
            self.low += found if any(isinstance(t, Tensor) and t.dtype in SIXTEEN_BITS for t in args) else 0
        found = (t for t in (results if isinstance(results, list | tuple) else (results,)) if isinstance(t, Tensor))
        if new := [t.untyped_storage() for t in found if t.untyped_storage()._cdata not in self.known]:
            given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
            for storage in new:
                self._enter(storage, given)
        return results

    def _enter(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        """Note a storage, unless it is an input's, or was noted as that of a result before."""
        address, size = storage._cdata, storage.nbytes()
        if address in given or address in self.known:
            return
        self.known.add(address)
        self.live += size
        self.trace.append(self.live)
        weakref.finalize(storage, self._leave, address, size)

    def _leave(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.live -= size


@cache
def _is_composite(func: Any) -> bool:
    return func.namespace == "aten" and bool(func._can_decompose())
