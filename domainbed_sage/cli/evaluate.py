"""`domainbed-sage evaluate`: the model of a finished run on the environments of its dataset."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainbed_sage.cli import as_json, machine
from domainbed_sage.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from domainbed_sage.training.assessment import Assessment, SplitResult

WIDTH = 80  # columns of a terminal
ROLES = {True: "held out", False: "source"}
_DESCRIPTION = """Evaluate the final weights of a finished run, model.pkl, on environments of its dataset: accuracy,
macro accuracy (mean over the classes that occur), macro F1, and which classes are mistaken for which. On the machine
that trained the run, the accuracies are those of its last record."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = _DESCRIPTION
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--envs", nargs="+", default=[], help="environments, by index or name (default: all)")
    parser.add_argument(
        "--split", choices=("in", "out", "all"), default="all", help="which split; all: each of the two (default)"
    )
    parser.add_argument(
        "--dataset", metavar="folder:PATH", help="where the run's own folder of images is now, if it has moved"
    )
    parser.add_argument(
        "--predictions", type=Path, metavar="FILE", help="write every prediction to FILE, .csv or .parquet"
    )
    parser.add_argument("--logits", action="store_true", help="with --predictions: also the logits of all classes")
    as_json.add_argument(parser)
    machine.add_place_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Print and write the model's predictions.

    Raises:
        UserError: see `assessment.assess`; or the predictions cannot be written.
    """
    from domainbed_sage.training import prediction_file
    from domainbed_sage.training.assessment import HALVES, assess

    where = machine.place_from_arguments(args, args.run)
    if args.predictions:
        prediction_file.check(args.predictions)
    elif args.logits:
        raise UserError("--logits says what --predictions FILE holds: give that, too.")
    splits = HALVES if args.split == "all" else (args.split,)
    found = assess(args.run, where, args.envs, splits, keep_logits=args.logits, images=_images(args.dataset))
    if args.predictions:
        prediction_file.write(args.predictions, found.results, found.classes)
    if args.json:
        as_json.show(as_object(found))
    else:
        show(found)
        if args.predictions:
            print(f"Wrote {args.predictions}")
    return 0


def _images(given: str | None) -> Path | None:
    from domainbed_sage.data.own import SCHEME

    if given is not None and not given.startswith(SCHEME):
        raise UserError(f"--dataset should be {SCHEME}PATH, for a run on a folder of images. Found {given!r}.")
    return Path(given.removeprefix(SCHEME)) if given else None


def remarks(found: "Assessment") -> list[str]:
    """State which weights these are, and where the numbers or the data differ from the recorded ones."""
    run = found.run
    step, selected = run.last["step"], run.selected_step
    text = f"These are the weights after the last step, {step}."
    if selected is None:
        text += " Tables report the step that model selection chooses, which may be another."
    elif selected == step:
        text += " Training-domain selection chooses the same step of this run."
    else:
        text += f" Training-domain selection chooses step {selected} of this run, so tables report other numbers."
    lines = [text]
    if recorded := [result for result in found.results if result.differs]:
        names = ", ".join(f"{result.environment} {result.split}" for result in recorded)
        lines.append(
            f"Not the accuracy of the run's last record: {names}. Another device (it was {run.last.get('device')}), "
            "number of threads or version rounds differently, which moves single images; more than that means that "
            "data or code have changed."
        )
    notes = run.last.get("data", {}).get("notes", [])
    if list(found.notes) != notes:
        lines.append(f"The notes on the data were {notes} when it was trained, and are {list(found.notes)} now.")
    return lines


def as_object(found: "Assessment") -> dict[str, Any]:
    """The whole assessment, machine-readable; accuracies in [0, 1]."""
    run = found.run
    return {
        "run": run.config.folder_name,
        "folder": run.folder,
        "config": run.config,
        "weights": {"file": run.folder / "model.pkl", "step": run.last["step"], "selected_step": run.selected_step},
        "remarks": remarks(found),
        "classes": found.classes,
        "results": [_as_object(result) for result in found.results],
    }


def _as_object(result: "SplitResult") -> dict[str, Any]:
    scores = result.scores
    return {
        "env": result.env,
        "environment": result.environment,
        "held_out": result.held_out,
        "split": result.split,
        "images": scores.images,
        "accuracy": scores.accuracy,
        "recorded_accuracy": result.recorded,
        "macro_accuracy": scores.macro_accuracy,
        "macro_f1": scores.macro_f1,
        "class_images": scores.class_images.tolist(),
        "class_accuracy": scores.class_accuracy.tolist(),
        "class_f1": scores.class_f1.tolist(),
        "confusion": scores.confusion.tolist(),
    }


def show(found: "Assessment") -> None:
    """Print the text, at most 80 columns wide; names are printed unchanged."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    console.print(*render(found), sep="\n", width=min(console.width, WIDTH))


def render(found: "Assessment") -> "Iterator[RenderableType]":
    """Yield an overview, then the classes of each split and what they are mistaken for."""
    config, variant = found.run.config, found.run.last.get("data", {}).get("variant")
    population = f", population {variant}" if variant else ""
    yield f"{found.run.folder}: {config.algorithm} with {config.model} on {config.dataset}{population}"
    yield from remarks(found)
    table = _table("environment", "role", "split", "images", "accuracy", "macro acc.", "macro F1", "last record")
    for result in found.results:
        scores = result.scores
        numbers = (scores.accuracy, scores.macro_accuracy, scores.macro_f1, result.recorded)
        role = ROLES[result.held_out]
        table.add_row(result.environment, role, result.split, str(scores.images), *map(_percent, numbers))
    yield ""
    yield table
    for result in found.results:
        yield f"\n{result.environment}, {ROLES[result.held_out]}, {result.split} split"
        yield _classes(result, found.classes)


def _classes(result: "SplitResult", classes: tuple[str, ...]) -> "Table":
    table = _table("class", "images", "accuracy")
    table.expand = True  # so that the last column, the only one with a ratio, gets the remaining width
    table.add_column("mistaken for", no_wrap=True, overflow="ellipsis", ratio=1)
    scores = result.scores
    for i, name in enumerate(classes):
        others = sorted((-int(n), j) for j, n in enumerate(scores.confusion[i]) if n and j != i)
        mistaken = ", ".join(f"{classes[j]} {-n}" for n, j in others)
        table.add_row(name, str(scores.class_images[i]), _percent(scores.class_accuracy[i]), mistaken)
    return table


def _table(first: str, *columns: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="")
    table.add_column(first, overflow="fold")
    for name in columns:
        table.add_column(name, justify="left" if name in ("role", "split") else "right")
    return table


def _percent(share: float) -> str:
    return "-" if share != share else f"{100 * share:.2f}"
