"""Parquet tables: written out in DomainBed's layout, with a note where file names, and so the splits, are lost."""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import generated_trees as trees
import pyarrow
import pyarrow.parquet
import pytest
from local_server import Site, serve

from domainbed_sage.core.errors import UserError
from domainbed_sage.data.acquire import obtain as module
from domainbed_sage.data.acquire import parquet
from domainbed_sage.data.sources import parquet as rows_of
from domainbed_sage.data.specs import datasets

PACS = replace(datasets["PACS"], size_bytes=10**6)
NOTE = (
    "images came without file names from flwrlabs/pacs and are numbered in its row order: the in and out splits are "
    "seeded, but are not DomainBed's"
)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def table(rows: list[Mapping[str, Any]], names: tuple[str, ...] = ()) -> bytes:
    """A parquet file as the library `datasets` writes it: class names in the schema's metadata."""
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    made = pyarrow.Table.from_pylist(rows)
    file = io.BytesIO()
    pyarrow.parquet.write_table(made.replace_schema_metadata({"huggingface": json.dumps(features)}), file)
    return file.getvalue()


def row(number: int, **columns: Any) -> dict[str, Any]:
    return {"image": {"bytes": trees.jpeg(number), "path": None}, **columns}


def test_images_without_names_are_numbered_and_the_record_says_so(site: Site, tmp_path: Path) -> None:
    pairs = [(e, c) for e in PACS.expected.environments or () for c in range(7)]
    rows: list[Mapping[str, Any]] = [row(i, domain=e, label=c) for i, (e, c) in enumerate(pairs)]
    first, second = table(rows[:10], PACS.expected.classes), table(rows[10:])
    site.add_hub("flwrlabs/pacs", {"README.md": b"", "data/train-0.parquet": first, "data/train-1.parquet": second})
    dataset = module.obtain(PACS, tmp_path, (rows_of("flwrlabs/pacs"),), subset="one of each", say=lambda line: None)
    assert dataset.notes[1] == NOTE
    assert dataset.classes == PACS.expected.classes
    found = {n: d for n, d in trees.files(tmp_path / "PACS").items() if n.endswith(".jpg")}
    assert found == {f"{e}/{PACS.expected.classes[c]}/{i:06d}.jpg": trees.jpeg(i) for i, (e, c) in enumerate(pairs)}


def test_paths_are_kept_where_the_tables_have_them(site: Site, tmp_path: Path) -> None:
    source = rows_of("wltjr1007/DomainNet", label="category", path="image_path")
    (tmp_path / "0").write_bytes(table([row(0, image_path="data/real/dog/real_100_01.jpg", category="ignored")]))
    note = parquet.write_tree([tmp_path / "0"], source, (), tmp_path / "tree")
    assert note == "file names are those of the parquet tables of wltjr1007/DomainNet"
    assert trees.files(tmp_path / "tree") == {"real/dog/real_100_01.jpg": trees.jpeg(0)}
    with pytest.raises(UserError, match=r"has two images for real/dog/real_100_01.jpg. Use another source"):
        parquet.write_tree([tmp_path / "0"], source, (), tmp_path / "tree")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"domain": "..", "label": 0},
            r"should say environment, class and file of each image. Found '../dog/000000.jpg'",
        ),
        ({"domain": "photo", "label": 7}, r"Found 'photo/000000.jpg'"),
        ({"domain": "photo", "label": "dog/more"}, r"Found 'photo/dog/more/000000.jpg'"),
        (
            {"domain": "photo", "class": 0},
            r"should have the columns image, domain, label in 0. Missing: label. Found imag",
        ),
        (
            {"domain": "photo", "label": 0, "image": "x"},
            r"should hold encoded images in its column 'image'. Found <class",
        ),
    ],
)
def test_tables_of_another_kind(site: Site, tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    (tmp_path / "0").write_bytes(table([row(0, **columns) if "image" not in columns else columns]))
    with pytest.raises(UserError, match=message):
        parquet.write_tree([tmp_path / "0"], rows_of("flwrlabs/pacs"), PACS.expected.classes, tmp_path / "tree")
