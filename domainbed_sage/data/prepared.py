"""Two small files in a dataset's folder: what was done to the data, and whether it is only a part of the dataset.

``PREPARED.json`` is written by the commands that build a dataset; its list ``notes`` belongs in every record.
``SUBSET.txt`` is written by whoever keeps a part of a dataset on purpose: its counts are then not compared with the
published ones, and its text names the part in every record and table.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.files import write_atomically

PREPARED, SUBSET = "PREPARED.json", "SUBSET.txt"
ESCAPE = "backslashreplace"  # for bytes of a file's name that are not UTF-8, as in JSON


def read(root: Path) -> dict[str, Any]:
    """The contents of ``PREPARED.json``; empty without the file.

    Raises:
        UserError: the file is damaged.
    """
    path = root / PREPARED
    if not path.is_file():
        return {}
    try:
        facts = strict_json.loads(path.read_bytes())
        notes = facts.get("notes", []) if isinstance(facts, dict) else None
        notes_ok = isinstance(notes, list) and all(isinstance(note, str) for note in notes)
        reason = ""
    except ValueError as error:
        notes_ok, reason = False, f" ({error})"
    if not notes_ok:
        raise UserError(
            f"{path} should be a JSON object with a list of texts under 'notes'. It is damaged{reason}: restore it, or "
            "build the dataset again. Without it, results would not say what was done to the data."
        )
    return dict(facts)


def notes(root: Path) -> tuple[str, ...]:
    """Notes that a reader of results on this data must know."""
    return tuple(read(root).get("notes", []))


def update(root: Path, new_notes: Sequence[str], **facts: Any) -> None:
    """Add notes and facts to ``PREPARED.json``; a fact of the same name is replaced, a note is not repeated."""
    known = read(root)
    every_note = list(dict.fromkeys([*known.get("notes", []), *new_notes]))
    text = strict_json.dumps(known | facts | {"notes": every_note}, indent=1, sort_keys=True, ensure_ascii=False)
    write_atomically(root / PREPARED, f"{text}\n".encode("utf-8", ESCAPE))


def subset(root: Path) -> str | None:
    """The text of ``SUBSET.txt`` on one line; `None` without the file.

    Raises:
        UserError: the file is empty, or not in UTF-8.
    """
    path = root / SUBSET
    if not path.is_file():
        return None
    try:
        text = " ".join(path.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise UserError(f"{path} should be a text in UTF-8 ({error}). Save it as UTF-8.") from None
    if not text:
        raise UserError(f"{path} should say which part of the dataset this is, in a few words. It is empty.")
    return text


def if_a_part(root: Path) -> str:
    """What to do if a dataset has other numbers of files than the published ones on purpose."""
    return f"If it is a part on purpose, say which in {root / SUBSET}: every record and table will then name it."


def declare_subset(root: Path, text: str) -> None:
    """Write ``SUBSET.txt``."""
    write_atomically(root / SUBSET, f"{text.strip()}\n".encode("utf-8", ESCAPE))
