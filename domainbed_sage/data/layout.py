"""What the folder of a dataset must hold, and what is wrong with one that does not.

DomainBed takes every sub-directory for an environment and numbers the classes of each environment on its own: a stray
directory shifts the environments, and a missing class folder silently shifts the labels of one. Here both are mistakes
that name the path.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from domainbed_sage.core.errors import UserError, raise_all
from domainbed_sage.data import prepared


class OtherCounts(UserError):  # noqa: N818 - reads as what it is
    """The folders are right, but the numbers of images match no known population.

    Args:
        facts: what was found and what was expected.
        advice: what to do with a dataset in its place.
    """

    def __init__(self, facts: str, advice: str) -> None:
        super().__init__(f"{facts}\n{advice}")
        self.facts = facts


@dataclass(frozen=True)
class Expected:
    """What a dataset's folder should hold.

    Attributes:
        environments: environment folders, in order; `None` takes all sub-directories, sorted as strings.
        num_classes: how many class folders each has.
        classes: their names, where they are known beforehand.
        populations: images per environment, by variant; the variant "" is DomainBed's only one. Empty: any.
        class_counts: images per environment and class, where they are known beforehand.
    """

    environments: tuple[str, ...] | None = None
    num_classes: int | None = None
    classes: tuple[str, ...] = ()
    populations: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    class_counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


Counts = Mapping[str, Mapping[str, int]]  # environment -> class -> images


def is_image(name: str) -> bool:
    """Whether torchvision's ImageFolder, and so DomainBed, reads a file of this name."""
    from torchvision.datasets.folder import IMG_EXTENSIONS  # slow to import, and not needed to list datasets

    return name.lower().endswith(IMG_EXTENSIONS)


def folder_mistakes(root: Path, name: str, expected: Expected) -> tuple[list[str], list[str]]:
    """The environments to read, and what is wrong with the folders of the dataset `name` in `root`."""
    found = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    hidden = [e for e in found if e.startswith(".")]
    visible = [e for e in found if e not in hidden]
    environments = visible if expected.environments is None else list(expected.environments)
    mistakes = [f"environment folder {root / e} is missing" for e in environments if e not in visible]
    mistakes += [f"{root / e} is not an environment of {name}; move it away" for e in visible if e not in environments]
    mistakes += [f"{root / e} is hidden, and DomainBed would read it as an environment; remove it" for e in hidden]
    if not environments:
        mistakes.append(f"{root} holds no environment folder")
    classes = _classes(root, [e for e in environments if e in visible], mistakes)
    mistakes += _class_mistakes(root, name, classes, expected)
    union = set().union(*classes.values())
    if expected.num_classes is not None and union and len(union) != expected.num_classes:
        mistakes.append(f"{expected.num_classes} classes are expected, found {len(union)}: {', '.join(sorted(union))}")
    return environments, mistakes


def as_found(root: Path, name: str) -> Expected:
    """The present contents of the folder of the dataset `name`, as what to expect of it from now on.

    Raises:
        UserError: the folder is not there, or its folders have mistakes.
    """
    if not root.is_dir():
        raise UserError(
            f"{name} should be in {root}, which does not exist. Give an absolute path, set DOMAINBED_DATA_DIR, or say "
            f"what the folder will hold: environments and num_classes."
        )
    environments, mistakes = folder_mistakes(root, name, Expected())
    raise_all(mistakes, f"the folders of {name}")
    classes = tuple(sorted(path.name for path in (root / environments[0]).iterdir() if path.is_dir()))
    return Expected(tuple(environments), len(classes), classes)


def _classes(root: Path, environments: Sequence[str], mistakes: list[str]) -> dict[str, set[str]]:
    """Visible class folders of each environment; hidden ones, and an environment without any, are mistakes."""
    classes = {}
    for e in environments:
        found = sorted(entry.name for entry in (root / e).iterdir() if entry.is_dir())
        classes[e] = {c for c in found if not c.startswith(".")}
        mistakes += [
            f"{root / e / c} is hidden, and DomainBed would read it as a class; remove it"
            for c in found
            if c.startswith(".")
        ]
        if not classes[e]:
            mistakes.append(f"environment folder {root / e} holds no class folder")
    return classes


def _class_mistakes(root: Path, name: str, classes: Mapping[str, set[str]], expected: Expected) -> list[str]:
    holders = {c: [e for e in classes if c in classes[e]] for c in sorted(set().union(*classes.values()))}
    if expected.classes:
        strays = [c for c in holders if c not in expected.classes]
    else:  # a folder that few environments have is stray there, not missing from all others
        strays = [c for c, having in holders.items() if 2 * len(having) < len(classes)]
    mistakes = [
        f"{root / e / c} is not a class of {name}; move it away"
        if expected.classes
        else f"{root / e / c} is in {len(holders[c])} of {len(classes)} environments only; move it away, or complete it"
        for c in strays
        for e in holders[c]
    ]
    required = sorted({*holders, *expected.classes} - set(strays))
    return mistakes + [
        f"class folder {root / e / c} is missing" + (", but other environments have it" if c in holders else "")
        for e in classes
        for c in required
        if classes[e] and c not in classes[e]
    ]


def population(root: Path, name: str, counts: Counts, expected: Expected) -> str:
    """Which known population of the dataset these images are.

    Returns:
        a key of ``expected.populations``, or ``subset: …`` when ``SUBSET.txt`` declares a part.

    Raises:
        OtherCounts: the counts fit no known population; names the folders.
    """
    if (part := prepared.subset(root)) is not None:
        return f"subset: {part}"
    if (variant := published(counts, expected)) is not None or not expected.populations:
        return variant or ""
    raise OtherCounts(
        _unlike(root, name, counts, expected),
        f"Get it again with `domainbed-sage data download {name}`, or compare it file by file with another lab's "
        f"manifest: `domainbed-sage data check {name} --manifest FILE`. {prepared.if_a_part(root)}",
    )


def published(counts: Counts, expected: Expected) -> str | None:
    """The published population that has these numbers of images; `None` if none has."""
    totals = tuple(sum(classes.values()) for classes in counts.values())
    fitting = (variant for variant, wanted in expected.populations.items() if totals == wanted)
    return None if any(_wrong_classes(counts, expected)) else next(fitting, None)


def _wrong_classes(counts: Counts, expected: Expected) -> Iterator[tuple[str, str, int]]:
    """Environment, class and published number of images, for each class where the number differs."""
    for e, per_class in expected.class_counts.items():
        yield from ((e, c, n) for c, n in per_class.items() if counts[e].get(c, 0) != n)


def _unlike(root: Path, name: str, counts: Counts, expected: Expected) -> str:
    wrong_classes = [
        f"class folder {root / e / c} holds {counts[e].get(c, 0)} images, expected {n}"
        for e, c, n in _wrong_classes(counts, expected)
    ]
    lines = [
        f"environment folder {root / e} holds {sum(classes.values())} images, expected "
        f"{' or '.join(map(str, dict.fromkeys(wanted)))}"
        for (e, classes), *wanted in zip(counts.items(), *expected.populations.values(), strict=True)
        if sum(classes.values()) not in wanted
    ]
    if not lines and not wrong_classes:
        lines = [f"the environments in {root} are from different populations"]
    found = ", ".join(f"{e} {sum(classes.values())}" for e, classes in counts.items())
    allowed = "; ".join(
        f"{variant + ': ' if variant else ''}{sum(wanted)} = {' + '.join(map(str, wanted))}"
        for variant, wanted in expected.populations.items()
    )
    return (
        f"{name} in {root} does not have the published numbers of images:\n"
        + "".join(f"  - {line}\n" for line in [*lines, *wrong_classes])
        + f"Found {found}. Published: {allowed}."
    )
