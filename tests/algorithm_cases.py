"""Shared inputs of the algorithm tests: small float64 networks, seeded batches, settings of every method."""

from contextlib import contextmanager
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from domainbed_sage.algorithms import Problem, algorithms
from domainbed_sage.core.hparams import declared, validate
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.models import ImageSpec, Model
from domainbed_sage.models.optimizers import adam

CLASSES, IMAGE = 4, ImageSpec(0, (0, 0, 0), (1, 1, 1))
STEPS = 8  # of a run, of which the tests do the first ones
ADAM = {"lr": 1e-2, "weight_decay": 1e-3}

ADVERSARIAL = {"lambda_weight": 0.8, "grad_penalty": 0.1, "lr_d": 5e-3, "mlp_width": 8}

# Settings large enough for each term of a method to count, one row each; every registered method has at least one.
SETTINGS = [
    pytest.param(name, hparams, id="-".join([name, *(f"{k}={v}" for k, v in varied.items())]))
    for name, common, variants in [
        ("ERM", {}, [{}]),
        ("IRM", {"irm_lambda": 2.0}, [{"irm_penalty_anneal_iters": t} for t in (0, 1, 3)]),
        ("DANN", ADVERSARIAL, [{}, {"d_steps_per_g_step": 2}, {"mlp_dropout": 0.5, "grad_penalty": 0.0}]),
        ("CDANN", ADVERSARIAL, [{}, {"round_weights": True}]),
        ("MMD", {"mmd_gamma": 0.7}, [{}]),
        ("CORAL", {"mmd_gamma": 0.7}, [{}]),
        ("RSC", {}, [{}, {"rsc_f_drop_factor": 0.5, "rsc_b_drop_factor": 0.6}]),
        ("IIB", {"lambda_beta": 1e-2, "lambda_inv_risks": 3.0}, [{}, {"enable_bn": False}]),
        ("Fish", {"meta_lr": 0.5}, [{}]),
        ("SAM", {"rho": 0.05}, [{}]),
        ("GSAM", {"rho": 0.05, "alpha": 0.2}, [{}]),
        (
            "GAM",
            {"grad_rho": 0.02, "grad_norm_rho": 0.2, "grad_gamma": 0.2},
            [{}, {"reading": "paper"}, {"label_smoothing": 0.1}],
        ),
        ("ASAM", {"rho": 0.5}, [{}, {"reading": "davda54"}]),
        ("FriendlySAM", {"rho": 0.1, "lmbda": 0.6}, [{}]),
        ("SAGM", {"rho": 0.05, "alpha": 0.02}, [{}, {"halve": False}]),
        ("DISAM", {"rho": 0.05, "lambda_weight": 0.3}, [{}, {"sample_weighted": True}]),
        (
            "GGA",
            {"radius": 0.02, "start": 1, "end": 2, "trials": 6, "tolerance": 0.01},
            [{}, {"random_walk": True}],
        ),
        ("GGA_L", {"gamma": 0.05}, [{}, {"noise": "gaussian"}]),
        (
            "SAGE",
            {"rho": 0.02, "gamma": 0.05},
            [
                {},
                {"ns": "cubic"},
                {"ns": "cubic", "ns_steps": 30},
                {"ns": "svd_rank"},
                {"orthogonalize": False},
                {"scale_by_weight": False},
                {"noise": False},
            ],
        ),
        ("VREx", {"vrex_lambda": 2.0}, [{"vrex_penalty_anneal_iters": t} for t in (0, 1, 3)]),
        ("GroupDRO", {"groupdro_eta": 0.5}, [{}]),
        ("SD", {"sd_reg": 0.1}, [{}]),
        ("Mixup", {"mixup_alpha": 0.2}, [{}]),
        ("MLDG", {"mldg_beta": 0.7}, [{"n_meta_test": 1}, {"n_meta_test": 2}]),
        ("SelfReg", {}, [{}]),
        ("Fishr", {"lambda_weight": 100.0, "ema": 0.9}, [{"penalty_anneal_iters": t} for t in (0, 1, 3)]),
        (
            "BOA",
            {"warmup_steps": 1, "rho": 0.05, "delta": 0.1, "krylov_dim": 3, "brackets": 4, "sections": 3},
            [{"warmup": "ERM"}, {"warmup": "SAM"}],
        ),
        ("SWAD", {"around": "SAM", "around_hparams": {"rho": 0.05}}, [{}]),
        ("CLIPood", {"temperature": 10.0}, [{}, {"schedule": "constant"}]),
        ("BetaAverage", {"around": "SAM", "around_hparams": {"rho": 0.05}}, [{}]),
        ("ZeroShot", {}, [{}]),
        ("F-MTL", {"fmtl_rho": 0.05}, [{}, {"adaptive": True}, {"aggregate": "direct"}, {"unit_norm": True}]),
        ("SAMO", {"samo_rho": 0.05}, [{}, {"layerwise": False}, {"accumulate": True}]),
        ("SAGE_SAMO", {"rho": 0.02, "gamma": 0.05}, [{}]),
    ]
    for varied in variants
    for hparams in [common | varied]
]

EQUAL_SIZES = [(5,), (4, 4), (3, 3, 3), (2, 2, 2, 2, 2)]
UNEQUAL_SIZES = [(2, 5), (1, 3, 6), (1, 2, 3, 4, 5)]
EQUAL_ROWS = {"IIB"}  # refuse domains of different sizes


def fitting(name, sizes):
    """The sizes, changed where the method cannot take them: its fewest rows instead of fewer, or equal ones."""
    enough = tuple(max(n, algorithms[name].min_rows) for n in sizes)
    return (max(enough),) * len(enough) if name in EQUAL_ROWS else enough


def mlp(seed=0, classes=CLASSES):
    torch.manual_seed(seed)
    featurizer = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5))
    return Model(featurizer, nn.Linear(5, classes), IMAGE, class_features=True).double()


def cnn(seed=0):
    torch.manual_seed(seed)
    featurizer = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.GroupNorm(1, 5), nn.ReLU(), nn.Conv2d(5, 4, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return Model(featurizer, nn.Linear(4, CLASSES), IMAGE, class_features=True).double()


def batch_norm_mlp(freeze_bn, seed=0):
    torch.manual_seed(seed)
    featurizer = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5))
    return Model(featurizer, nn.Linear(5, CLASSES), IMAGE, freeze_bn=freeze_bn, class_features=True).double()


NETWORKS = {mlp: (6,), cnn: (3, 6, 6)}  # builder: shape of one input


def batches(sizes, steps=4, shape=(6,), classes=CLASSES, seed=1):
    """Minibatches of domains whose inputs are shifted against each other."""
    generator = torch.Generator().manual_seed(seed)
    shifts = torch.arange(len(sizes), dtype=torch.float64).repeat_interleave(torch.tensor(sizes))
    shifts = shifts.reshape(-1, *(1 for _ in shape)) / 4
    return [
        DomainBatch(
            torch.randn(sum(sizes), *shape, dtype=torch.float64, generator=generator) + shifts,
            torch.randint(classes, (sum(sizes),), generator=generator),
            sizes,
        )
        for _ in range(steps)
    ]


def algorithm(name, model, num_domains=3, *, make_optimizer=None, precision="fp64", **hparams):
    cls = algorithms[name]
    problem = Problem(model, make_optimizer or partial(adam, **ADAM), num_domains, precision, steps=STEPS)
    return cls(problem, **validate(declared(cls), hparams))


def weights(model):
    """All weights in one vector, a copy."""
    return parameters_to_vector(model.parameters()).detach().clone()


@contextmanager
def one_thread():
    """On a busy machine, threads that wait for each other make convolutions of this size a hundred times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def run(algorithm, batches, start=0):
    """Update on every batch, each step under its own torch seed; the weights after every step [T, P]."""
    trajectory = []
    for t, batch in enumerate(batches, start):
        torch.manual_seed(100 + t)
        algorithm.step, algorithm.batch = t, batch
        algorithm.update(batch)
        trajectory.append(weights(algorithm.model))
    return torch.stack(trajectory)


def trajectory(name, sizes, *, network=mlp, steps=4, lr=1e-2, **hparams):
    """Weights of one method after every step from the shared start [T, P]."""
    make_optimizer = partial(adam, **ADAM | {"lr": lr})
    made = algorithm(name, network(), len(sizes), make_optimizer=make_optimizer, **hparams)
    return run(made, batches(sizes, steps, NETWORKS[network]))
