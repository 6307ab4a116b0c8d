"""From a results folder to a figure of my own: held-out accuracy of the checkpoint that is selected so far.

    python docs/examples/figure_of_my_own.py results/demo figure.pdf ERM SAGE

A checkpoint is selected when the accuracy on the sources' validation splits is higher than ever before in its run;
until the next one, its accuracy is carried forward. So a line goes on where the held-out environment was not evaluated.
"""

import sys

import pandas as pd
from matplotlib.figure import Figure

from domainbed_sage import load_results


def selected_so_far(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each run and evaluation: dataset, label, run, step, accuracy of the checkpoint selected so far."""
    held_out = frame[frame["held_out"] & (frame["split"] == "in")]
    held_out = held_out[~held_out.duplicated(["run", "step"], keep=False)]  # runs that hold out one environment
    validation = frame[~frame["held_out"] & (frame["split"] == "out")]

    keys = ["dataset", "label", "run", "step"]
    accuracy = held_out.set_index(keys)["accuracy"].sort_index()
    best = validation.groupby(keys, observed=True)["accuracy"].mean().groupby("run", observed=True).cummax()
    is_selected = best > best.groupby("run", observed=True).shift(fill_value=-1)
    return accuracy.where(is_selected).groupby("run", observed=True).ffill().reset_index()


def figure(points: pd.DataFrame) -> Figure:
    """One panel for each dataset, one line for each label: the mean over held-out environments and trials."""
    datasets = list(points["dataset"].unique())
    colours = {label: f"C{at}" for at, label in enumerate(points["label"].unique())}
    lines = {}
    drawn = Figure(figsize=(1.5 + 3 * len(datasets), 3), layout="constrained")
    panels = drawn.subplots(1, len(datasets), squeeze=False)[0]
    for dataset, panel in zip(datasets, panels, strict=True):
        means = points[points["dataset"] == dataset].groupby(["label", "step"], observed=True)["accuracy"].mean()
        for label, mean in means.groupby("label", observed=True):
            (lines[label],) = panel.plot(mean.index.get_level_values("step"), 100 * mean, color=colours[label])
        panel.set(title=dataset, xlabel="step")
    panels[0].set_ylabel("held-out accuracy (%)")
    drawn.legend(lines.values(), lines.keys(), loc="outside right upper")
    return drawn


if __name__ == "__main__":
    results, picture, *labels = sys.argv[1:]
    frame = load_results(results)
    figure(selected_so_far(frame[frame["label"].isin(labels)])).savefig(picture)
