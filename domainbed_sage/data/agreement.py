"""Check that a dataset matches its specification, which is all that is relied on until the dataset is read.

The held-out environment of a run is an index into the specification's environments; if the data had others, or the same
in another order, results would be filed under the wrong name. Another order is refused, not corrected: runs that were
made before keep their identity, and with it what their indices mean.
"""

from typing import TYPE_CHECKING

from domainbed_sage.core.errors import raise_all

if TYPE_CHECKING:
    from domainbed_sage.data.environment import MultiDomainDataset
    from domainbed_sage.data.specs import DatasetSpec


def check(spec: "DatasetSpec", dataset: "MultiDomainDataset") -> None:
    """Compare environments, classes and labels.

    Raises:
        UserError: they disagree; lists how.
    """
    mistakes = [*_environment_mistakes(spec, dataset), *_class_mistakes(spec, dataset)]
    raise_all(mistakes, f"what the specification of {spec.name} says of its data")


def _environment_mistakes(spec: "DatasetSpec", dataset: "MultiDomainDataset") -> list[str]:
    named = spec.expected.environments or spec.environments
    found = tuple(env.name for env in dataset.environments)
    both = f"it names {', '.join(named)}, and the data has {', '.join(found)}"
    if len(named) != len(found):
        return [f"the number of environments: {both}; name all that are read, and read all that are named"]
    if sorted(named) == sorted(found) and named != found:
        return [
            f"the order of the environments: {both}, so that another one would be held out than is named. Give "
            f"`environments` of the specification in the order of the data, or let `load` return them in its order: "
            f"`read_folders(…, environments={named})`"
        ]
    if not all(_fits(label, i, found) for i, label in enumerate(named)):
        return [
            f"the names of the environments: {both}; a name should be that of the folder or its start. Other "
            f"labels need the folders as well, in the same order: `expected=Expected(environments={found})`"
        ]
    return []


def _fits(label: str, index: int, found: tuple[str, ...]) -> bool:
    """Whether a label is the name at its index, or a prefix of that name alone; prefixes of numbers do not count."""
    beginnings = [i for i, name in enumerate(found) if name.lower().startswith(label.lower())]
    return label == found[index] or (beginnings == [index] and not label.isdecimal())


def _class_mistakes(spec: "DatasetSpec", dataset: "MultiDomainDataset") -> list[str]:
    n, wanted = len(dataset.classes), spec.expected.classes
    mistakes = []
    if n != spec.num_classes:
        mistakes.append(f"it has {spec.num_classes} classes, and the data {n}: {', '.join(dataset.classes)}")
    elif wanted and dataset.classes != wanted:
        mistakes.append(f"its classes are {', '.join(wanted)}, and those of the data {', '.join(dataset.classes)}")
    for env in dataset.environments:
        if not len(env):
            mistakes.append(f"environment {env.name} has no image")
        elif not 0 <= env.labels.min() <= env.labels.max() < n:
            mistakes.append(
                f"labels should be from 0 to {n - 1}; those of environment {env.name} go from {env.labels.min()} to "
                f"{env.labels.max()}"
            )
    return mistakes
