"""Check that the dataset on disk is the published one, and the same as another lab's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from domainbed_sage.core.errors import UserError
from domainbed_sage.data import corrupt, scan
from domainbed_sage.data.acquire import disk, manifest
from domainbed_sage.data.environment import MultiDomainDataset
from domainbed_sage.data.specs import DatasetSpec


def check(
    spec: DatasetSpec, data_dir: Path, other: Path | None = None, *, images: bool = False, leave_out: bool = False
) -> str:
    """Compare folders, classes and counts with the published ones, and every file with a manifest.

    Args:
        spec: a dataset that is read from disk.
        data_dir: folder that holds the dataset's folder.
        other: a manifest; by default the one in the dataset's folder, if there is one.
        images: decode every image as well.
        leave_out: list the corrupt ones in the dataset's folder instead of reporting them; implies `images`.

    Returns:
        a summary for the user.

    Raises:
        UserError: something differs; lists what, both in the folders and against the manifest.
    """
    root = data_dir / spec.folder
    path = other or root / manifest.FILE
    lines: list[str] = []
    mistakes: list[str] = []
    with _told(mistakes, unless=not root.is_dir()):
        dataset = spec.load(data_dir)
        lines += [*_describe(dataset, root), *_links(dataset, root)]
    with _told(mistakes):
        lines += _compare(spec, root, path, mistakes) if other is not None or path.is_file() else [_uncompared(spec)]
    if images or leave_out:
        with _told(mistakes):
            lines += _decode_all(spec, root, leave_out, mistakes)
    if mistakes:
        raise UserError("\n".join(mistakes))
    return "\n".join(lines)


@contextmanager
def _told(mistakes: list[str], *, unless: bool = False) -> Iterator[None]:
    """Add an error to the mistakes, and go on with the next check."""
    try:
        yield
    except UserError as error:
        if unless:
            raise
        mistakes.append(str(error))
    except OSError as error:
        mistakes.append(f"{error.filename} cannot be read ({error.strerror}). Repair the disk or its permissions.")


def _compare(spec: DatasetSpec, root: Path, path: Path, mistakes: list[str]) -> list[str]:
    wanted = manifest.read(path)
    found = manifest.build(root, spec.expected.environments or _folders(root))
    mistakes += manifest.compare(wanted, found).mistakes(root)
    return [f"all {len(found)} files are those of {path} (fingerprint {manifest.fingerprint(found)[:12]})"]


def _uncompared(spec: DatasetSpec) -> str:
    return f"contents were not compared: `domainbed-sage data manifest {spec.name}` writes a manifest"


def _decode_all(spec: DatasetSpec, root: Path, leave_out: bool, mistakes: list[str]) -> list[str]:
    paths = list(scan.images(root, spec.expected.environments or _folders(root)))
    failed = corrupt.find(root, paths)
    if failed and not leave_out:
        named = corrupt.shown([str(root / path) for path in failed])
        mistakes.append(
            f"{len(failed)} of {len(paths)} images cannot be decoded: {named}. "
            f"Restore them, or list them with --leave_out for runs with the hyperparameter corrupt: leave_out"
        )
        return []
    corrupt.write(root, failed)
    listed = f"{len(failed)} cannot, and are listed in {root / corrupt.FILE}" if failed else "all can be decoded"
    return [f"{len(paths)} images decoded: {listed}"]


def write_manifest(spec: DatasetSpec, data_dir: Path, path: Path | None = None) -> str:
    """Write the manifest of a dataset that passes its check, and say so.

    Raises:
        UserError: the dataset does not pass.
    """
    root = data_dir / spec.folder
    dataset = spec.load(data_dir)
    made = manifest.build(root, [env.name for env in dataset.environments])
    path = path or root / manifest.FILE
    manifest.write(made, path)
    size = disk.readable(sum(entry.size for entry in made.values()))
    return f"{path}: {len(made)} files, {size}, fingerprint {manifest.fingerprint(made)}"


def _describe(dataset: MultiDomainDataset, root: Path) -> list[str]:
    variant = f" ({dataset.variant})" if dataset.variant else ""
    counts = ", ".join(f"{env.name} {len(env)}" for env in dataset.environments)
    total = sum(len(env) for env in dataset.environments)
    return [
        f"{dataset.name}{variant} in {root}: {total} images in {len(dataset.classes)} classes; {counts}",
        *(f"note: {note}" for note in dataset.notes),
    ]


def _links(dataset: MultiDomainDataset, root: Path) -> list[str]:
    pairs = scan.same_files(root, scan.images(root, [env.name for env in dataset.environments]))
    if not pairs:
        return []
    shown = corrupt.shown([f"{path} = {other}" for path, other in pairs])
    return [f"note: {len(pairs)} images are links to the file of another: {shown}; a split may have one in each half"]


def _folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir())
