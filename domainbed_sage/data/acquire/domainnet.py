"""Removal of DomainNet's duplicates, which DomainBed's script does and the published archives do not."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from domainbed_sage.core.errors import UserError, raise_all
from domainbed_sage.core.files import digest
from domainbed_sage.data import prepared
from domainbed_sage.data.acquire import disk
from domainbed_sage.data.environment import MultiDomainDataset
from domainbed_sage.data.folders import read_folders
from domainbed_sage.data.layout import Expected, OtherCounts, population

NAME = "DomainNet"
LIST_URL = "https://raw.githubusercontent.com/facebookresearch/DomainBed/main/domainbed/misc/domain_net_duplicates.txt"


def remove_duplicates(root: Path, listed: Path, expected: Expected) -> str:
    """Delete the listed files and record that they are gone; an interrupted removal is simply done again.

    Args:
        root: folder of DomainNet.
        listed: text file with one path ``environment/class/file`` per line.
        expected: what the folder should hold.

    Returns:
        a summary for the user.

    Raises:
        UserError: a line is no path inside an environment, or what would be left is no known population; nothing is
            deleted then.
    """
    dataset = read_folders(root, NAME, expected=replace(expected, populations={}))
    environments = [env.name for env in dataset.environments]
    paths = read_list(listed, environments)
    present = [path for path in paths if (root / path).is_file()]
    _check_rest(root, dataset, present, expected)
    with disk.explained(root, "Start the same command again: it goes on."):
        for path in present:
            (root / path).unlink()
    per_environment = Counter(path.parts[0] for path in paths)
    sha256 = digest(listed)
    prepared.update(
        root,
        [f"duplicates removed: the {len(paths)} files of a list with sha256 {sha256}"],
        duplicates={"listed": len(paths), "sha256": sha256, "per_environment": dict(per_environment)},
    )
    split = ", ".join(f"{e} {per_environment[e]}" for e in environments)
    return (
        f"{len(paths)} files are listed ({split}): {len(present)} were removed now, "
        f"{len(paths) - len(present)} were not there."
    )


def _check_rest(root: Path, dataset: MultiDomainDataset, gone: Sequence[PurePosixPath], expected: Expected) -> None:
    """Refuse a removal after which the dataset could not be used."""
    removed = Counter(path.parts[:2] for path in gone)
    counts = {
        env.name: {
            c: int((env.labels == label).sum()) - removed[env.name, c] for label, c in enumerate(dataset.classes)
        }
        for env in dataset.environments
    }
    try:
        population(root, NAME, counts, expected)
    except OtherCounts as error:
        raise UserError(f"Without the files of the list, {error.facts}\nNothing was removed.") from None


def read_list(listed: Path, environments: Sequence[str]) -> list[PurePosixPath]:
    """The paths of a list of duplicates, each once.

    Raises:
        UserError: the file is missing, empty or not in UTF-8, or a line is no path inside an environment.
    """
    if not listed.is_file():
        raise UserError(f"{listed} should be a list of duplicates. There is no such file.")
    try:
        lines = [line.strip() for line in listed.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"{listed} should be a list of duplicates in UTF-8 ({error}). Fetch it again.") from None
    paths = list(dict.fromkeys(PurePosixPath(line) for line in lines))
    raise_all(
        [
            f"{str(path)!r} should be environment/class/file"
            for path in paths
            if len(path.parts) != 3 or path.parts[0] not in environments or ".." in path.parts
        ][:10],
        f"the list of duplicates {listed}",
    )
    if not paths:
        raise UserError(f"{listed} should be a list of duplicates. It is empty.")
    return paths
