"""A folder of images as a dataset, without any code: ``folder:PATH`` in place of a dataset's name.

The dataset is named after the folder, or by the sweep file that uses it; where the folder is does not enter the
identity of a run. What it holds does enter every record, as the population: the number of images, and a hash of the
names and sizes of all classes. Runs on two folders of one name are so told apart, by tables and by restarts.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError, counted, raise_all
from domainbed_sage.data import layout
from domainbed_sage.data.layout import Counts, Expected
from domainbed_sage.data.specs import DatasetSpec, datasets

if TYPE_CHECKING:
    from domainbed_sage.data.environment import MultiDomainDataset

SCHEME = "folder:"
MODEL = "small_cnn"  # needs no weights; anything else is the user's choice

_specs: dict[str, DatasetSpec] = {}


def known(name: str) -> str:
    """The name of a dataset; ``folder:PATH``, with a path as in a shell, is registered first.

    Raises:
        UserError: see `register`.
    """
    return register(Path(name.removeprefix(SCHEME))).name if name.startswith(SCHEME) else name


def register(path: Path, name: str = "") -> DatasetSpec:
    """Register a folder in DomainBed's layout, ``<path>/<environment>/<class>/<image>``; once is enough.

    Args:
        path: the folder.
        name: of the dataset; by default the folder's.

    Raises:
        UserError: there is no such folder, it has mistakes, or the name is another dataset's; lists all mistakes.
    """
    root = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - a link keeps its name
    name = name or root.name
    spec = _described(root, name)
    if _specs.get(name) is not None and (_specs[name].folder, _specs[name].counts) == (spec.folder, spec.counts):
        return _specs[name]
    if name in datasets:
        taken = f"from {_specs[name].folder}" if name in _specs else "already, e.g. by the suite itself"
        raise UserError(
            f"{root} cannot be registered as dataset {name!r}: there is one of this name {taken}. Rename the folder, "
            f"or give it another name in a sweep file: `datasets: {{NAME: {{folder: {root}}}}}`. For a published "
            f"dataset on this disk: --dataset {name} --data_dir {root.parent}."
        )
    _specs[name] = spec
    return datasets.register(name)(spec)


def loaded() -> tuple[DatasetSpec, ...]:
    """The specifications of all folders registered so far, for other processes to `adopt`."""
    return tuple(_specs.values())


def adopt(specs: Iterable[DatasetSpec]) -> None:
    """Register what another process has found: its folders are not looked at again before they are read."""
    for spec in specs:
        if spec.name not in datasets:
            _specs[spec.name] = datasets.register(spec.name)(spec)


def no_model(name: str, how: str) -> str:
    """A sentence for a user who has not named a model, and `how` to do so."""
    return f"No model is named for {name}: it is {MODEL}, for small images. Name another with {how}."


def _described(root: Path, name: str) -> DatasetSpec:
    from domainbed_sage.data.scan import scan

    if not root.is_dir():
        raise UserError(f"There is no folder {root}. It should hold a dataset as <environment>/<class>/<image>.")
    expected = layout.as_found(root, name)
    environments = expected.environments or ()
    found = scan(root, environments)
    raise_all([mistake for e in found.values() for mistake in e.mistakes], f"the folders of {name}")
    counts = {e: dict(sorted(found[e].images.items())) for e in environments}
    return DatasetSpec(
        name,
        environments,
        expected.num_classes or 0,
        partial(_read, root, name, expected, counts),
        model=MODEL,
        counts=tuple(sum(classes.values()) for classes in counts.values()),
        folder=str(root),
        expected=expected,
    )


def _read(root: Path, name: str, expected: Expected, before: Counts, data_dir: Path | None) -> "MultiDomainDataset":
    from domainbed_sage.data.folders import read_folders

    del data_dir
    dataset = read_folders(root, name, expected=expected)
    changed = [
        f"{root / env.name / c} had {counted(n, 'image')} when this command began, and has {found} now"
        for env in dataset.environments
        for label, (c, n) in enumerate(before[env.name].items())
        for found in [int((env.labels == label).sum())]
        if found != n
    ]
    raise_all(changed, f"the folders of {name}; start again when nothing changes there any more")
    return replace(dataset, variant=dataset.variant or population(before))


def population(counts: Counts) -> str:
    """What a folder holds, for records and tables, e.g. ``600 images, 4be14a09``."""
    text = strict_json.dumps([[e, sorted(classes.items())] for e, classes in counts.items()])
    total = sum(sum(classes.values()) for classes in counts.values())
    return f"{counted(total, 'image')}, {hashlib.sha256(text.encode()).hexdigest()[:8]}"
