"""Invariant information bottleneck."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import Power
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.models.base import Model


class Encoded(nn.Module):
    """Featurizer and encoder: images [N, 3, H, W] -> mean μ of the bottleneck [N, D]."""

    def __init__(self, featurizer: nn.Module, encoder: nn.Module, mean: nn.Module, log_variance: nn.Module) -> None:
        super().__init__()
        self.featurizer, self.encoder, self.mean, self.log_variance = featurizer, encoder, mean, log_variance

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.mean(self.encoder(self.featurizer(x)))

    def moments(self, x: Tensor) -> Tensor:
        """μ and log σ² of the bottleneck, side by side [N, 2 D]."""
        hidden = self.encoder(self.featurizer(x))
        return torch.cat([self.mean(hidden), self.log_variance(hidden)], 1)


class Bottleneck(Model):
    """A model with an encoder between featurizer and classifier, whose own BatchNorm layers are never frozen."""

    def __init__(self, model: Model, encoded: Encoded) -> None:
        super().__init__(encoded, model.classifier, model.image, freeze_bn=model.freeze_bn)

    def train(self, mode: bool = True) -> "Bottleneck":
        """See `Model.train`."""
        super().train(mode)
        self.featurizer.get_submodule("encoder").train(mode)
        return self


@register("IIB")
class IIB(Algorithm):
    """A stochastic bottleneck z behind the features, from which knowing the domain must not help to tell the class.

    An encoder (two linear layers with BatchNorm and ReLU) maps the features to μ and log σ², all of D dimensions, and
    z = μ + σ ε with ε ~ N(0, 1). L_inv is the loss of the classifier of z, L_env that of a second, linear classifier
    of z and the domain's index k, appended as a number. The objective is
    L_inv + L_env + β Σ KL(N(μ, σ²) ‖ N(0, 1)) + λ (L_inv - L_env)². Predictions are the classifier's, of μ.

    Source: Li et al., AAAI 2022; Luodian/IIB `algorithms.py`, class IIB (not DomainBed's IB_ERM and IB_IRM).

    Args:
        problem: see `Problem`.
        lambda_beta: weight β. The KL is summed over rows and dimensions, so β weighs with the size of the minibatch.
            The authors' search reaches from 1e-6 to 1e6.
        lambda_inv_risks: weight λ.
        enable_bn: BatchNorm in the encoder. It is trained, whatever `freeze_bn` says of the network.

    Differences from the paper: as the authors' code, see above. Differences from public codes: the second classifier is
    linear whatever the first one is. Minibatches of unequal sizes are refused, as there. CLIP's zero-shot classifier is
    of no use behind a random encoder; choose the head ``linear`` and a larger learning rate.

    Raises:
        UserError: the classifier is not linear.
    """

    paper = "Li et al., AAAI 2022"
    min_rows = 2

    def __init__(
        self,
        problem: Problem,
        *,
        lambda_beta: Annotated[float, Field(ge=0), Power(1e-3, -2, 2)] = 1e-4,
        lambda_inv_risks: Annotated[float, Field(ge=0), Power(10, 0, 2, integer=True)] = 10.0,
        enable_bn: bool = True,
    ) -> None:
        super().__init__(problem)
        self.lambda_beta, self.lambda_inv_risks = lambda_beta, lambda_inv_risks
        C, D = problem.classes_and_features(self.name)
        self.env_classifier = self.add_network("env_classifier", nn.Linear(D + 1, C))
        parts = {"encoder": encoder(D, enable_bn), "fc3_mu": nn.Linear(D, D), "fc3_logvar": nn.Linear(D, D)}
        added = (self.add_network(name, part) for name, part in parts.items())
        self.encoded = Encoded(problem.model.featurizer, *added)
        self.model = Bottleneck(problem.model, self.encoded)
        self.params = (*self.params, *self.networks.parameters())
        self.restart_optimizer()

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        if len(set(batch.sizes)) > 1:
            raise UserError(
                "IIB needs equally many rows of every source domain in a minibatch, as its authors' code does. "
                f"Found {batch.sizes}. Cut them to the smallest."
            )
        mean, log_variance = self.in_precision(self.encoded.moments, batch.x).chunk(2, 1)
        z = mean + (log_variance / 2).exp() * self.draws.normal("eps", mean)
        domain = torch.cat([torch.full_like(y, k, dtype=z.dtype) for k, (_, y) in enumerate(batch.domains())])
        with_domain = torch.cat([z, domain[:, None]], 1)
        loss_inv = F.cross_entropy(self.classify(z), batch.y)
        loss_env = F.cross_entropy(self.in_precision(self.env_classifier, with_domain), batch.y)
        loss_ib = -(1 + log_variance - mean.square() - log_variance.exp()).sum() / 2
        risk = loss_inv + loss_env + self.lambda_inv_risks * (loss_inv - loss_env).square()
        loss, g = self.gradient_of(risk + self.lambda_beta * loss_ib)
        self.descend(g)
        parts = {"loss_inv": loss_inv, "loss_env": loss_env, "loss_ib": loss_ib}
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}


def encoder(features: int, batch_norm: bool) -> nn.Sequential:
    """Two linear layers of D features, each with BatchNorm, if wanted, and ReLU."""
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.Linear(features, features), *([nn.BatchNorm1d(features)] if batch_norm else []), nn.ReLU()]
    return nn.Sequential(*layers)
