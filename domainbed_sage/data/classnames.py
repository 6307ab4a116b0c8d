"""Readable names of the classes, for datasets whose class folders are called ``0`` or ``n01440764``.

``CLASSES.json`` in a dataset's folder is a JSON object from the name of every class folder to the common name
of the class, e.g. ``{"n01440764": "tench", "n02102040": "English springer"}``. Prompts are made from these names. They
change a zero-shot classifier, so the notes of every record list them.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from domainbed_sage.core.errors import UserError, raise_all
from domainbed_sage.core.files import digest

FILE = "CLASSES.json"


def read(root: Path, classes: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The readable names in the order of `classes`, and the note for the records; both empty without the file.

    Raises:
        UserError: the file is not such an object, or does not name each class once; lists every mistake.
    """
    path = root / FILE
    if not path.is_file():
        return (), ()
    try:
        pairs = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} should be a JSON object of names. It cannot be read: {error}.") from None
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise UserError(f"{path} should be a JSON object from class folders to readable names. Found {pairs!r:.80}.")
    raise_all(_mistakes(pairs, classes), str(path))
    names = {folder: name.strip() for folder, name in pairs}
    shown = ", ".join(f"{c} = {names[c]}" for c in classes)
    return tuple(names[c] for c in classes), (f"class names from {FILE} (sha256 {digest(path)[:12]}): {shown}",)


def _mistakes(pairs: Sequence[tuple[str, Any]], classes: Sequence[str]) -> list[str]:
    folders, known = Counter(folder for folder, _ in pairs), set(classes)
    texts = {folder: name for folder, name in pairs if isinstance(name, str) and name.strip() and name.isprintable()}
    alike = Counter(" ".join(name.lower().replace("_", " ").split()) for name in texts.values())  # as prompts are
    return [
        *(f"class {c!r} has no name" for c in classes if c not in folders),
        *(f"{f!r} is no class folder; there are {', '.join(classes)}" for f in folders if f not in known),
        *(f"{f!r} is there {n} times" for f, n in folders.items() if n > 1),
        *(f"{f!r} should have a text of one line. Found {name!r}" for f, name in pairs if f not in texts),
        *(f"{name!r} is the name of {n} classes: no text could distinguish them" for name, n in alike.items() if n > 1),
    ]
