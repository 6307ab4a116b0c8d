"""A sweep that is launched, and what it has left in its results folder."""

import json
import pickle

from domainbed_sage.sweeps.cluster import ledger
from domainbed_sage.sweeps.sweep import read_sweep

TEXT = """
name: s
datasets: [EmojiStyles]
algorithms: [ERM, SAGE]
trials: 1
steps: 3
checkpoint_freq: 2
hparams: {width: 8, batch_size: 2}
"""
EIGHT = "Submitted 8 runs in 8 jobs (1 array)."


def results(sweep):
    return sweep.parent / "results"


def runs_of(sweep):
    return read_sweep(sweep).runs()


def arrays(sweep):
    return ledger.read(results(sweep))


def counts(say):
    return {state: n for state, n in json.loads(say("status", "--json"))["counts"].items() if n}


def tasks(sweep):
    """The jobs as they would be executed, by id."""
    found = {}
    for path in (results(sweep) / "jobs").glob("*/*_submitted.pkl"):
        found[path.name.removesuffix("_submitted.pkl")] = pickle.loads(path.read_bytes())
    return found
