"""The sweeps of several tasks that come with the suite: rows of the printed tables, epochs, and what is planned."""

import pytest

from domainbed_sage.algorithms.problems import specification
from domainbed_sage.results import task_paper
from domainbed_sage.results.printed_fmtl import digits, faces
from domainbed_sage.results.printed_tasks import scenes
from domainbed_sage.sweeps.presets import locate, presets
from domainbed_sage.sweeps.sweep import read_sweep

ACCURACY, *_ = digits()
PRINTED = dict(zip(("table2_nyuv2", "table2_cityscapes", "fmtl_nyuv2", "fmtl_cityscapes"), scenes(), strict=True)) | {
    "fmtl_multimnist": ACCURACY,
    "fmtl_celeba": faces(),
}
SCHEDULES = {  # batch size, learning rate, epochs, epochs after which it decays, and by how much
    "table2_nyuv2": (2, 1e-4, 200, 100, 0.5),
    "table2_cityscapes": (8, 1e-4, 200, 100, 0.5),
    "fmtl_nyuv2": (2, 1e-4, 200, 100, 0.5),
    "fmtl_cityscapes": (8, 1e-4, 200, 100, 0.5),
    "fmtl_multimnist": (256, 1e-3, 200, 100, 1.0),
    "fmtl_celeba": (256, 5e-4, 50, 10, 0.85),
}


def planned(name):
    return read_sweep(locate(presets()[name])).planned()


def test_every_one_is_checked_here():
    assert {name for name in presets() if name.startswith(("table2", "fmtl"))} == set(PRINTED) == set(SCHEDULES)


@pytest.mark.parametrize("name", PRINTED)
def test_rows_are_the_printed_ones(name):
    """Each printed method has one row, and a task of its own each network of one task; nothing else but Table 5's."""
    runs = planned(name)
    assert {run.config.dataset for run in runs} == {PRINTED[name].dataset}
    ours = {task_paper._one_name(run.label) for run in runs if not run.config.hparams["only_task"]}
    printed = {task_paper._one_name(row) for row in PRINTED[name].cells} - {"STL"}
    assert ours - printed == ({"F-MGDA direct"} if name == "fmtl_cityscapes" else set())
    assert printed <= ours
    alone = sorted({run.config.hparams["only_task"] for run in runs} - {""})
    tasks = specification(PRINTED[name].dataset).kinds
    assert alone == ([] if name == "fmtl_celeba" else sorted(tasks))
    assert {run.config.trial_seed for run in runs} == {0, 1, 2}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_whole_epochs(name):
    batch_size, lr, epochs, decays, factor = SCHEDULES[name]
    for _, run in planned(name):
        epoch = -(-specification(run.dataset).counts["train"] // batch_size)
        assert (run.checkpoint_freq, run.steps) == (epoch, epochs * epoch)
        found = [run.hparams[key] for key in ("batch_size", "lr", "lr_decay_epochs", "lr_decay")]
        assert found == [batch_size, lr, decays, factor]


def test_table_2_has_the_papers_numbers():
    assert {run.config.steps for run in planned("table2_nyuv2")} == {79_600}
    assert {run.config.steps for run in planned("table2_cityscapes")} == {74_400}
    for name in ("table2_nyuv2", "table2_cityscapes"):
        by_label = {run.label: run.config for run in planned(name)}
        sage = [config for label, config in by_label.items() if label.startswith("SAGE")]
        assert {(c.hparams["rho"], c.hparams["gamma"], c.hparams["ns_steps"]) for c in sage} == {(1e-4, 1e-5, 5)}
        assert by_label["FAMO"].hparams["solver_hparams"]["famo_gamma"] == (0.001 if "nyu" in name else 0.01)
        assert by_label["SAMO-LS"].hparams["layerwise"] == ("nyu" not in name)
        assert by_label["SAMO-LS"].hparams["accumulate"] == ("nyu" not in name)
        assert by_label["SAGE-FairGrad"].hparams["solver_hparams"]["solution"] == "samo"
