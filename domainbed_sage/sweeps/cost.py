"""What a training step costs, before it is run: FLOPs and memory by algorithm, model, K and batch.

With N rows of K domains, P bytes of weights, and a forward and backward pass of f FLOPs per image that needs A(n) bytes
for n images (activations, and its gradient as far as it is there at the fullest moment):

    FLOPs = passes * N * f + other                      other: matrix products beside the passes, SAGE's polar factors
    bytes = (1 + s) P + max over moments of (A(share * N) + v P)

s is 2 for Adam, 0 or 1 for SGD; passes, other, and the moments (share, v) are each algorithm's own:

    algorithm          passes          other                moments (share of N, vectors held)
    ERM                1               0                    (1, 0)
    SAM, DISAM         2               0                    (1, 1)
    SAGM               2               0                    (1, 2)
    GGA                1 (search: 252) 0                    (1/K, K + 1), (1, 0)
    GGA_L              1               0                    (1/K, K - 1)
    SAGE               2               see `polar_flops`    (1/K, K - 1), (0, 3), (1, 1)

f and A(n) are counted once per model by passes without arithmetic, on PyTorch's meta device and with fake tensors.
Elementwise work is not in f, nor in the library's count that `tests/sweeps/test_cost.py` holds this against. Networks
whose layers mix samples (BatchNorm with batch statistics) need a joint graph and K backward passes for domain
gradients; more than is counted. Nor are the copies that stack matrices of one shape on a GPU (0.8 GB at most), and the
first step's check of the perturbation.
"""

import copy
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from domainbed_sage.algorithms import Algorithm, algorithms
from domainbed_sage.config import RunConfig
from domainbed_sage.data.specs import datasets
from domainbed_sage.models import Model, build_model, models
from domainbed_sage.models.optimizers import optimizers

FEWEST_ROWS = 2  # BatchNorm takes no fewer


@dataclass(frozen=True)
class StepCost:
    """Cost of one training step, averaged over the run.

    Attributes:
        flops: of all passes and of the matrix products beside them.
        pass_flops: of one forward and backward pass over one image.
        peak_bytes: the most memory it needs, weights and optimiser state included, in float32; without the work space
            of the math libraries and the caching of the allocator.
    """

    flops: float
    pass_flops: float
    peak_bytes: float


def step_cost(run: RunConfig) -> StepCost:
    """Cost of a step of this run, averaged over its steps; see this file's formulas."""
    spec, optimizer = models[run.model], optimizers[run.optimizer]
    counted = _count(run.model, _frozen({**run.of(spec.build), **spec.blank}), datasets[run.dataset].num_classes)
    state = _state_vectors(run.optimizer, _frozen(run.of(optimizer)))
    passes = algorithms[run.algorithm].passes(run.steps, run.hparams) / run.steps
    sizes = [run.hparams["batch_size"]] * len(run.source_envs)
    return cost_of(algorithms[run.algorithm], run.hparams, counted, sizes, passes, state)


@dataclass(frozen=True)
class PassCount:
    """A forward and backward pass of a model.

    Attributes:
        flops: per image.
        weights: bytes of the trainable parameters.
        shapes: of the trainable parameters.
        peak: bytes that a pass over so many images allocates at its fullest.
    """

    flops: float
    weights: int
    shapes: tuple[torch.Size, ...]
    peak: Callable[[int], int]


def cost_of(
    algorithm: type[Algorithm],
    hparams: Mapping[str, Any],
    counted: PassCount,
    sizes: Sequence[int],
    passes: float,
    state_vectors: float,
) -> StepCost:
    """Cost of a step of `passes` passes over K domains of these sizes, with an optimiser's state of so many vectors."""
    rows, K = sum(sizes), len(sizes)
    moments = [
        counted.peak(max(sizes) if 0 < share < 1 else round(share * rows)) + v * counted.weights
        for share, v in algorithm.fullest_moments(K)
    ]
    return StepCost(
        passes * rows * counted.flops + algorithm.other_flops(counted.shapes, hparams),
        counted.flops,
        counted.weights * (1 + state_vectors) + max(moments),
    )


@lru_cache(maxsize=64)
def _count(model: str, hparams: tuple[tuple[str, Any], ...], classes: int) -> PassCount:
    with torch.device("meta"):
        network = build_model(model, [f"class {i}" for i in range(classes)], dict(hparams))
    return count_pass(network)


def count_pass(network: Model) -> PassCount:
    """Count the passes of a model that is on the meta device.

    The operations are counted there, where attention is plain matrix products; memory with pretended CPU tensors, for
    which PyTorch takes the fused attention that a GPU has too.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    pretended, copied = FakeTensorMode(allow_non_fake_inputs=True), copy.deepcopy(network)
    with pretended:
        copied.to_empty(device="cpu")

    @lru_cache(maxsize=64)
    def peak(rows: int) -> int:
        with pretended, LiveBytes() as live:
            if rows:
                _run_pass(copied, max(rows, FEWEST_ROWS), "cpu")
        return live.peak

    with FlopCounterMode(display=False) as counter:
        _run_pass(network, FEWEST_ROWS, "meta")
    shapes = tuple(p.shape for p in trained)
    return PassCount(counter.get_total_flops() / FEWEST_ROWS, sum(p.nbytes for p in trained), shapes, peak)


def _run_pass(network: Model, rows: int, device: str) -> None:
    params = [p for p in network.parameters() if p.requires_grad]
    x = torch.empty(rows, 3, network.image.size, network.image.size, device=device)
    loss = F.cross_entropy(network(x), torch.empty(rows, dtype=torch.long, device=device))
    torch.autograd.grad(loss, params, allow_unused=True)


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors made inside the block: those alive now, and the most at any time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and note the new memory among its results."""
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        results = func(*args, **(kwargs or {}))
        for t in tree_leaves(results):
            if isinstance(t, Tensor) and t.untyped_storage()._cdata not in given | self.known:
                self._enter(t.untyped_storage())
        return results

    def _enter(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        self.known.add(address)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._leave, address, size)

    def _leave(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.now -= size


@lru_cache(maxsize=16)
def _state_vectors(optimizer: str, hparams: tuple[tuple[str, Any], ...]) -> float:
    """Size of an optimiser's state in units of the weights."""
    p = torch.nn.Parameter(torch.zeros(1000))
    p.grad = torch.zeros(1000)
    made = optimizers[optimizer]([p], **dict(hparams))
    made.step()
    return sum(t.numel() for t in made.state[p].values() if isinstance(t, Tensor)) // 1000


def _frozen(hparams: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(hparams.items()))
