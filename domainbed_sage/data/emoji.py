"""EmojiStyles: the same emoji drawn by four independent vendors, so that the drawing style is the domain.

The class of an image is a group of Unicode emoji (mammal, building, …) and its key names the codepoint, e.g.
``mammal/1f400.png``. The small version (10 classes, 297 images of 32 px in each environment) ships with the package;
the large one (23 classes, 937 images in each environment, any size) is rendered by `prepare` from four pinned packages
of SVG drawings. Attribution and licences: ``emoji_styles/NOTICE.md``.
"""

import hashlib
import io
import json
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from domainbed_sage.core.errors import UserError
from domainbed_sage.data import npm
from domainbed_sage.data.environment import ArrayEnvironment, Environment, MultiDomainDataset

SHIPPED = Path(__file__).parent / "emoji_styles"
LARGE = "EmojiStylesLarge"
SMALL_SIZE, SMALL_CAP = 32, 30

Job = tuple[str, str, str]  # environment, class and codepoint of one image


@dataclass(frozen=True)
class Recipe:
    """Environment to drawings, class to codepoints, and the classes and the shipped arrays of the small version."""

    packages: Mapping[str, npm.Package]
    classes: Mapping[str, Sequence[str]]
    small_classes: tuple[str, ...]
    small: Path


def _icons(icons: str, sha256: str) -> npm.Package:
    """A package of drawings, by icon set and version."""
    return npm.Package(f"@iconify-json/{icons}", sha256)


_SMALL = ("building", "clothing", "dish", "face", "fruit_veg", "ground_vehicle", "hand", "mammal", "music", "plant")
EMOJI_STYLES = Recipe(
    packages={
        "fluent_hc": _icons(
            "fluent-emoji-high-contrast@1.2.6", "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0"
        ),
        "noto": _icons("noto@1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
        "openmoji": _icons("openmoji@1.2.29", "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5"),
        "twemoji": _icons("twemoji@1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"),
    },
    classes=json.loads((SHIPPED / "classes.json").read_bytes()),
    small_classes=_SMALL,
    small=SHIPPED / "small.npz",
)


def load_small(recipe: Recipe = EMOJI_STYLES) -> MultiDomainDataset:
    """EmojiStyles, small version: 10 classes, 4 environments of 297 images, RGB, uint8 [3, 32, 32].

    Environments, classes and samples have the order that torchvision's `ImageFolder`, and so DomainBed, would give to
    the same images as ``<environment>/<class>/<codepoint>.png``.
    """
    with np.load(recipe.small, allow_pickle=False) as arrays:
        images, labels, codepoints = arrays["images"], arrays["labels"], arrays["codepoints"]
        names, classes = arrays["environments"].tolist(), tuple(arrays["classes"].tolist())
    keys = [f"{classes[label]}/{codepoint}.png" for label, codepoint in zip(labels, codepoints, strict=True)]
    environments = tuple(ArrayEnvironment(n, i, labels, keys) for n, i in zip(names, images, strict=True))
    return MultiDomainDataset("EmojiStyles", classes, environments)


class Selection(Environment):
    """Some samples of another environment, by index, in the given order; nothing is copied or decoded."""

    def __init__(self, environment: Environment, indices: Sequence[int]) -> None:
        self.name, self.labels = environment.name, environment.labels[list(indices)]
        self.keys = [environment.keys[i] for i in indices]
        self._environment, self._indices = environment, indices

    def image(self, index: int) -> Tensor:
        """See `Environment.image`."""
        return self._environment.image(self._indices[index])


def disjoint(dataset: MultiDomainDataset) -> MultiDomainDataset:
    """Give every key to exactly one environment, as RotatedMNIST gives every digit one rotation.

    In the plain version a model that is tested on one style has seen each test concept in the other styles, so part of
    its score is recognition of the same emoji in another drawing. Here the concepts of the target environment are new.

    The keys of each class are dealt to the environments in turn, in the order of their md5; the next class continues
    where the last one ended. Environments, and the classes inside them, are equal in size to within 1.

    Raises:
        UserError: the environments differ in their keys or in the labels of their keys.
    """
    labels = [dict(zip(e.keys, e.labels.tolist(), strict=True)) for e in dataset.environments]
    for environment, found in zip(dataset.environments, labels, strict=True):
        if odd := sorted(key for key, _ in found.items() ^ labels[0].items()):
            raise UserError(
                f"{dataset.name} has no disjoint version: all its environments should hold the same samples under the "
                f"same names. Found {odd[0]!r} in only one of {dataset.environments[0].name!r} and "
                f"{environment.name!r}, or with another class. Choose a dataset such as EmojiStyles."
            )
    dealt = sorted(labels[0], key=lambda key: (labels[0][key], hashlib.md5(key.encode()).hexdigest()))
    owner = {key: turn % len(labels) for turn, key in enumerate(dealt)}
    environments = tuple(
        Selection(environment, [i for i, key in enumerate(environment.keys) if owner[key] == number])
        for number, environment in enumerate(dataset.environments)
    )
    return replace(dataset, name=f"{dataset.name}Disjoint", environments=environments)


class Icons:
    """The drawings of one package, by codepoint."""

    def __init__(self, package: Path) -> None:
        with tarfile.open(package) as archive:
            icons, characters = (
                json.load(cast(IO[bytes], archive.extractfile(f"package/{part}.json"))) for part in ("icons", "chars")
            )
        self._icons, self._aliases = icons["icons"], icons.get("aliases", {})
        self._defaults = {"left": 0, "top": 0, "width": 16, "height": 16} | icons
        self._names = {"-".join(c for c in code.split("-") if c != "fe0f"): n for code, n in characters.items()}

    def svg(self, codepoint: str, size: int) -> str:
        """The drawing as an SVG document of `size` by `size` pixels; a drawing that is not square is centred."""
        name = self._names[codepoint]
        while name not in self._icons:
            name = self._aliases[name]["parent"]
        icon = self._defaults | self._icons[name]
        box = " ".join(str(icon[part]) for part in ("left", "top", "width", "height"))
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{size}" height="{size}" viewBox="{box}">{icon["body"].replace("currentColor", "#000")}</svg>'
        )


def render(svg: str) -> Image.Image:
    """Rasterise an SVG document on white, RGB."""
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise UserError("Rendering needs resvg_py. Install it with: pip install 'domainbed-sage[prepare]'") from error
    png = svg_to_bytes(svg_string=svg, background="#ffffff", skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")


def rebuild_small(packages: Path, recipe: Recipe = EMOJI_STYLES) -> dict[str, np.ndarray]:
    """Render the small version from the packages in a folder; ``np.savez_compressed`` of the result is its file.

    Images are uint8 [environments, n, 32, 32, 3]; the n labels and codepoints are the same in every environment.
    """
    icons, classes = _load_icons(recipe, packages), sorted(recipe.small_classes)
    jobs = _jobs(recipe, classes, SMALL_CAP)
    images = np.stack([np.asarray(render(icons[e].svg(codepoint, SMALL_SIZE))) for e, _, codepoint in jobs])
    samples = jobs[: len(jobs) // len(icons)]
    return {
        "images": images.reshape(len(icons), len(samples), SMALL_SIZE, SMALL_SIZE, 3),
        "labels": np.array([classes.index(name) for _, name, _ in samples], dtype=np.uint8),
        "codepoints": np.array([codepoint for _, _, codepoint in samples]),
        "environments": np.array(sorted(icons)),
        "classes": np.array(classes),
    }


def compare_small(rebuilt: Mapping[str, np.ndarray], recipe: Recipe = EMOJI_STYLES) -> tuple[int, int, int]:
    """Compare a result of `rebuild_small` with the shipped arrays: numbers of images, differing images and pixels."""
    with np.load(recipe.small, allow_pickle=False) as shipped:
        different = (rebuilt["images"] != shipped["images"]).any(axis=-1)
    per_image = np.count_nonzero(different, axis=(-2, -1))
    return per_image.size, int((per_image > 0).sum()), int(per_image.sum())


def prepare(
    data_dir: Path,
    size: int,
    *,
    cap: int | None = None,
    packages: Path | None = None,
    recipe: Recipe = EMOJI_STYLES,
    progress: Callable[[list[Job]], Iterable[Job]] = tqdm,
) -> str:
    """Render the large version to ``<data_dir>/EmojiStylesLarge/<environment>/<class>/<codepoint>.png``.

    The folder appears only when it is complete. The small version is rebuilt too and compared with the shipped one.
    `size` is in pixels; `cap` is the most codepoints to keep of each class; `packages` is a folder with the packages,
    which npm downloads where it is None; `progress` wraps the list of images. Returns a summary for the user.

    Raises:
        UserError: the folder exists, a number is not positive, the packages are not available, or resvg_py is missing.
    """
    start, folder = time.monotonic(), data_dir / LARGE
    if folder.exists():
        raise UserError(f"{folder} exists already. Use it as it is, or remove it to render it again.")
    if size < 1 or (cap is not None and cap < 1):
        raise UserError(f"size and cap should be positive. Found size = {size}, cap = {cap}.")
    render('<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>')  # fails before the download, not after
    with tempfile.TemporaryDirectory() as temporary:
        source = packages or _npm_pack(recipe, Path(temporary))
        icons, small = _load_icons(recipe, source), _check_small(source, recipe)
    jobs = _jobs(recipe, recipe.classes, cap)
    megabytes = _write_folder(folder, icons, progress(jobs), size) / 1e6
    large = f"{len(jobs)} images of {size} px in {folder}, {megabytes:.0f} MB, {time.monotonic() - start:.0f} s"
    return f"EmojiStyles (small): {small}; {LARGE}: {large}"


def _check_small(packages: Path, recipe: Recipe) -> str:
    """Rebuild the small version and say how it compares with the shipped one."""
    images, unlike, pixels = compare_small(rebuild_small(packages, recipe), recipe)
    other = f" ({pixels} pixels differ, as they may with another version of resvg)" if unlike else ""
    return f"rebuilt, {images - unlike} of {images} images identical to the shipped ones{other}"


def write_notice(folder: Path) -> None:
    """Copy the attribution and the licences of the drawings into a folder of rendered images."""
    shutil.copyfile(SHIPPED / "NOTICE.md", folder / "NOTICE.md")


def _jobs(recipe: Recipe, classes: Iterable[str], cap: int | None) -> list[Job]:
    """The images in ImageFolder's order: environments, classes and file names are sorted as strings."""
    return [
        (environment, name, codepoint)
        for environment in sorted(recipe.packages)
        for name in sorted(classes)
        for codepoint in sorted(recipe.classes[name][:cap], key="{}.png".format)
    ]


def _write_folder(folder: Path, icons: Mapping[str, Icons], jobs: Iterable[Job], size: int) -> int:
    """Build in a temporary folder beside `folder`, move that into place, and return the bytes of all images."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        built = Path(temporary) / folder.name
        for environment, name, codepoint in jobs:
            path = built / environment / name / f"{codepoint}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            render(icons[environment].svg(codepoint, size)).save(path)
        write_notice(built)
        built.rename(folder)
    return sum(path.stat().st_size for path in folder.rglob("*.png"))


def _load_icons(recipe: Recipe, folder: Path) -> dict[str, Icons]:
    """Environment to drawings, from checked packages."""
    npm.check(recipe.packages.values(), folder, "the drawings")
    return {environment: Icons(folder / package.archive) for environment, package in recipe.packages.items()}


def _npm_pack(recipe: Recipe, folder: Path) -> Path:
    """Download the packages into `folder` and return it."""
    advice = "The small EmojiStyles ships inside domainbed_sage and needs none of this."
    npm.pack(list(recipe.packages.values()), folder, f"drawings of {LARGE}", "7 MB", advice)
    return folder
