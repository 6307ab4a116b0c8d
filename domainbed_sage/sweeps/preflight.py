"""What runs need on this machine before any of them starts: pretrained weights and the folders of their datasets."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from domainbed_sage.algorithms.problems import Specification, kind_of, specification
from domainbed_sage.config import RunConfig
from domainbed_sage.core.errors import UserError, bullets
from domainbed_sage.data.multitask.base import TaskDataSpec


def check(runs: Iterable[RunConfig], data_dir: Path | None) -> None:
    """Make sure that everything is here.

    Args:
        runs: those that are to be executed.
        data_dir: folder of the datasets.

    Raises:
        UserError: something is missing; names all of it, each with the command that fetches it.
    """
    runs = list(runs)
    missing = [*_missing_data(runs, data_dir), *_missing_weights(runs)]
    if len(missing) == 1:
        raise UserError(missing[0])
    if missing:
        raise UserError(f"Before anything starts, {len(missing)} things are needed:\n{bullets(missing)}", missing)


def _missing_data(runs: Iterable[RunConfig], data_dir: Path | None) -> Iterator[str]:
    for name in dict.fromkeys(run.dataset for run in runs):
        spec = specification(name)
        place = spec.place(data_dir)
        if spec.folder and place is None:
            yield f"{name} is read from disk: give the folder that holds {spec.folder}/ with --data_dir. {_how(spec)}"
        elif spec.folder and place is not None and not (place / spec.folder).is_dir():
            yield f"{name} should be in {place / spec.folder}, which does not exist. {_how(spec, place)}"


def _how(spec: Specification, place: Path | None = None) -> str:
    where = place or "DIR"
    if isinstance(spec, TaskDataSpec):
        return "docs/multitask_data.md says how to get it."
    if spec.sources:
        return f"To get it: domainbed-sage data download {spec.name} --data_dir {where}"
    return f"Put it there; `domainbed-sage data check {spec.name} --data_dir {where}` says what it should hold."


def _missing_weights(runs: Iterable[RunConfig]) -> Iterator[str]:
    checked: list[tuple[str, dict[str, Any]]] = []
    for run in runs:
        spec = kind_of(run.dataset).models[run.model]
        model = (run.model, run.of(spec.build))
        if model in checked:
            continue
        checked.append(model)
        try:
            spec.require(model[1])
        except UserError as error:
            yield str(error)
