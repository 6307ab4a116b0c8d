"""Domain-adversarial networks: DANN, and its class-conditional form CDANN."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Choice, Power
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.vectors import Vector
from domainbed_sage.models.optimizers import LearningRate, WeightDecay

# Hyperparameters of both, with DomainBed's search ranges.
LambdaWeight = Annotated[float, Field(ge=0), Power(10, -2, 2)]
Steps = Annotated[int, Field(ge=1), Power(2, 0, 3, integer=True)]
GradPenalty = Annotated[float, Field(ge=0), Power(10, -2, 1)]
Width = Annotated[int, Field(ge=1), Power(2, 6, 10, integer=True)]
Depth = Annotated[int, Field(ge=2), Choice(3, 4, 5)]
Dropout = Annotated[float, Field(ge=0, lt=1), Choice(0.0, 0.1, 0.5)]


class Discriminator(nn.Module):
    """Logits of the domain [N, K] of features [N, D]: `depth` linear layers, with dropout and ReLU between them."""

    def __init__(self, features: int, num_domains: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.input = nn.Linear(features, width)
        self.hiddens = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 2))
        self.output = nn.Linear(width, num_domains)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        for layer in (self.input, *self.hiddens):
            x = F.relu(self.dropout(layer(x)))
        return self.output(x)


@register("DANN")
class DANN(Algorithm):
    """The network minimises the loss minus λ times that of a discriminator, which tells the domains by the features.

    The two take turns: of every 1 + d steps, d train the discriminator alone, to minimise its cross-entropy plus
    `grad_penalty` times the mean squared length of the gradient of a row's cross-entropy with respect to its features;
    the first generator step is step 0 when d = 1, step d - 1 in general. So with d = 1 only every other step trains the
    network. `loss` is that of whoever was trained. With λ = 0, or one domain, the generator steps are ERM.

    Source: Ganin et al., JMLR 2016; DomainBed `algorithms.py`, class DANN.

    Args:
        problem: see `Problem`.
        lambda_weight: weight λ of the adversarial term (`lambda` in DomainBed).
        d_steps_per_g_step: discriminator steps d for each step of the network.
        grad_penalty: weight of the gradient penalty. It acts on features as they are: CLIP's have length 1 here, and
            about 10 with ``normalize_features`` False, where the same discriminator has gradients of another scale.
        lr_d: learning rate of the discriminator. It does not follow the network's: DomainBed has 5e-5 for both, and
            CLIP's network learns at 1e-6 here.
        weight_decay_d: weight decay of the discriminator.
        mlp_width: width of its hidden layers.
        mlp_depth: number of its linear layers.
        mlp_dropout: its dropout.

    The network's learning rate, weight decay and betas are the optimizer's own; beta1 = 0.5 and beta2 = 0.9 are its
    defaults here, and the discriminator's optimizer shares them. (DomainBed's search draws beta1 from 0 and 0.5.)

    Differences from the paper: alternating steps instead of gradient reversal, as in DomainBed. Differences from public
    codes: a discriminator step makes no backward pass through the featurizer, whose gradients nobody reads.
    """

    paper = "Ganin et al., JMLR 2016"
    recommended: ClassVar = {"beta1": 0.5, "beta2": 0.9}

    def __init__(
        self,
        problem: Problem,
        *,
        lambda_weight: LambdaWeight = 1.0,
        d_steps_per_g_step: Steps = 1,
        grad_penalty: GradPenalty = 0.0,
        lr_d: LearningRate = 5e-5,
        weight_decay_d: WeightDecay = 0.0,
        mlp_width: Width = 256,
        mlp_depth: Depth = 3,
        mlp_dropout: Dropout = 0.0,
    ) -> None:
        super().__init__(problem)
        self.lambda_weight, self.d_steps, self.grad_penalty = lambda_weight, d_steps_per_g_step, grad_penalty
        classes, D = problem.classes_and_features(self.name)
        discriminator = Discriminator(D, problem.num_domains, mlp_width, mlp_depth, mlp_dropout)
        self.discriminator = self.add_network("discriminator", discriminator)
        self.add_embeddings(classes, D)
        self.adversary: Vector = tuple(self.networks.parameters())
        self.adversary_optimizer = problem.make_optimizer(self.adversary, lr=lr_d, weight_decay=weight_decay_d)
        self.kept["adversary_optimizer"] = self.adversary_optimizer

    def add_embeddings(self, classes: int, features: int) -> None:
        """Add what the discriminator knows of the classes: nothing."""

    def judged(self, features: Tensor, y: Tensor) -> Tensor:
        """What the discriminator sees of features [N, D] with labels [N]: the features [N, D]."""
        del y
        return features

    def row_weights(self, y: Tensor) -> Tensor:
        """Weights of the rows in the discriminator's loss [N], which sum to 1: equal ones."""
        return torch.full_like(y, 1 / len(y), dtype=self.params[0].dtype)

    @classmethod
    def kind_of_step(cls, step: int, hparams: Mapping[str, Any]) -> int:
        """See `Algorithm.kind_of_step`: 1 for the discriminator's, which makes no pass back through the network."""
        d_steps = hparams["d_steps_per_g_step"]
        return int((step + 1) % (1 + d_steps) < d_steps)

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        features = self.features(batch.x)
        adversarial = self.discriminator_loss(features, batch)
        if self.kind_of_step(self.step, {"d_steps_per_g_step": self.d_steps}):
            loss = adversarial
            self.train_discriminator(loss)
        else:
            classification = F.cross_entropy(self.classify(features), batch.y)
            loss, g = self.gradient_of(classification - self.lambda_weight * adversarial)
            self.descend(g)
        return {"loss": loss.detach(), "disc_loss": adversarial.detach()}

    def discriminator_loss(self, features: Tensor, batch: DomainBatch) -> Tensor:
        """Weighted cross-entropy of the domains, plus the gradient penalty []."""
        judged = self.judged(features, batch.y).requires_grad_()
        logits = self.in_precision(self.discriminator, judged)
        domain = torch.cat([torch.full_like(y, k) for k, (_, y) in enumerate(batch.domains())])
        losses = F.cross_entropy(logits, domain, reduction="none")
        loss = self.row_weights(batch.y) @ losses
        if not self.grad_penalty:
            return loss
        (slopes,) = torch.autograd.grad(losses.sum(), judged, create_graph=True)
        return loss + self.grad_penalty * slopes.square().sum(1).mean()

    def train_discriminator(self, loss: Tensor) -> None:
        """One step of its own optimizer; the network's optimizer is not touched."""
        for p, g in zip(self.adversary, torch.autograd.grad(loss, self.adversary), strict=True):
            p.grad = g
        self.adversary_optimizer.step()
        self.adversary_optimizer.zero_grad(set_to_none=True)


@register("CDANN")
class CDANN(DANN):
    """DANN whose discriminator knows the class of every row, and weighs the classes alike.

    A learned embedding of the class is added to the features that it sees. The weight of a row is 1 / (n C), where n is
    the number of rows of its class and C one more than the largest label in the minibatch; so the weights sum to 1
    where all these classes are there.

    Source: Li et al., ECCV 2018; DomainBed `algorithms.py`, class CDANN.

    Args:
        problem: see `Problem`.
        round_weights: round the weights of the rows to float32 in float64 runs, as DomainBed does.
        lambda_weight, d_steps_per_g_step, grad_penalty, lr_d, weight_decay_d, mlp_width, mlp_depth, mlp_dropout: see
            `DANN`.

    Differences from the paper: the class's embedding instead of a discriminator for each class, as in DomainBed.
    Differences from public codes: those of `DANN`, and `round_weights`.
    """

    paper = "Li et al., ECCV 2018"

    def __init__(
        self,
        problem: Problem,
        *,
        lambda_weight: LambdaWeight = 1.0,
        d_steps_per_g_step: Steps = 1,
        grad_penalty: GradPenalty = 0.0,
        lr_d: LearningRate = 5e-5,
        weight_decay_d: WeightDecay = 0.0,
        mlp_width: Width = 256,
        mlp_depth: Depth = 3,
        mlp_dropout: Dropout = 0.0,
        round_weights: bool = False,
    ) -> None:
        super().__init__(
            problem,
            lambda_weight=lambda_weight,
            d_steps_per_g_step=d_steps_per_g_step,
            grad_penalty=grad_penalty,
            lr_d=lr_d,
            weight_decay_d=weight_decay_d,
            mlp_width=mlp_width,
            mlp_depth=mlp_depth,
            mlp_dropout=mlp_dropout,
        )
        self.round_weights = round_weights

    def add_embeddings(self, classes: int, features: int) -> None:
        """Add the embeddings of the classes [C, D]."""
        self.embeddings = self.add_network("class_embeddings", nn.Embedding(classes, features))

    def judged(self, features: Tensor, y: Tensor) -> Tensor:
        """Features plus the embeddings of their classes [N, D]."""
        return features + self.embeddings(y)

    def row_weights(self, y: Tensor) -> Tensor:
        """1 / (n C) for every row [N]: see the class."""
        count = (y[:, None] == y).sum(1)
        dtype = torch.float32 if self.round_weights else self.params[0].dtype
        return (1 / (count * (y.max() + 1)).to(dtype)).to(self.params[0].dtype)
