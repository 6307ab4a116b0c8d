"""Fine-tuning of CLIP with a margin from the text, ending in a Beta moving average."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.averages import Average, beta_weight, check_averaged
from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.batch import DomainBatch


@register("CLIPood")
class CLIPood(Algorithm):
    """Cross-entropy of s (f - λ t_y) · t_c for features f and text features t_c of length 1; the t_c stay fixed.

    As t_y · t_y = 1, this adds a margin s λ (1 - t_y · t_c) to the logit of every class c: the less a class's text is
    like the label's, the farther behind it has to be. The learning rate falls as a cosine. The run ends in the mean of
    the weights after t = 0 … T steps, weighted by the density of Beta(β, β) at (t + ½) / (T + 1). With λ = 0 and a
    constant schedule it is `BetaAverage` around ERM with a fixed classifier.

    Source: Shu et al., ICML 2023, Eq. 3 to 6; thuml/CLIPood `engine.py`.

    Args:
        problem: see `Problem`.
        temperature: s, the scale of the logits; CLIP's is 100.
        lam: λ, weight of the margin.
        beta: β of the average.
        schedule: of the learning rate: ``cosine`` from the optimiser's own at the first step towards 0 at T, or
            ``constant``.

    Differences from the paper: none. The rows of the classifier, made from the names of the classes, are the t_c; no
    other part of it counts, and it is never trained, whatever the model says. Evaluation is the model's own: on CLIP
    that has the same argmax. Intermediate records are of the weights of that step, the last one of the average.
    The authors' optimiser is AdamW (``optimizer: adamw``), with a learning rate of 5e-6 and a weight decay of 0.1; the
    latter is the default here.
    """

    paper = "Shu et al., ICML 2023"
    recommended: ClassVar[Mapping[str, Any]] = {"weight_decay": 0.1}

    def __init__(
        self,
        problem: Problem,
        *,
        temperature: Annotated[float, Field(gt=0)] = 100.0,
        lam: float = 0.3,
        beta: Annotated[float, Field(gt=0)] = 0.5,
        schedule: Literal["cosine", "constant"] = "cosine",
    ) -> None:
        super().__init__(problem)
        if not problem.model.class_features:
            raise UserError(
                "CLIPood needs a classifier whose rows are text features of the classes. Found another one. Use the "
                'model clip_vit_b16 with the hyperparameter {"head": "zero_shot"}.'
            )
        check_averaged(self.name, (self.model,))
        self.temperature, self.lam, self.beta, self.schedule = temperature, lam, beta, schedule
        self.params = tuple(p for p in self.model.featurizer.parameters() if p.requires_grad)
        self.optimizer = problem.make_optimizer(self.params)
        self.lr = [group["lr"] for group in self.optimizer.param_groups]
        self.average = self.kept["average"] = Average(self.params)
        self.average.add(self.params, beta_weight(0, problem.steps, beta))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean of the rows' loss with margin []."""
        text = self.model.classifier.get_parameter("weight").detach()
        return margin_loss(self.features(x), text, y, self.lam, self.temperature)

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        T = max(self.problem.steps, self.step + 1)
        share = (1 + math.cos(math.pi * self.step / T)) / 2 if self.schedule == "cosine" else 1.0
        for group, lr in zip(self.optimizer.param_groups, self.lr, strict=True):
            group["lr"] = lr * share
        loss, g = self.gradient(batch)
        self.descend(g)
        weight = beta_weight(self.step + 1, T, self.beta)
        self.average.add(self.params, weight)
        return {"loss": loss, "lr": loss.new_full((), self.lr[0] * share), "weight": loss.new_full((), weight)}

    def finish(self) -> str:
        """See `Algorithm.finish`: the average."""
        self.average.copy_to(self.params)
        return f"Beta moving average of steps 0 … {self.step + 1}"


def margin_loss(image: Tensor, text: Tensor, y: Tensor, lam: float, temperature: float) -> Tensor:
    """The margin metric softmax, in the mean over the rows [].

    Args:
        image: features of the rows [N, D], of any length.
        text: features of the classes [C, D], of any length.
        y: labels [N].
        lam: weight λ of the margin.
        temperature: scale s of the logits.
    """
    f, t = F.normalize(image, dim=1), F.normalize(text, dim=1)
    return F.cross_entropy(temperature * (f - lam * t[y]) @ t.T, y)
