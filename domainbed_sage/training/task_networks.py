"""The networks, tasks and minibatches of multi-task recordings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed_sage.data.batch import TaskBatch
from domainbed_sage.models.multitask import MultiTaskModel
from domainbed_sage.tasks import Depth, Normals, SceneTask, Segmentation
from domainbed_sage.training.recordings import Arrays


@dataclass(frozen=True)
class _Loss:
    """A loss for one output."""

    loss: Callable[[Tensor, Tensor], Tensor]
    name: str = "loss"
    channels: int = 0
    activation: str = "none"


class _Perceptron(MultiTaskModel):
    """Two layers that all tasks share, and one for each; its parameters have the names of the recordings."""

    def __init__(self, tasks: list[_Loss], init: Mapping[str, Tensor]) -> None:
        super().__init__(tasks, (0, 0, 0))
        matrices = {name.removesuffix(".weight"): W for name, W in init.items() if W.ndim > 1}
        layers = {name: nn.Linear(W.shape[1], W.shape[0]) for name, W in matrices.items()}
        self.trunk = nn.Sequential(layers["trunk.0"], nn.ReLU(), layers["trunk.2"], nn.ReLU())
        self.heads_ = nn.ModuleList(layers[f"heads.{k}"] for k in range(len(tasks)))

    def raw(self, x: Tensor) -> list[Tensor]:
        """See `MultiTaskModel.raw`."""
        z = self.trunk(x)
        return [head(z) for head in self.heads_]


class _SmallMTAN(MultiTaskModel):
    """Two convolutions that all tasks share, an attention module and an output for each."""

    def __init__(self, tasks: list[SceneTask], init: Mapping[str, Tensor]) -> None:
        super().__init__(tasks, (3, 5, 6))
        self.conv1, self.conv2 = (self._block(init[f"conv{i}.0.weight"], 1, nn.ReLU()) for i in (1, 2))
        self.att = nn.ModuleList(self._block(init[f"att.{k}.0.weight"], 0, nn.Sigmoid()) for k in range(len(tasks)))
        for k in range(1, len(tasks) + 1):
            self.add_module(f"pred_task{k}", self._conv(init[f"pred_task{k}.weight"], 0))

    @staticmethod
    def _conv(W: Tensor, padding: int) -> nn.Conv2d:
        return nn.Conv2d(W.shape[1], W.shape[0], W.shape[2], padding=padding)

    def _block(self, W: Tensor, padding: int, activation: nn.Module) -> nn.Sequential:
        return nn.Sequential(self._conv(W, padding), nn.BatchNorm2d(W.shape[0]), activation)

    def raw(self, x: Tensor) -> list[Tensor]:
        """See `MultiTaskModel.raw`."""
        z = self.conv2(self.conv1(x))
        return [self.get_submodule(f"pred_task{k}")(z * att(z)) for k, att in enumerate(self.att, start=1)]


class Case:
    """What a recording trains on.

    Args:
        info: its description.
        arrays: its numbers.

    Attributes:
        tasks: the losses.
        network: with the recorded weights.
        heads: for each task, names of the parameters of its head, as these codes take it.
    """

    def __init__(self, info: Mapping[str, Any], arrays: Arrays) -> None:
        self.arrays = arrays
        names = [*info["param_order"], *info.get("buffer_order", [])]
        init = {name: torch.tensor(arrays[f"init/{name}"]) for name in names}
        self.scenes = "image" in arrays
        self.tasks: list[Any] = self._scene_tasks(init) if self.scenes else self._losses()
        cls: Any = _SmallMTAN if self.scenes else _Perceptron
        self.network: MultiTaskModel = cls(self.tasks, init).double()
        ours = {name.replace("heads_.", "heads."): t for name, t in self.network.state_dict().items()}
        for name, t in init.items():
            ours[name].copy_(t)
        if self.scenes:
            self.heads = self.network.heads(self.network.code_shared)
        else:
            self.heads = [[f"heads_.{k}.weight", f"heads_.{k}.bias"] for k in range(len(self.tasks))]

    def _scene_tasks(self, init: Mapping[str, Tensor]) -> list[SceneTask]:
        tasks: list[SceneTask] = [Segmentation(len(init["pred_task1.bias"])), Depth(), Normals()]
        return tasks[: 2 + ("normal" in self.arrays)]

    def _losses(self) -> list[_Loss]:
        return [_Loss(F.mse_loss if y.is_floating_point() else F.cross_entropy) for y in self.batch(0).targets]

    def batch(self, t: int) -> TaskBatch:
        """The minibatch of step t."""
        if self.scenes:
            names = ("image", "label", "depth", "normal")
            x, *targets = (torch.tensor(self.arrays[name][t]) for name in names if name in self.arrays)
            return TaskBatch(x, tuple(targets))
        if "y" in self.arrays:
            targets = list(torch.tensor(self.arrays["y"][t]).unbind(1))
        else:
            targets = [torch.tensor(self.arrays[name][t]) for name in ("y0", "y1", "y2") if name in self.arrays]
        return TaskBatch(torch.tensor(self.arrays["x"][t]), tuple(targets))
