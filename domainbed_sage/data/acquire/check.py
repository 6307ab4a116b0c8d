"""Check that the dataset on disk is the published one, and the same as another lab's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from domainbed_sage.core.errors import UserError
from domainbed_sage.data import corrupt, scan
from domainbed_sage.data.acquire import disk, manifest
from domainbed_sage.data.environment import MultiDomainDataset
from domainbed_sage.data.specs import DatasetSpec


@dataclass(frozen=True)
class Listed:
    """A manifest: its file, how many files it lists, their bytes, and its fingerprint."""

    file: Path
    files: int
    size_bytes: int
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.file}: {self.files} files, {disk.readable(self.size_bytes)}, fingerprint {self.fingerprint}"


@dataclass(frozen=True)
class Decoded:
    """How many images were decoded, and which of them could not be and are listed in the dataset's folder."""

    images: int
    corrupt: tuple[str, ...]


@dataclass(frozen=True)
class Checked:
    """A dataset that is what it should be.

    Attributes:
        dataset: its name.
        folder: where it is.
        population: which of its populations it is; empty if there is one.
        classes: how many.
        environments: images of each.
        notes: what its reader has to say.
        links: images that are links to the file of another, each with that other.
        manifest: the manifest that all files agree with; None without one.
        decoded: None if no image was decoded.
    """

    dataset: str
    folder: Path
    population: str = ""
    classes: int = 0
    environments: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    manifest: Listed | None = None
    decoded: Decoded | None = None

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        sizes = self.environments
        population = f" ({self.population})" if self.population else ""
        counts = ", ".join(f"{name} {size}" for name, size in sizes.items())
        total = f"{sum(sizes.values())} images in {self.classes} classes"
        yield f"{self.dataset}{population} in {self.folder}: {total}; {counts}"
        yield from (f"note: {note}" for note in self.notes)
        if self.links:
            shown = corrupt.shown([f"{path} = {other}" for path, other in self.links])
            linked = f"{len(self.links)} images are links to the file of another"
            yield f"note: {linked}: {shown}; a split may have one in each half"
        if self.manifest is None:
            yield f"contents were not compared: `domainbed-sage data manifest {self.dataset}` writes a manifest"
        else:
            found = self.manifest
            yield f"all {found.files} files are those of {found.file} (fingerprint {found.fingerprint[:12]})"
        if self.decoded is not None:
            failed = len(self.decoded.corrupt)
            listed = f"{failed} cannot, and are listed in {self.folder / corrupt.FILE}"
            yield f"{self.decoded.images} images decoded: {listed if failed else 'all can be decoded'}"


def check(
    spec: DatasetSpec, data_dir: Path, other: Path | None = None, *, images: bool = False, leave_out: bool = False
) -> Checked:
    """Compare folders, classes and counts with the published ones, and every file with a manifest.

    Args:
        spec: a dataset that is read from disk.
        data_dir: folder that holds the dataset's folder.
        other: a manifest; by default the one in the dataset's folder, if there is one.
        images: decode every image as well.
        leave_out: list the corrupt ones in the dataset's folder instead of reporting them; implies `images`.

    Raises:
        UserError: something differs; lists what, both in the folders and against the manifest.
    """
    root = data_dir / spec.folder
    path = other or root / manifest.FILE
    mistakes: list[str] = []
    found = Checked(spec.name, root)
    with _told(mistakes, unless=not root.is_dir()):
        found = _described(found, spec.load(data_dir))
    with _told(mistakes):
        if other is not None or path.is_file():
            found = replace(found, manifest=_compared(spec, root, path, mistakes))
    if images or leave_out:
        with _told(mistakes):
            found = replace(found, decoded=_decode_all(spec, root, leave_out, mistakes))
    if mistakes:
        raise UserError("\n".join(mistakes))
    return found


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


def _described(found: Checked, dataset: MultiDomainDataset) -> Checked:
    environments = {env.name: len(env) for env in dataset.environments}
    return replace(
        found,
        dataset=dataset.name,
        population=dataset.variant,
        classes=len(dataset.classes),
        environments=environments,
        notes=tuple(dataset.notes),
        links=tuple(scan.same_files(found.folder, scan.images(found.folder, [*environments]))),
    )


def _compared(spec: DatasetSpec, root: Path, path: Path, mistakes: list[str]) -> Listed:
    wanted = manifest.read(path)
    found = manifest.build(root, spec.expected.environments or _folders(root))
    mistakes += manifest.compare(wanted, found).mistakes(root)
    return _listed(path, found)


def _listed(path: Path, made: manifest.Manifest) -> Listed:
    return Listed(path, len(made), sum(entry.size for entry in made.values()), manifest.fingerprint(made))


def _decode_all(spec: DatasetSpec, root: Path, leave_out: bool, mistakes: list[str]) -> Decoded | None:
    paths = list(scan.images(root, spec.expected.environments or _folders(root)))
    failed = corrupt.find(root, paths)
    if failed and not leave_out:
        named = corrupt.shown([str(root / path) for path in failed])
        mistakes.append(
            f"{len(failed)} of {len(paths)} images cannot be decoded: {named}. "
            f"Restore them, or list them with --leave_out for runs with the hyperparameter corrupt: leave_out"
        )
        return None
    corrupt.write(root, failed)
    return Decoded(len(paths), tuple(failed))


def write_manifest(spec: DatasetSpec, data_dir: Path, path: Path | None = None) -> Listed:
    """Write the manifest of a dataset that passes its check.

    Raises:
        UserError: the dataset does not pass.
    """
    root = data_dir / spec.folder
    dataset = spec.load(data_dir)
    made = manifest.build(root, [env.name for env in dataset.environments])
    path = path or root / manifest.FILE
    manifest.write(made, path)
    return _listed(path, made)


def _folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir())
