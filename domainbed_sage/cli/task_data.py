"""The part of `domainbed-sage data` about datasets of several tasks."""

import argparse
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainbed_sage.cli import as_json
from domainbed_sage.cli.terminal import folded
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.files import readable
from domainbed_sage.data.multitask.base import TaskDataSpec

if TYPE_CHECKING:
    from domainbed_sage.data.acquire.check import Listed

ACTIONS = ("check", "manifest")


def describe(spec: TaskDataSpec) -> str:
    """The text of `data list` about a dataset."""
    height, width = spec.size
    counts = ", ".join(f"{number} {split}" for split, number in spec.counts.items())
    kinds = list(spec.kinds.items())
    tasks = [f"{task} ({kind.channels} outputs)" for task, kind in kinds[:3]]
    tasks += [f"and {len(kinds) - 3} others"] if len(kinds) > 3 else []
    lines = [f"{spec.name}: {len(kinds)} tasks: {', '.join(tasks)}; {height} x {width} pixels"]
    lines.append(f"{f'in {spec.folder}/' if spec.folder else 'inside the package'}: {counts}")
    size = readable(spec.size_bytes) if spec.size_bytes else ""
    told = (("size", size), ("licence", spec.licence), ("cite", spec.citation))
    lines += [f"{what}: {text}" for what, text in told if text]
    how = f"`domainbed-sage data download {spec.name}`" if spec.fetch else "docs/multitask_data.md"
    lines += [f"how to get it: {how}"] if spec.folder else []
    return "\n".join(folded(line, "  " * (at > 0)) for at, line in enumerate(lines))


def as_object(spec: TaskDataSpec) -> dict[str, Any]:
    """The entry of a dataset in `data list --json`: all its fields except functions."""
    return {field.name: getattr(spec, field.name) for field in fields(spec) if field.name not in ("load", "fetch")}


def main(spec: TaskDataSpec, args: argparse.Namespace) -> int:
    """Check every sample of a dataset, write its manifest, or download it.

    Raises:
        UserError: the dataset is not what it should be, or the action is none for it.
    """
    if args.action == "download" and spec.fetch:
        print(folded(f"{spec.name}: {spec.fetch(args.data_dir / spec.folder)}, of the expected content"))
        return 0
    if args.action not in ACTIONS:
        raise UserError(
            f"`data {args.action}` is for datasets of domain generalization. For {spec.name} there are "
            f"{' and '.join(ACTIONS)}; docs/multitask_data.md says how to get it."
        )
    if args.action == "manifest":
        listed = _manifest(spec, args.data_dir, args.output)
        as_json.show(asdict(listed)) if args.json else print(folded(str(listed)))
        return 0
    if args.manifest or args.images or args.leave_out:
        raise UserError(f"All samples of {spec.name} are read anyway: leave out --manifest, --images and --leave_out.")
    from tqdm import tqdm

    from domainbed_sage.data.multitask import samples

    data = spec.read(args.data_dir)
    samples.check(data, partial(tqdm, desc=spec.name, unit="sample", leave=False, disable=None))
    counts = {split: len(found) for split, found in data.splits.items()}
    if args.json:
        as_json.show({"dataset": spec.name, "population": data.population, "samples": counts, "notes": data.notes})
    else:
        print(folded(f"{spec.name}: {data.population}; types, shapes and values of all samples are as they should be"))
        print("".join(f"{folded(f'note: {note}')}\n" for note in data.notes), end="")
    return 0


def _manifest(spec: TaskDataSpec, data_dir: Path, output: Path | None) -> "Listed":
    """The manifest of all files of a dataset whose counts are right."""
    from domainbed_sage.data.acquire import manifest
    from domainbed_sage.data.acquire.check import Listed

    if not spec.folder:
        raise UserError(f"{spec.name} is inside the package: it has no files to list.")
    spec.read(data_dir)
    root = data_dir / spec.folder
    path = output or root / manifest.FILE
    files = (file for file in root.rglob("*") if file.is_file() and file != root / manifest.FILE)
    made = manifest.of_files(root, sorted(file.relative_to(root).as_posix() for file in files))
    manifest.write(made, path)
    return Listed(path, len(made), sum(entry.size for entry in made.values()), manifest.fingerprint(made))
