"""Images per second and worker processes: our loader against DomainBed's scheme on the same JPEG tree.

    python scripts/bench_loader.py [--root TREE] [--workers 2] [--steps 40] [--json FILE]

"domainbed" is a transcription of DomainBed's scheme: an infinite loader with 8 worker processes for every source
environment, and one with 8 for every in and out split of every environment, all alive at the same time; full JPEG
decoding with PIL, its augmentation (random resized crop, flip, jitter, grayscale), float32 minibatches. "ours" is one
loader for all source environments with uint8 minibatches; "draft" also decodes JPEGs at a reduced scale. All produce
the same number of rows per step; the measurements alternate, in both orders.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from domainbed_sage.data.decode import Decode, decoder
from domainbed_sage.data.folders import read_folders
from domainbed_sage.data.splits import split
from domainbed_sage.data.stream import TrainStream
from domainbed_sage.data.transforms import DataOptions, train_transform
from domainbed_sage.models import ImageSpec

DOMAINBED_WORKERS = 8
ENVIRONMENTS, CLASSES = 4, 7


class Endless(Sampler[list[int]]):
    """Repeats a batch sampler forever."""

    def __init__(self, batches: BatchSampler) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        """Yield batches of indices indefinitely."""
        while True:
            yield from self.batches


def make_tree(root: Path, images: int, size: tuple[int, int]) -> None:
    """Write smooth random JPEGs: ENVIRONMENTS x CLASSES folders with `images` each."""
    rng = np.random.default_rng(0)
    for env in range(ENVIRONMENTS):
        for cls in range(CLASSES):
            folder = root / f"env{env}" / f"class{cls}"
            folder.mkdir(parents=True)
            for i in range(images):
                coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
                coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{i:04}.jpg", quality=90)


def domainbed(root: Path, batch_size: int, steps: int) -> tuple[float, int]:
    """Seconds for `steps` minibatches, and number of worker processes, of DomainBed's scheme."""
    normalise = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    crop = [transforms.RandomResizedCrop(224, scale=(0.7, 1.0)), transforms.RandomHorizontalFlip()]
    colour = [transforms.ColorJitter(0.3, 0.3, 0.3, 0.3), transforms.RandomGrayscale()]
    augment = transforms.Compose([*crop, *colour, *normalise])
    envs = [ImageFolder(str(path), augment) for path in sorted(root.iterdir())]
    splits = [split(len(env), i, 0) for i, env in enumerate(envs)]
    halves = [Subset(e, keys.tolist()) for e, s in zip(envs, splits, strict=True) for keys in (s.in_, s.out)]

    def endless(data: Subset, size: int, replacement: bool) -> Iterator[list[torch.Tensor]]:
        batches = BatchSampler(RandomSampler(data, replacement=replacement), size, drop_last=replacement)
        return iter(DataLoader(data, batch_sampler=Endless(batches), num_workers=DOMAINBED_WORKERS))

    sources = [endless(half, batch_size, True) for half in halves[2::2]]  # environment 0 is held out
    evaluations = [endless(half, 64, False) for half in halves]
    next(zip(*sources, strict=True))
    processes = len(multiprocessing.active_children())
    began = time.perf_counter()
    for _ in range(steps):
        next(zip(*sources, strict=True))
    seconds = time.perf_counter() - began
    del sources, evaluations
    return seconds, processes


def ours(
    root: Path, batch_size: int, steps: int, workers: int, augment: str, decode: Decode = "full"
) -> tuple[float, int]:
    """Seconds for `steps` minibatches, and number of worker processes, of our loader."""
    dataset = read_folders(root, "bench", cache_gb=0)
    environments = [env.decoded_by(decoder(decode, 224)) for env in dataset.environments]
    inner = [split(len(env), i, 0).in_ for i, env in enumerate(environments)]
    transform = train_transform(DataOptions(augment=augment), ImageSpec(224, (0, 0, 0), (1, 1, 1)))  # type: ignore[arg-type]
    stream = TrainStream(environments[1:], inner[1:], batch_size, transform, seed=0)
    batches = stream.batches(0, steps + 1, workers)
    next(batches)
    processes = len(multiprocessing.active_children())
    began = time.perf_counter()
    for _ in range(steps):
        next(batches)
    seconds = time.perf_counter() - began
    del batches
    return seconds, processes


def main() -> None:
    """Alternate the loaders and print images per second, worker processes, and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folders environment/class/image (default: generated)")
    parser.add_argument("--images", type=int, default=30, help="generated images per class and environment")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), help="size of the generated images, pixels")
    parser.add_argument("--batch_size", type=int, default=12, help="rows per source environment")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2, help="worker processes of our loader")
    parser.add_argument("--rounds", type=int, default=2, help="measurements in each of the two orders")
    parser.add_argument("--augment", choices=("crop_flip", "domainbed"), default="domainbed", help="of our loader")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = args.root or Path(temporary) / "tree"
        if args.root is None:
            make_tree(root, args.images, tuple(args.size))
        rivals = {
            "ours": lambda: ours(root, args.batch_size, args.steps, args.workers, args.augment),
            "draft": lambda: ours(root, args.batch_size, args.steps, args.workers, args.augment, "draft"),
            "domainbed": lambda: domainbed(root, args.batch_size, args.steps),
        }
        figures: dict[str, list[tuple[float, int]]] = {name: [] for name in rivals}
        for order in (tuple(rivals), tuple(reversed(rivals))) * args.rounds:
            for name in order:
                figures[name].append(rivals[name]())
    rows = args.steps * args.batch_size * (ENVIRONMENTS - 1)
    rates = {name: median(rows / seconds for seconds, _ in runs) for name, runs in figures.items()}
    for name, runs in figures.items():
        print(f"{name:<10} {rates[name]:8.1f} images/s (median of {len(runs)})   {runs[0][1]:>3} worker processes")
    for name in ("ours", "draft"):
        print(f"ratio {name} / domainbed: {rates[name] / rates['domainbed']:.2f}")
    if args.json:
        seconds = {name: [s for s, _ in runs] for name, runs in figures.items()}
        processes = {name: runs[0][1] for name, runs in figures.items()}
        args.json.write_text(json.dumps({"images_per_s": rates, "seconds": seconds, "processes": processes}, indent=1))


if __name__ == "__main__":
    main()
