"""Algorithm classes of the shape that DomainBed's have: `update(minibatches)`, `predict`, their own optimizers."""

import copy
import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class networks:  # noqa: N801 - stands for a module
    """What DomainBed builds its networks with."""

    @staticmethod
    def Featurizer(input_shape, hparams):  # noqa: N802
        made = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 5))
        made.n_outputs = 5
        return made

    @staticmethod
    def Classifier(in_features, out_features, is_nonlinear=False):  # noqa: N802
        return nn.Linear(in_features, out_features)


class ERM(nn.Module):
    """Mean loss of all rows."""

    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__()
        self.hparams, self.input_shape, self.num_domains = hparams, input_shape, num_domains
        self.featurizer = networks.Featurizer(input_shape, hparams)
        self.classifier = networks.Classifier(
            self.featurizer.n_outputs, num_classes, is_nonlinear=hparams["nonlinear_classifier"]
        )
        self.network = nn.Sequential(self.featurizer, self.classifier)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=hparams["lr"], weight_decay=hparams["weight_decay"]
        )

    def update(self, minibatches, unlabeled=None):
        x, y = (torch.cat(parts) for parts in zip(*minibatches, strict=True))
        loss = F.cross_entropy(self.predict(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.item()}

    def predict(self, x):
        return self.network(x)


class Lists(ERM):
    """As in SWAD's fork: two lists instead of pairs."""

    def update(self, x, y, **kwargs):  # type: ignore[override]
        return super().update(list(zip(x, y, strict=True)))


class Average:
    """A moving average that is no module."""

    def __init__(self):
        self.value, self.count = None, 0

    def update(self, value):
        self.count += 1
        self.value = value.detach().clone() if self.value is None else 0.9 * self.value + 0.1 * value.detach()


class Everything(ERM):
    """State of every kind: counters, a scheduler, an average, a late buffer, an optimizer made anew, random numbers."""

    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.critic = nn.Linear(self.featurizer.n_outputs, 1)
        self.critic_optimizer = torch.optim.SGD(self.critic.parameters(), lr=hparams["lr"], momentum=0.9)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        self.average, self.losses, self.inner_state = Average(), [], None
        self.q: torch.Tensor
        self.register_buffer("q", torch.Tensor())
        self.register_buffer("count", torch.tensor([0]))

    def update(self, minibatches, unlabeled=None):
        if not len(self.q):
            self.q = torch.ones(len(minibatches))
        x, y = (torch.cat(parts) for parts in zip(*minibatches, strict=True))
        z = self.featurizer(x)
        weight = random.random() + np.random.rand() + torch.rand(())
        loss = F.cross_entropy(self.classifier(z), y) * weight + self.hparams["lambda"] * self.critic(z).pow(2).mean()
        self.average.update(loss)
        loss = loss + 0.1 * (z.mean() - self.average.value) ** 2 + 0.01 * self.q.sum()
        self.q = self.q * (1 + loss.item())
        for optimizer in (self.optimizer, self.critic_optimizer):
            optimizer.zero_grad()
        loss.backward()
        for optimizer in (self.optimizer, self.critic_optimizer):
            optimizer.step()
        self.schedule.step()
        self.count += 1
        self.losses.append(loss.item())
        if self.count == 2:
            self.critic_optimizer = torch.optim.SGD(self.critic.parameters(), lr=1e-2, momentum=0.5)
        self._look_ahead(x, y)
        return {"loss": loss.item(), "history": sum(self.losses), "average": self.average.value}

    def _look_ahead(self, x, y):
        """As Fish does: a network and an optimizer of the moment, whose state is carried on in a dictionary."""
        self.inner = nn.Sequential(networks.Featurizer(self.input_shape, self.hparams), nn.Linear(64, 10))
        self.inner[0].load_state_dict(copy.deepcopy(self.featurizer.state_dict()))
        optimizer = torch.optim.Adam(self.inner[0].parameters(), lr=1e-3)
        if self.inner_state is not None:
            optimizer.load_state_dict(self.inner_state)
        F.cross_entropy(self.inner(x), y).backward()
        optimizer.step()
        self.inner_state = optimizer.state_dict()
        with torch.no_grad():
            for p, q in zip(self.featurizer.parameters(), self.inner[0].parameters(), strict=True):
                p.lerp_(q, 0.5)
