"""Datasets that are published as parquet tables, one image in a row, written out in DomainBed's layout."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.acquire import disk
from domainbed_sage.data.sources import Rows

BATCH = 128
NAMED = "file names are those of the parquet tables of {repo}"
NUMBERED = (
    "images came without file names from {repo} and are numbered in its row order: the in and out splits are seeded, "
    "but are not DomainBed's"
)
ENDINGS = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp", b"BM": "bmp"}


def write_tree(tables: Sequence[Path], source: Rows, classes: Sequence[str], tree: Path) -> str:
    """Write every row's image to ``<tree>/<environment>/<class>/<file>``.

    Args:
        tables: the parquet files, in order.
        source: which columns hold what.
        classes: sorted class names, for labels that are indices which the table itself does not describe.
        tree: new folder.

    Returns:
        a note on the file names, for the records.

    Raises:
        UserError: the tables do not have the columns or values that are expected.
        NoSpace: the disk is full.
    """
    columns = ["image", source.path] if source.path else ["image", source.domain, source.label]
    with disk.explained(tree, "The tables are kept: free some space and start the same command again."):
        for number, (row, names) in enumerate(_rows(tables, columns, source, classes)):
            content = _content(row["image"], source)
            place = _place(row, names, source, f"{number:06d}.{_ending(content)}")
            path = tree / place
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                raise UserError(f"{source.title} has two images for {place}. Use another source.")
            path.write_bytes(content)
    return (NAMED if source.path else NUMBERED).format(repo=source.repo)


def _rows(
    tables: Sequence[Path], columns: list[str], source: Rows, classes: Sequence[str]
) -> Iterator[tuple[Mapping[str, Any], Sequence[str]]]:
    """Rows, each with the class names that its table describes."""
    from pyarrow.parquet import ParquetFile  # slow to import

    for path in tables:
        table = ParquetFile(path)
        if lacking := [column for column in columns if column not in table.schema_arrow.names]:
            raise UserError(
                f"{source.title} should have the columns {', '.join(columns)} in {path.name}. Missing: "
                f"{', '.join(lacking)}. Found {', '.join(table.schema_arrow.names)}."
            )
        names = _class_names(table.schema_arrow.metadata or {}, source.label) or classes
        for batch in table.iter_batches(BATCH, columns=columns):
            for row in batch.to_pylist():
                yield row, names


def _class_names(metadata: Mapping[bytes, bytes], label: str) -> list[str]:
    """Class names that the library `datasets` keeps in a table's metadata."""
    try:
        found = strict_json.loads(metadata.get(b"huggingface", b"{}"))
        for key in ("info", "features", label, "names"):
            found = found.get(key, {})
    except (ValueError, AttributeError):  # somebody else's metadata: the names come from elsewhere, or are missed
        return []
    return [str(name) for name in found]


def _content(image: Any, source: Rows) -> bytes:
    content = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(content, bytes):
        raise UserError(f"{source.title} should hold encoded images in its column 'image'. Found {type(content)}.")
    return content


def _place(row: Mapping[str, Any], names: Sequence[str], source: Rows, numbered: str) -> PurePosixPath:
    if source.path:
        place = PurePosixPath(*PurePosixPath(str(row[source.path])).parts[-3:])
    else:
        domain, label = row[source.domain], row[source.label]
        if isinstance(label, int):
            label = names[label] if 0 <= label < len(names) else ""
        place = PurePosixPath(f"{domain}/{label}/{numbered}")
    if len(place.parts) != 3 or place.is_absolute() or ".." in place.parts:
        raise UserError(f"{source.title} should say environment, class and file of each image. Found {str(place)!r}.")
    return place


def _ending(content: bytes) -> str:
    return next((ending for head, ending in ENDINGS.items() if content.startswith(head)), "jpg")
