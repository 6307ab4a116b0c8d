"""Small files beside the images, or about them: names of classes, manifests, lists, annotations."""

import json
from pathlib import Path, PurePosixPath

from hypothesis import strategies as st

from domainbed_sage.data import classnames, corrupt, prepared
from domainbed_sage.data.acquire import domainnet, manifest, terra
from fuzzing.damage import TEXTS, VALUES, Bytes, changed, damaged_text
from fuzzing.reader import Reader, repeats

CLASSES = ("0", "1", "n01440764")


def _classes() -> Bytes:
    pairs = st.lists(st.tuples(st.sampled_from([*CLASSES, *CLASSES, "x"]), st.text(max_size=5) | VALUES), max_size=4)
    written = pairs.map(
        lambda pairs: "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in pairs) + "}"
    )
    return written.map(str.encode) | TEXTS


def _read_classes(content: bytes, folder: Path) -> None:
    (folder / classnames.FILE).write_bytes(content)
    names, notes = classnames.read(folder, CLASSES)
    assert not repeats(content.decode("utf-8-sig"))
    assert len(names) == len(set(names)) == len(CLASSES)
    assert all(name.isprintable() and name == name.strip() != "" for name in names)
    assert len(notes) == 1


_ROWS = [f"a/x/{i}.jpg,{i},{i:064x}" for i in range(3)]
_MANIFEST = "\n".join([",".join(manifest.HEADER), *_ROWS]) + "\n"


def _manifests() -> Bytes:
    cell = st.sampled_from(["a/x/0.jpg", "../x", "/etc/x", "a", "", "-1", "1_0", " 7", "٣", *(c * 64 for c in "0GA")])
    cell |= st.text(max_size=4) | st.just("9" * 5000) | st.integers().map(str)
    row = st.tuples(st.sampled_from(_ROWS), st.integers(0, 2), cell).map(
        lambda drawn: ",".join(drawn[2] if i == drawn[1] else part for i, part in enumerate(drawn[0].split(",")))
    )
    rows = st.lists(row | st.sampled_from(_ROWS), max_size=4)
    made = rows.map(lambda rows: "\n".join([",".join(manifest.HEADER), *rows]).encode("utf-8", "surrogatepass"))
    return made | damaged_text(_MANIFEST) | st.binary(max_size=60)


def _read_manifest(content: bytes, folder: Path) -> None:
    (folder / manifest.FILE).write_bytes(content)
    found = manifest.read(folder / manifest.FILE)
    for path, entry in found.items():
        parts = PurePosixPath(path).parts
        assert len(parts) >= 3, "what is no image of an environment was taken"
        assert not {"..", "/"} & set(parts), "a place outside was taken"
        assert entry.size >= 0
        assert len(entry.sha256) == 64
        assert set(entry.sha256) <= set("0123456789abcdef")
    assert (
        len(found) == len([line for line in content.replace(b"\r", b"\n").split(b"\n") if line.strip()]) - 1
        or b'"' in content
    )
    manifest.compare(found, {}).mistakes(folder)


def _read_beside(example: tuple[str, bytes], folder: Path) -> None:
    name, content = example
    (folder / name).write_bytes(content)
    assert all(isinstance(note, str) for note in prepared.notes(folder))
    assert prepared.subset(folder) != ""
    corrupt.read(folder)
    if name == "duplicates.txt":
        assert all(len(path.parts) == 3 for path in domainnet.read_list(folder / name, ["a", "b"]))


_ANNOTATIONS = {
    "categories": [{"id": 1, "name": "bobcat"}, {"id": 2, "name": "dog"}],
    "images": [
        {"id": "i1", "location": 38, "file_name": "1.jpg"},
        {"id": "i2", "location": "46", "file_name": "2.jpg"},
    ],
    "annotations": [{"image_id": "i1", "category_id": 1}, {"image_id": "i2", "category_id": 2}],
}


def _read_annotations(content: bytes, folder: Path) -> None:
    (folder / "a.json").write_bytes(content)
    for location, category, name in terra.select([folder / "a.json"]):
        assert str(location) in terra.LOCATIONS
        assert category in terra.CATEGORIES
        assert Path(name).name == name


_PATHS = st.lists(st.sampled_from(["a/x/1.jpg", "../a/b", "a", "\n"])).map("\n".join)
_NOTES = VALUES.map(lambda value: json.dumps({"notes": value}))
_BESIDE = st.tuples(
    st.sampled_from([prepared.PREPARED, prepared.SUBSET, corrupt.FILE, "duplicates.txt"]),
    TEXTS | st.binary(max_size=30) | (_PATHS | _NOTES).map(str.encode),
)
_TEXTS_OF_ANNOTATIONS = changed(_ANNOTATIONS, VALUES).map(lambda value: json.dumps(value).encode()) | TEXTS
READERS = (
    Reader("CLASSES.json", _classes(), _read_classes),
    Reader("manifest", _manifests(), _read_manifest),
    Reader("other lists", _BESIDE, _read_beside),
    Reader("annotations", _TEXTS_OF_ANNOTATIONS, _read_annotations),
)
