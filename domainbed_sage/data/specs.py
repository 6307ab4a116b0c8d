"""The datasets, one row each. Their readers are imported on use: names and counts need no PyTorch."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import Power, Search, check_ranges
from domainbed_sage.core.registry import Registry
from domainbed_sage.data import agreement, layout, sources
from domainbed_sage.data.layout import Expected
from domainbed_sage.data.sources import Source

if TYPE_CHECKING:
    from domainbed_sage.data.environment import MultiDomainDataset


@dataclass(frozen=True)
class DatasetSpec:
    """What is known about a dataset before it is read, and must match it when it is, see `agreement`.

    Attributes:
        name: as given to ``--dataset``.
        environments: labels of the environments, in order, as DomainBed's tables print them.
        num_classes: number of classes.
        load: reads it, given ``--data_dir`` (which the embedded datasets do not need), and checks that it agrees.
        steps: training steps when none are given; DomainBed's N_STEPS.
        checkpoint_freq: steps between evaluations when none are given; DomainBed's CHECKPOINT_FREQ.
        model: model when none is named.
        counts: images per environment, of DomainBed's population or, where there are several, of the first.
        folder: its folder in ``--data_dir``; empty for the embedded datasets.
        expected: environment folders, classes and numbers of images.
        aliases: names of environment folders in other collections, to DomainBed's.
        size_bytes: what the images take on disk, roughly.
        licence: terms of use, as far as its authors state any.
        citation: what to cite.
        sources: where to get it, in order of preference.
        search: random-search ranges that replace the suite's for this dataset, by hyperparameter.
        recommended: defaults that replace the suite's for this dataset, by hyperparameter.
        held_out: what is held out when nothing is said; DomainBed's.
        only_held_out: all that may be held out; empty, as here, if each environment may be.
    """

    name: str
    environments: tuple[str, ...]
    num_classes: int
    load: Callable[[Path | None], "MultiDomainDataset"]
    steps: int = 5001
    checkpoint_freq: int = 300
    model: str = "clip_vit_b16"
    counts: tuple[int, ...] = ()
    folder: str = ""
    expected: Expected = field(default_factory=Expected)
    aliases: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int = 0
    licence: str = ""
    citation: str = ""
    sources: tuple[Source, ...] = ()
    search: Mapping[str, Search] = field(default_factory=dict)
    recommended: Mapping[str, Any] = field(default_factory=dict)
    held_out: ClassVar[tuple[str, ...]] = ("index:0",)
    only_held_out: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        names, folders = self.environments, self.expected.environments or self.environments
        if len(set(names)) != len(names) or len(folders) != len(names):
            raise UserError(
                f"Dataset {self.name} should name each environment once, and its folders in the same order where they "
                f"have other names. Found {', '.join(names)} with the folders {', '.join(folders)}."
            )
        check_ranges(self.search, f"dataset {self.name}")
        load = self.load.load if isinstance(self.load, _Checked) else self.load  # of a copy with other fields
        object.__setattr__(self, "load", _Checked(self, load))

    def schedule(self, hparams: Mapping[str, Any]) -> tuple[int, int]:
        """Steps, and steps between evaluations, when none are given."""
        del hparams
        return self.steps, self.checkpoint_freq

    def place(self, data_dir: Path | None) -> Path | None:
        """The folder that holds the dataset's folder: `data_dir`, unless its specification gives an absolute path."""
        return Path(self.folder).parent if Path(self.folder).is_absolute() else data_dir


@dataclass(frozen=True, repr=False, eq=False)
class _Checked:
    """Reads a dataset and compares it with its specification: every dataset is read through this class."""

    spec: DatasetSpec
    load: Callable[[Path | None], "MultiDomainDataset"]

    def __call__(self, data_dir: Path | None) -> "MultiDomainDataset":
        name, folder = self.spec.name, self.spec.folder
        if data_dir is None and folder and not Path(folder).is_absolute():
            raise UserError(f"{name} is read from disk: give the folder that holds {folder}/ with --data_dir.")
        dataset = self.load(data_dir)
        agreement.check(self.spec, dataset)
        return dataset


STYLES = ("fluent_hc", "noto", "openmoji", "twemoji")

datasets: Registry[DatasetSpec] = Registry("dataset", DatasetSpec)


def environment_labels() -> dict[str, tuple[str, ...]]:
    """Labels of the environments of every dataset, for tables."""
    return {name: spec.environments for name, spec in datasets.items()}


def find(name: str) -> DatasetSpec:
    """The dataset with a name, or a folder name such as ``terra_incognita``; case does not matter.

    Raises:
        UserError: there is none.
    """
    for spec in datasets.values():
        if name.lower() in (spec.name.lower(), spec.folder.lower()):
            return spec
    return datasets[name]


def folder_dataset(
    name: str, folder: str | Path, environments: Sequence[str] = (), num_classes: int = 0, **facts: Any
) -> DatasetSpec:
    """Register your own dataset in DomainBed's layout, ``<folder>/<environment>/<class>/<image>``.

    One line in a plugin; the first form reads the names of environments and classes from the folder, at once::

        folder_dataset("Cams", "/data/Cams")
        folder_dataset("Cams", "Cams", ("hall", "street"), 5)  # in --data_dir, wherever that will be

    Args:
        name: as given to ``--dataset``.
        folder: the dataset's folder, in ``--data_dir`` unless it is an absolute path. A relative one without
            environments is looked for in the folder that DOMAINBED_DATA_DIR names, else in ``data_cache``.
        environments: the environment folders, in the order that numbers them.
        num_classes: number of class folders in each; needed with `environments`.
        facts: other fields of `DatasetSpec`, e.g. ``steps`` or ``model``.

    Raises:
        UserError: the name is taken, or the folder is not there or has mistakes.
    """
    expected = Expected(tuple(environments), num_classes)
    if not environments:
        expected = layout.as_found(Path(os.environ.get("DOMAINBED_DATA_DIR", "data_cache")) / folder, name)
    load = partial(_on_disk, name, str(folder), expected)
    row: dict[str, Any] = {"folder": str(folder), "expected": expected} | facts
    spec = DatasetSpec(name, expected.environments or (), expected.num_classes or 0, load, **row)
    return datasets.register(name)(spec)


def _emoji_styles(data_dir: Path | None) -> "MultiDomainDataset":
    from domainbed_sage.data import emoji

    del data_dir
    return emoji.load_small()


def _emoji_styles_disjoint(data_dir: Path | None) -> "MultiDomainDataset":
    from domainbed_sage.data import emoji

    return emoji.disjoint(_emoji_styles(data_dir))


def _on_disk(name: str, folder: str, expected: Expected, data_dir: Path | None) -> "MultiDomainDataset":
    from domainbed_sage.data.folders import read_folders

    return read_folders((data_dir or Path()) / folder, name, expected=expected)


def _add(spec: DatasetSpec) -> None:
    datasets.register(spec.name)(spec)


def _add_embedded(name: str, load: Callable[[Path | None], "MultiDomainDataset"], counts: tuple[int, ...]) -> None:
    facts: dict[str, Any] = {"steps": 301, "checkpoint_freq": 60, "model": "small_cnn", "licence": _EMOJI_LICENCE}
    _add(DatasetSpec(name, STYLES, 10, load, counts=counts, **facts))


def _add_folder(name: str, folder: str, labels: str, expected: Expected, **facts: Any) -> None:
    load = partial(_on_disk, name, folder, expected)
    environments, num_classes = tuple(labels.split()), expected.num_classes or 0
    counts = next(iter(expected.populations.values()), ())
    row: dict[str, Any] = {"folder": folder, "expected": expected, "counts": counts} | facts
    _add(DatasetSpec(name, environments, num_classes, load, **row))


def _expected(environments: tuple[str, ...], classes: str, populations: Mapping[str, tuple[int, ...]]) -> Expected:
    names = tuple(classes.split())
    return Expected(environments, len(names), names, populations)


_EMOJI_LICENCE = "Apache-2.0, CC-BY-4.0, CC-BY-SA-4.0 and MIT, one for each style: see emoji_styles/NOTICE.md"
_FAIR_USE = "copyrighted images under fair use, for non-commercial research and education"
_OFFICE_HOME_CLASSES = (
    "Alarm_Clock Backpack Batteries Bed Bike Bottle Bucket Calculator Calendar Candles Chair Clipboards Computer Couch "
    "Curtains Desk_Lamp Drill Eraser Exit_Sign Fan File_Cabinet Flipflops Flowers Folder Fork Glasses Hammer Helmet "
    "Kettle Keyboard Knives Lamp_Shade Laptop Marker Monitor Mop Mouse Mug Notebook Oven Pan Paper_Clip Pen Pencil "
    "Postit_Notes Printer Push_Pin Radio Refrigerator Ruler Scissors Screwdriver Shelf Sink Sneakers Soda Speaker "
    "Spoon TV Table Telephone ToothBrush Toys Trash_Can Webcam"
)
_VLCS_CLASSES = ("bird", "car", "chair", "dog", "person")
_VLCS_COUNTS = {
    "Caltech101": (237, 123, 118, 67, 870),
    "LabelMe": (80, 1209, 88, 42, 1237),
    "SUN09": (20, 932, 1036, 30, 1264),
    "VOC2007": (330, 699, 428, 420, 1499),
}

_add_embedded("EmojiStyles", _emoji_styles, (297,) * 4)
_add_embedded("EmojiStylesDisjoint", _emoji_styles_disjoint, (75, 74, 74, 74))
_add_folder(
    "EmojiStylesLarge",
    "EmojiStylesLarge",
    " ".join(STYLES),
    Expected(STYLES, 23),  # any numbers of images: `emoji.prepare` can be told to make fewer
    counts=(937,) * 4,
    licence=_EMOJI_LICENCE,
)
_add_folder(
    "VLCS",
    "VLCS",
    "C L S V",
    Expected(
        tuple(_VLCS_COUNTS),
        len(_VLCS_CLASSES),
        _VLCS_CLASSES,
        {"": tuple(sum(counts) for counts in _VLCS_COUNTS.values())},
        {e: dict(zip(_VLCS_CLASSES, counts, strict=True)) for e, counts in _VLCS_COUNTS.items()},
    ),
    size_bytes=3_510_000_000,
    licence="none stated for the collection; its parts are Caltech101, LabelMe, SUN09 and PASCAL VOC 2007",
    citation="Fang, Xu, Rockmore: Unbiased Metric Learning. ICCV 2013",
    sources=sources.VLCS,
)
_add_folder(
    "PACS",
    "PACS",
    "A C P S",
    _expected(
        ("art_painting", "cartoon", "photo", "sketch"),
        "dog elephant giraffe guitar horse house person",
        {"": (2048, 2344, 1670, 3929)},
    ),
    size_bytes=171_000_000,
    licence="none stated",
    citation="Li, Yang, Song, Hospedales: Deeper, Broader and Artier Domain Generalization. ICCV 2017",
    sources=sources.PACS,
)
_add_folder(
    "OfficeHome",
    "office_home",
    "A C P R",
    _expected(("Art", "Clipart", "Product", "Real World"), _OFFICE_HOME_CLASSES, {"": (2427, 4365, 4439, 4357)}),
    aliases={"Real_World": "Real World", "RealWorld": "Real World"},
    size_bytes=1_116_000_000,
    licence=_FAIR_USE,
    citation="Venkateswara, Eusebio, Chakraborty, Panchanathan: Deep Hashing Network for Unsupervised Domain "
    "Adaptation. CVPR 2017",
    sources=sources.OFFICE_HOME,
)
_add_folder(
    "TerraIncognita",
    "terra_incognita",
    "L100 L38 L43 L46",
    _expected(
        ("location_100", "location_38", "location_43", "location_46"),
        "bird bobcat cat coyote dog empty opossum rabbit raccoon squirrel",
        {"24788": (4879, 9767, 4020, 6122), "24330": (4741, 9736, 3970, 5883)},
    ),
    size_bytes=2_730_000_000,
    licence="Community Data License Agreement, permissive variant",
    citation="Beery, Van Horn, Perona: Recognition in Terra Incognita. ECCV 2018",
    sources=sources.TERRA_INCOGNITA,
)
_add_folder(
    "DomainNet",
    "domain_net",
    "clip info paint quick real sketch",
    Expected(
        ("clipart", "infograph", "painting", "quickdraw", "real", "sketch"),
        345,
        populations={
            "": (48129, 51605, 72266, 172500, 172947, 69128),
            "596006 with duplicates": (48833, 53201, 75759, 172500, 175327, 70386),
        },
    ),
    checkpoint_freq=1000,
    search={"batch_size": Power(2, 3, 5, integer=True)},  # DomainBed's: smaller, for memory
    size_bytes=15_570_000_000,
    licence=_FAIR_USE,
    citation="Peng, Bai, Xia, Huang, Saenko, Wang: Moment Matching for Multi-Source Domain Adaptation. ICCV 2019",
    sources=sources.DOMAIN_NET,
)
