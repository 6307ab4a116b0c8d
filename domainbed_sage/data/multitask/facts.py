"""What is published about the multi-task datasets: tasks, sizes, counts. No PyTorch is needed to know it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from domainbed_sage.data.multitask.base import Kind

LAST = {"segmentation": (), "depth": (1,), "normal": (3,)}  # dimensions of a file after height and width


@dataclass(frozen=True)
class Layout:
    """What is known of a dataset in MTAN's layout, see `mtan_layout`.

    Attributes:
        name: as given to ``--dataset``.
        kinds: see `TaskData`.
        size: height and width, pixels.
        counts: samples of each split.
        folders: folders of tasks that are not named after the task.
    """

    name: str
    kinds: Mapping[str, Kind]
    size: tuple[int, int]
    counts: Mapping[str, int]
    folders: Mapping[str, str] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Folder to the shape of its files: the image's, then those of the tasks."""
        tasks = {self.folders.get(task, task): (*self.size, *LAST[kind.word]) for task, kind in self.kinds.items()}
        return {"image": (*self.size, 3), **tasks}


NYU = Layout(
    "NYUv2",
    {
        "segmentation": Kind("segmentation", 13),
        "depth": Kind("depth", 1, 100.0),  # metres; the sensor ends near 10, and millimetres would be far above
        "normal": Kind("normal", 3),
    },
    (288, 384),
    {"train": 795, "test": 654},
    {"segmentation": "label"},
)
CITYSCAPES = Layout(
    "Cityscapes",
    {"segmentation": Kind("segmentation", 7), "depth": Kind("depth", 1, 1.0)},
    (128, 256),
    {"train": 2975, "test": 500},
    {"segmentation": "label_7"},
)

ROOMS_KINDS = {
    "segmentation": Kind("segmentation", 13),
    "depth": Kind("depth", 1, 10.0),
    "normal": Kind("normal", 3),
}
ROOMS_SIZE = (64, 96)
ROOMS_COUNTS = {"train": 160, "test": 80}  # by default

DIGITS_KINDS = {"left": Kind("classification", 10), "right": Kind("classification", 10)}
DIGITS_SIZE, PICKLED_SIZE = (28, 28), (36, 36)
DIGITS_COUNTS = {"train": 8000, "test": 2000}
PICKLED_COUNTS = {"train": 120_000, "test": 20_000}

_ATTRIBUTES = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair "
    "Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
    "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks "
    "Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
    "Wearing_Necktie Young"
)
CELEBA_KINDS = {name: Kind("classification", 2) for name in _ATTRIBUTES.split()}
CELEBA_SIZE = (64, 64)
CELEBA_COUNTS = {"train": 162_770, "validation": 19_867, "test": 19_962}  # in the order of their numbers in its list
