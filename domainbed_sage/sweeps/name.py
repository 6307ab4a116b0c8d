"""The name of a sweep, which names its results folder: read from the file alone, without what its runs need."""

import re
from pathlib import Path

from domainbed_sage.core import yaml_file
from domainbed_sage.core.errors import UserError, shown
from domainbed_sage.core.yaml_file import Document

PATTERN = r"^[A-Za-z0-9][\w.-]{0,63}$"
IN_WORDS = "up to 64 letters, digits, '.', '_' and '-' that begin with a letter or a digit"


def read_document(path: Path) -> Document:
    """Read a sweep file.

    Raises:
        UserError: it cannot be read, is not YAML, is empty, or has equal keys; says where.
    """
    example = "`name:`, `datasets:`, `algorithms:`"
    document = yaml_file.read(path, "Sweep file", example, named=("datasets", "algorithms"))
    if not document.entries:
        raise UserError(f"Sweep file {path} is empty. It should hold settings such as {example}.")
    return document


def read_name(path: Path) -> str:
    """The name that a sweep file gives its sweep; the rest of the file need not be right.

    Raises:
        UserError: see `read_document`; or there is no name in it, or one that cannot name a folder.
    """
    node = read_document(path).entries.get("name")
    if node is None or not isinstance(node.value, str) or not re.fullmatch(PATTERN, node.value):
        found = f"line {node.line}: {shown(node.as_written())}" if node else "none"
        raise UserError(f"{path} should have a `name:` of {IN_WORDS}. Found {found}.")
    return node.value
