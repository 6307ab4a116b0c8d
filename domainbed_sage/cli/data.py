"""`domainbed-sage data`: list, download, check and prepare datasets."""

import argparse
import os
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainbed_sage.cli import as_json, machine, task_data
from domainbed_sage.cli.numbers import whole
from domainbed_sage.cli.terminal import folded
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.files import readable
from domainbed_sage.data import own
from domainbed_sage.data.multitask.base import TaskDataSpec
from domainbed_sage.data.multitask.specs import task_datasets
from domainbed_sage.data.sources import Own, Source
from domainbed_sage.data.specs import DatasetSpec, datasets, find

if TYPE_CHECKING:
    from domainbed_sage.data.acquire.check import Checked, Listed
    from domainbed_sage.data.environment import MultiDomainDataset

PREPARED = "EmojiStyles, TerraIncognita, DomainNet"
LARGEST_SIDE = 10_000  # pixels
DATA_DIR = Path(os.environ.get("DOMAINBED_DATA_DIR", "data_cache"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listed = actions.add_parser("list", help="the datasets, their environments, licences and sources")
    listed.add_argument("names", nargs="*", metavar="NAME", help="only these; a folder of yours is folder:PATH")
    machine.add_plugin_argument(listed)
    as_json.add_argument(listed)
    named = {
        name: actions.add_parser(name, help=text, description=text)
        for name, text in (
            ("download", "get a dataset from the first of its sources that delivers it"),
            ("check", "compare a dataset with the published counts, and every file with a manifest"),
            ("manifest", "write path, size and sha256 of every image, to compare with another lab"),
            ("prepare", "build a dataset from its sources"),
            ("cache", "store the images resized and decoded, for runs with `decode: resized`"),
        )
    }
    for parser in named.values():
        of_any = "see `domainbed-sage data list`; a folder of yours is folder:PATH"
        parser.add_argument("name", help=PREPARED if parser is named["prepare"] else of_any)
        parser.add_argument("--data_dir", type=Path, default=DATA_DIR, help="folder of the datasets (%(default)s)")
        machine.add_plugin_argument(parser)
    for action in ("check", "manifest", "cache"):
        as_json.add_argument(named[action])
    for parser in (named["download"], named["prepare"]):
        parser.add_argument("--subset", default="", help="keep other counts, and name the data so in every record")
    named["download"].add_argument("--from", dest="own", type=Path, nargs="+", help="your archives, or your folder")
    named["download"].add_argument("--source", help="only this source, named as in `domainbed-sage data list`")
    named["check"].add_argument("--manifest", type=Path, help="another lab's manifest, in place of the dataset's own")
    named["check"].add_argument("--images", action="store_true", help="decode every image as well")
    named["check"].add_argument(
        "--leave_out", action="store_true", help="list corrupt images in CORRUPT.txt, which runs can leave out"
    )
    named["cache"].add_argument(
        "--image_size", type=whole(1, LARGEST_SIDE), default=224, help="side of the model's images (%(default)s)"
    )
    named["manifest"].add_argument("--output", type=Path, help="file to write, in place of one with the dataset")
    _add_prepare(named["prepare"])


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    emojis, terra, net = (parser.add_argument_group(name) for name in PREPARED.split(", "))
    emojis.add_argument(
        "--size", type=whole(1, LARGEST_SIDE), default=112, help="side length of the large version, pixels"
    )
    emojis.add_argument("--packages", type=Path, help="folder with the four packages, in place of a download by npm")
    terra.add_argument("--images", type=Path, help="folder or archive of the original images")
    terra.add_argument("--annotations", type=Path, help="annotation file, or folder or archive of annotation files")
    net.add_argument("--duplicates", help="list of files to remove: file, or address (default: DomainBed's)")


def main(args: argparse.Namespace) -> int:
    """Run the requested action.

    Raises:
        UserError: the dataset is unknown, not available, or not what it should be.
    """
    machine.load_plugins(args)
    if args.action == "list":
        every: list[DatasetSpec | TaskDataSpec] = [*datasets.values(), *task_datasets.values()]
        specs = [task_datasets[n] if n in task_datasets else find(own.known(n)) for n in args.names] or every
        if args.json:
            as_json.show([task_data.as_object(s) if isinstance(s, TaskDataSpec) else as_object(s) for s in specs])
        else:
            told = (task_data.describe(s) if isinstance(s, TaskDataSpec) else describe(s) for s in specs)
            print("\n".join(told))
        return 0
    if args.action == "prepare" and args.name.lower() == "emojistyles":
        from domainbed_sage.data import emoji

        print(emoji.prepare(args.data_dir, args.size, packages=args.packages))
        return 0
    if args.name in task_datasets:
        return task_data.main(task_datasets[args.name], args)
    spec = find(own.known(args.name))
    if not spec.folder:
        raise UserError(f"{spec.name} is inside the package: there is nothing to {args.action}.")
    if spec in own.loaded() and args.action in ("download", "prepare"):
        raise UserError(f"{args.name} is there already: there is nothing to {args.action}.")
    actions = (_download, _check, _manifest, _prepare, _cache)
    done: Any = {action.__name__: action for action in actions}[f"_{args.action}"](spec, args)
    if getattr(args, "json", False):
        as_json.show(asdict(done))
    else:
        print("\n".join(map(folded, str(done).splitlines())))
    return 0


def describe(spec: DatasetSpec) -> str:
    """The text of `data list` about a dataset."""
    lines = [f"{spec.name}: {spec.num_classes} classes; environments {', '.join(spec.environments)}"]
    if spec.folder:
        lines.append(f"in {spec.folder}/: {', '.join(spec.expected.environments or ())}")
    lines += [
        f"{sum(counts)} images{f' (variant {variant})' if variant else ''}: {' + '.join(map(str, counts))}"
        for variant, counts in (spec.expected.populations or {"": spec.counts}).items()
        if counts
    ]
    lines += [f"{what}: {text}" for what, text in (("licence", spec.licence), ("cite", spec.citation)) if text]
    lines += [f"source {source.key}: {source.title}" for source in spec.sources]
    return "\n".join(folded(line, "  " * (at > 0)) for at, line in enumerate(lines))


def as_object(spec: DatasetSpec) -> dict[str, Any]:
    """The entry of a dataset in `data list --json`: all its fields except the function that reads it."""
    known = {field.name: getattr(spec, field.name) for field in fields(spec) if field.name != "load"}
    sources = [{"kind": type(source).__name__, "title": source.title, **asdict(source)} for source in spec.sources]
    return known | {"sources": sources}


def summary(dataset: "MultiDomainDataset", where: Path) -> str:
    """One line about a dataset that was just installed."""
    variant = f", population {dataset.variant}" if dataset.variant else ""
    return f"{dataset.name}: {sum(map(len, dataset.environments))} images in {where}{variant}"


def _download(spec: DatasetSpec, args: argparse.Namespace) -> str:
    from domainbed_sage.data.acquire.obtain import obtain

    sources: tuple[Source, ...] = (Own(tuple(args.own)),) if args.own else spec.sources
    if args.source and not args.own:
        sources = tuple(source for source in spec.sources if source.key == args.source)
    if not sources:
        known = ", ".join(source.key for source in spec.sources) or "none, see `domainbed-sage data prepare`"
        raise UserError(f"{spec.name} has no such source. Known: {known}. Or give your own copy with --from.")
    dataset = obtain(spec, args.data_dir, sources, subset=args.subset)
    hint = f"; `domainbed-sage data prepare {spec.name}` removes them, as DomainBed does"
    return summary(dataset, args.data_dir / spec.folder) + (hint if "with duplicates" in dataset.variant else "")


def _check(spec: DatasetSpec, args: argparse.Namespace) -> "Checked":
    from domainbed_sage.data.acquire import check

    return check.check(spec, args.data_dir, args.manifest, images=args.images, leave_out=args.leave_out)


@dataclass(frozen=True)
class Cache:
    """Images that were stored resized: their folder, their bytes, and the longest short side of an image, pixels."""

    folder: Path
    size_bytes: int
    side: int

    def __str__(self) -> str:
        made = f"{self.folder}: {readable(self.size_bytes)}, short sides at most {self.side} pixels"
        return f"{made}; runs with decode: resized read it"


def _cache(spec: DatasetSpec, args: argparse.Namespace) -> Cache:
    from domainbed_sage.data import resized
    from domainbed_sage.data.decode import decoder

    side = decoder("resized", args.image_size).side
    root = args.data_dir / spec.folder
    size = resized.store(root, spec.load(args.data_dir), side)
    return Cache(resized.folder_of(root, side), size, side)


def _manifest(spec: DatasetSpec, args: argparse.Namespace) -> "Listed":
    from domainbed_sage.data.acquire import check

    return check.write_manifest(spec, args.data_dir, args.output)


def _prepare(spec: DatasetSpec, args: argparse.Namespace) -> str:
    from domainbed_sage.data.acquire.obtain import rebuild_terra

    if spec.name == "TerraIncognita":
        if not (args.images and args.annotations):
            raise UserError(
                "TerraIncognita is built from --images and --annotations of Caltech Camera Traps. Give both."
            )
        dataset, note = rebuild_terra(spec, args.data_dir, args.images, args.annotations, subset=args.subset)
        return f"{summary(dataset, args.data_dir / spec.folder)}; {note}"
    if spec.name == "DomainNet":
        return _remove_duplicates(spec, args.data_dir, args.duplicates)
    raise UserError(f"{spec.name!r} cannot be prepared. Known: {PREPARED}.")


def _remove_duplicates(spec: DatasetSpec, data_dir: Path, given: str | None) -> str:
    from domainbed_sage.data.acquire import domainnet, download

    root, listed = data_dir / spec.folder, given or domainnet.LIST_URL
    with tempfile.TemporaryDirectory() as folder:
        path = Path(listed)
        if "://" in listed:
            path = Path(folder) / "duplicates.txt"
            download.fetch(listed, path)
        removed = domainnet.remove_duplicates(root, path, spec.expected)
    return f"{summary(spec.load(data_dir), root)}; {removed}"
