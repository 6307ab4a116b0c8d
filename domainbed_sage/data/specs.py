"""The datasets, one row each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from domainbed_sage.data import emoji
from domainbed_sage.data.environment import MultiDomainDataset
from domainbed_sage.data.folders import read_folders
from domainbed_sage.errors import UserError
from domainbed_sage.registry import Registry


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a dataset before it is read.

    Attributes:
        name: as given to ``--dataset``.
        environments: labels of the environments, in order, as DomainBed's tables print them.
        num_classes: number of classes.
        load: reads it, given ``--data_dir`` (which the embedded datasets do not need).
        steps: training steps when none are given; DomainBed's N_STEPS.
        checkpoint_freq: steps between evaluations when none are given; DomainBed's CHECKPOINT_FREQ.
        model: model when none is named.
    """

    name: str
    environments: tuple[str, ...]
    num_classes: int
    load: Callable[[Path | None], MultiDomainDataset]
    steps: int = 5001
    checkpoint_freq: int = 300
    model: str = "clip_vit_b16"


STYLES = ("fluent_hc", "noto", "openmoji", "twemoji")

datasets: Registry[DatasetSpec] = Registry("dataset")


def environment_labels() -> dict[str, tuple[str, ...]]:
    """Labels of the environments of every dataset, for tables."""
    return {name: spec.environments for name, spec in datasets.items()}


def _embedded(load: Callable[[], MultiDomainDataset], data_dir: Path | None) -> MultiDomainDataset:
    del data_dir
    return load()


def _on_disk(
    name: str, folder: str, environments: tuple[str, ...], num_classes: int, data_dir: Path | None
) -> MultiDomainDataset:
    if data_dir is None:
        raise UserError(f"{name} is read from disk: give the folder that holds {folder}/ with --data_dir.")
    return read_folders(data_dir / folder, name, environments, num_classes)


def _add(spec: DatasetSpec) -> None:
    datasets.register(spec.name)(spec)


def _add_embedded(name: str, load: Callable[[], MultiDomainDataset]) -> None:
    _add(DatasetSpec(name, STYLES, 10, partial(_embedded, load), steps=301, checkpoint_freq=60, model="small_cnn"))


def _add_folder(
    name: str, folder: str, labels: str, environments: tuple[str, ...], num_classes: int, checkpoint_freq: int = 300
) -> None:
    load = partial(_on_disk, name, folder, environments, num_classes)
    _add(DatasetSpec(name, tuple(labels.split()), num_classes, load, checkpoint_freq=checkpoint_freq))


_add_embedded("EmojiStyles", emoji.load_small)
_add_embedded("EmojiStylesDisjoint", lambda: emoji.disjoint(emoji.load_small()))
_add_folder("EmojiStylesLarge", "EmojiStylesLarge", " ".join(STYLES), STYLES, 23)
_add_folder("VLCS", "VLCS", "C L S V", ("Caltech101", "LabelMe", "SUN09", "VOC2007"), 5)
_add_folder("PACS", "PACS", "A C P S", ("art_painting", "cartoon", "photo", "sketch"), 7)
_add_folder("OfficeHome", "office_home", "A C P R", ("Art", "Clipart", "Product", "Real World"), 65)
_add_folder(
    "TerraIncognita",
    "terra_incognita",
    "L100 L38 L43 L46",
    ("location_100", "location_38", "location_43", "location_46"),
    10,
)
_add_folder(
    "DomainNet",
    "domain_net",
    "clip info paint quick real sketch",
    ("clipart", "infograph", "painting", "quickdraw", "real", "sketch"),
    345,
    checkpoint_freq=1000,
)
