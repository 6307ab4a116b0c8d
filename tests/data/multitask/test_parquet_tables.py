"""NYU-v2's parquet tables, written out in MTAN's layout."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from multitask_cases import HOMES, arrays
from pyarrow import parquet as pq

from domainbed_sage.core.errors import UserError
from domainbed_sage.data.acquire import disk
from domainbed_sage.data.multitask import mtan_layout, parquet, samples

NAMES = {"image": "image", "label": "segmentation", "depth": "depth", "normal": "normal"}


def row(seed):
    """One row: channels first, the labels as whole numbers."""
    found = {}
    for kind, array in arrays(HOMES, seed).items():
        found[NAMES[kind]] = array.astype(int) if array.ndim == 2 else array.transpose(2, 0, 1)
    return found | {"noise": np.zeros((1, 6, 8), np.float32)}


def write_table(path, rows, **columns):
    """A table of nested lists, in two groups of rows; `columns` replace some."""
    data = {name: [r[name].tolist() for r in rows] for name in rows[0]} | columns
    types = {"image": pa.float32(), "segmentation": pa.int64(), "depth": pa.float32(), "normal": pa.float32()}
    fields = {}
    for name, values in data.items():
        inner = types.get(name, pa.float32())
        for _ in range(2 if name == "segmentation" else 3):
            inner = pa.list_(inner)
        fields[name] = values if isinstance(values, pa.Array) else pa.array(values, inner)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(fields), path, row_group_size=2)


@pytest.fixture
def tables(tmp_path):
    """Two tables to train on, one to test on."""
    folder = tmp_path / "tables"
    write_table(folder / "data/train-00000-of-00002.parquet", [row(0), row(1)])
    write_table(folder / "data/train-00001-of-00002.parquet", [row(2)])
    write_table(folder / "data/val-00000-of-00001.parquet", [row(3), row(4)])
    return folder


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data" / "nyuv2"


def write_out(tables, root, layout=HOMES):
    parquet.write_out(tables, root, layout, progress=iter)


def refused(tables, root):
    """Nothing is left behind by a failure."""
    with pytest.raises(UserError) as caught:
        write_out(tables, root)
    assert not root.parent.exists() or list(root.parent.iterdir()) == []
    return str(caught.value)


def test_rows_become_files_in_order_and_unchanged(tables, root):
    write_out(tables, root)
    data = mtan_layout.read(root, HOMES)
    for split, seeds in (("train", (0, 1, 2)), ("test", (3, 4))):
        assert len(data.splits[split]) == len(seeds)
        for i, seed in enumerate(seeds):
            image, targets = data.splits[split][i]
            expected = row(seed)
            for found, name in zip((image, *targets), NAMES.values(), strict=True):
                assert torch.equal(found, torch.from_numpy(np.ascontiguousarray(expected[name])))
    assert data.notes == ("from parquet tables, numbered in their row order, which need not be that of MTAN's files",)
    samples.check(data, iter)
    assert list(root.parent.iterdir()) == [root]


def test_labels_take_one_byte_and_values_four(tables, root):
    write_out(tables, root)
    sizes = {kind: np.load(root / "val" / kind / "0.npy") for kind in HOMES.shapes}
    assert {kind: array.dtype for kind, array in sizes.items()} == {
        **dict.fromkeys(("image", "depth", "normal"), np.float32),
        "label": np.int8,
    }
    assert parquet._bytes(HOMES) == sum(array.nbytes for array in sizes.values())


def test_progress_counts_every_row(tables, root):
    seen = []
    parquet.write_out(tables, root, HOMES, progress=lambda n: (seen.append(i) or i for i in n))
    assert seen == list(range(5))


def test_test_tables_may_be_called_so(tables, root):
    (tables / "data/val-00000-of-00001.parquet").rename(tables / "data/test-00000-of-00001.parquet")
    write_out(tables, root)
    assert len(mtan_layout.read(root, HOMES).test) == 2


def test_lists_of_fixed_size_are_read(tables, root):
    """The last two dimensions, as some writers keep them."""
    values = [row(2)["image"].astype(np.float32).tolist()]
    column = pa.array(values, pa.list_(pa.list_(pa.list_(pa.float32(), 8), 6)))
    write_table(tables / "data/train-00001-of-00002.parquet", [row(2)], image=column)
    write_out(tables, root)
    assert torch.equal(mtan_layout.read(root, HOMES).train[2][0], torch.from_numpy(row(2)["image"].copy()))


# What is refused


def test_an_existing_folder_is_kept(tables, root):
    root.mkdir(parents=True)
    with pytest.raises(UserError, match=r"exists already\. Use it as it is, or remove it"):
        write_out(tables, root)
    assert list(root.iterdir()) == []


def test_missing_tables_are_explained(tables, root):
    (tables / "data/val-00000-of-00001.parquet").unlink()
    assert f"{tables} should hold tables val*.parquet or test*.parquet. Found none." in refused(tables, root)


def test_numbers_of_rows_and_columns_are_checked_before_anything_is_written(tables, root, monkeypatch):
    monkeypatch.setattr(disk, "require", lambda *_: pytest.fail("went on"))
    without = {name: value for name, value in row(2).items() if name not in ("depth", "noise")}
    write_table(tables / "data/train-00001-of-00002.parquet", [without, without])
    message = refused(tables, root)
    assert "train should have 3 rows. Found 4" in message
    assert "train-00001-of-00002.parquet should have a column depth. Found image, segmentation, normal" in message


def test_damaged_tables_are_named(tables, root):
    (tables / "data/train-00001-of-00002.parquet").write_bytes(b"PAR1")
    assert "train-00001-of-00002.parquet should be a parquet table. It is damaged" in refused(tables, root)


def test_damaged_rows_are_noticed_and_leave_nothing(tables, root):
    """The end of the file, which says where everything is, is whole."""
    path = tables / "data/train-00001-of-00002.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    assert "train-00001-of-00002.parquet should be a parquet table. It is damaged" in refused(tables, root)


def test_the_row_with_a_wrong_value_is_named(tables, root):
    path = tables / "data/train-00000-of-00002.parquet"
    write_table(path, [row(0), row(1) | {"depth": -row(1)["depth"]}])
    assert f"1 mistake in row 1 of {path}:" in refused(tables, root)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"depth": [[[[1.0] * 8] * 5]]}, "should hold lists of the shape [1, 6, 8] in every row"),
        ({"depth": [[[[1.0] * 8] * 5 + [[1.0] * 7]]]}, "should hold lists of the shape [1, 6, 8] in every row"),
        ({"depth": [[[[1.0] * 8] * 5 + [[1.0] * 7 + [None]]]]}, "should hold numbers, none of them missing"),
        ({"depth": [None]}, "should hold lists of the shape [1, 6, 8] in every row"),
        ({"depth": pa.array([1.0])}, "should hold lists of the shape [1, 6, 8] in every row. Found double"),
        ({"depth": pa.array([[[["a"] * 8] * 6]])}, "should hold numbers, none of them missing. Found string"),
        ({"depth": [[[[float("nan")] * 8] * 6]]}, "depths should be finite"),
        ({"segmentation": [[[13] * 8] * 6]}, "labels should be from 0 to 12"),
        ({"image": [(255 * row(2)["image"]).tolist()]}, "the image should have values in [0, 1]"),
    ],
)
def test_other_contents_are_refused(tables, root, columns, words):
    write_table(tables / "data/train-00001-of-00002.parquet", [row(2)], **columns)
    assert words in refused(tables, root)


def test_room_for_all_samples_is_asked_for(tables, root, monkeypatch):
    asked = []
    monkeypatch.setattr(disk, "require", lambda folder, size, what: asked.append((size, what)))
    write_out(tables, root)
    assert asked == [(5 * 6 * 8 * (3 * 4 + 1 + 4 + 3 * 4), "Writing out NYUv2")]


def test_a_full_disk_is_noticed_first(tables, root, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    assert "Writing out NYUv2 needs" in refused(tables, root)
