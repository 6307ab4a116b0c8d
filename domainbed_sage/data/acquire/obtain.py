"""Bring a dataset from a source into its place: fetch, arrange, check, and only then rename.

Everything happens in a hidden folder ``.<folder>.download`` beside the final one, so that broken or unfinished data
never look like a dataset. What was fetched stays there until the dataset is complete.
"""

import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from domainbed_sage.core import network
from domainbed_sage.core.errors import NoSpace, UserError
from domainbed_sage.core.files import digest
from domainbed_sage.data import prepared
from domainbed_sage.data.acquire import arrange, disk, download, hub
from domainbed_sage.data.acquire.archives import DamagedArchive
from domainbed_sage.data.environment import MultiDomainDataset
from domainbed_sage.data.folders import read_folders
from domainbed_sage.data.layout import OtherCounts
from domainbed_sage.data.sources import Drive, Hub, Own, Source
from domainbed_sage.data.specs import DatasetSpec

Say = Callable[[str], None]


@dataclass(frozen=True)
class Fetched:
    """What a source delivered, and where exactly it came from."""

    parts: tuple[Path, ...]
    title: str
    sha256: Mapping[str, str]


def obtain(
    spec: DatasetSpec, data_dir: Path, sources: Sequence[Source], *, subset: str = "", say: Say = print
) -> MultiDomainDataset:
    """Get a dataset from the first source that delivers it.

    Args:
        spec: the dataset.
        data_dir: parent directory; the dataset is created in a subfolder.
        sources: in order of preference.
        subset: what the data is, if its counts need not be the published ones.
        say: shows a line to the user.

    Raises:
        UserError: an environment variable is wrong, the dataset is there already, another process is at it, or no
            source delivers; says why of each.
        NoSpace: the disk is full.
    """
    failures = []
    if not all(isinstance(source, Own) for source in sources):
        network.check_variables()
    with staging(spec, data_dir) as folder:
        for source in sources:
            say(f"{spec.name}: from {source.title}")
            try:
                return _from_source(spec, source, data_dir, folder, subset)
            except NoSpace:
                raise
            except UserError as error:
                say(f"  {str(error).splitlines()[0]}")
                failures.append(f"{source.title}: {error}".replace("\n", "\n    "))
        kept = _size(folder)
    raise UserError(
        f"{spec.name} could not be had from {'its source' if len(sources) == 1 else 'any source'}:\n"
        + "".join(f"  - {failure}\n" for failure in failures)
        + (f"What came ({disk.readable(kept)}) is kept in {folder} for the next attempt.\n" if kept else "")
        + f"If you have a copy, give it: `domainbed-sage data download {spec.name} --from ARCHIVE_OR_FOLDER`."
    )


def rebuild_terra(
    spec: DatasetSpec, data_dir: Path, images: Path, annotations: Path, *, subset: str = ""
) -> tuple[MultiDomainDataset, str]:
    """Build TerraIncognita from the user's copies of the original images and annotations.

    Args:
        spec: TerraIncognita.
        data_dir: parent directory; the dataset is created in a subfolder.
        images: folder or archive of the images.
        annotations: annotation file, or folder or archive of the files of one generation.
        subset: what the data is, if its counts need not be the published ones.

    Returns:
        the dataset, and the rules that were applied.

    Raises:
        UserError: see `terra.rebuild`; or the result is neither known population.
        NoSpace: the disk is full.
    """
    note = ""

    def make(work: Path, tree: Path) -> None:
        nonlocal note
        note = arrange.camera_traps((images, annotations), work, tree)
        prepared.update(tree, [note])

    with staging(spec, data_dir) as folder:
        return _build(spec, data_dir, folder, make, subset), note


@contextmanager
def staging(spec: DatasetSpec, data_dir: Path) -> Iterator[Path]:
    """Own the hidden folder of a dataset that is being built; it is removed once the dataset is in its place.

    Raises:
        UserError: the dataset is there already, or another process is at work on it.
    """
    target, folder = data_dir / spec.folder, data_dir / f".{spec.folder}.download"
    if target.exists():
        raise UserError(
            f"{target} exists already. Check it with `domainbed-sage data check {spec.name}`, or move it away to get "
            f"it again."
        )
    with disk.explained(folder, "Free some space and start the same command again."):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{spec.name} is being downloaded to {data_dir} by another process. Wait for its end."
            ) from None
        except OSError as error:
            raise UserError(
                f"{data_dir} is on a file system without locks ({error.strerror}), where two downloads at once could "
                "spoil each other's work. Choose another --data_dir, and move the dataset there when it is complete."
            ) from None
        try:
            yield folder
        finally:
            if target.exists() or not _size(folder):
                shutil.rmtree(folder)


def _build(
    spec: DatasetSpec, data_dir: Path, folder: Path, make: Callable[[Path, Path], None], subset: str
) -> MultiDomainDataset:
    """Let `make` fill a new tree, check it as the dataset, and move it into place."""
    work = folder / "work"
    tree = work / spec.folder
    shutil.rmtree(work, ignore_errors=True)
    try:
        tree.mkdir(parents=True)
        make(work, tree)
        if subset:
            prepared.declare_subset(tree, subset)
        _verify(spec, tree)
        tree.rename(data_dir / spec.folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return spec.load(data_dir)


def _verify(spec: DatasetSpec, tree: Path) -> None:
    try:
        read_folders(tree, spec.name, expected=spec.expected)
    except UserError as error:
        text = str(error)
        if isinstance(error, OtherCounts):
            text = f"{error.facts}\nTo keep it all the same, give it a name: --subset 'WHAT IT IS'."
        raise UserError(text.replace(str(tree), spec.folder)) from None  # the tree itself is about to be removed


def _from_source(spec: DatasetSpec, source: Source, data_dir: Path, folder: Path, subset: str) -> MultiDomainDataset:
    needed = sum(_size(p) for p in source.paths) if isinstance(source, Own) else 2 * spec.size_bytes - _size(folder)
    disk.require(data_dir, needed, f"Fetching and unpacking {spec.name}")
    fetched = _fetch(source, folder / source.key)

    def make(work: Path, tree: Path) -> None:
        try:
            note = arrange.arrange(source, fetched.parts, work, tree, spec)
        except DamagedArchive:
            if not isinstance(source, Own):
                shutil.rmtree(folder / source.key)
            raise
        notes = [f"from {fetched.title}", *([note] if note else [])]
        prepared.update(tree, notes, source={"title": fetched.title, "sha256": fetched.sha256})

    return _build(spec, data_dir, folder, make, subset)


def _fetch(source: Source, folder: Path) -> Fetched:
    if isinstance(source, Own):
        hashes = {path.name: digest(path) for path in source.paths if path.is_file()}
        return Fetched(source.paths, source.title, hashes)
    if isinstance(source, Drive):
        path = folder / source.name
        return Fetched((path,), source.title, {path.name: download.fetch_drive(source.file_id, path)})
    title, files = source.title, []
    if isinstance(source, Hub):
        revision, found = hub.find(source)
        title, folder = f"{title} at revision {revision}", folder / revision[:12]
        disk.require(folder, sum(f.size for f in found) - _size(folder), f"Fetching from {source.title}")
        files = [(f.url, f.path.replace("/", "_"), f.sha256) for f in found]
    else:
        files = [(url, Path(unquote(urlsplit(url).path)).name, None) for url in source.urls]
    hashes = {name: download.fetch(url, folder / name, sha256) for url, name, sha256 in files}
    return Fetched(tuple(folder / name for name in hashes), title, hashes)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())
