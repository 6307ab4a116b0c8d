"""Checked settings: a pydantic model from a file or from Python, with all mistakes in one message."""

import functools
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from domainbed_sage.core.errors import LONGEST, near, raise_all, shown
from domainbed_sage.core.hparams import in_words
from domainbed_sage.core.yaml_file import Document

M = TypeVar("M", bound=BaseModel)


def checked(model: type[M], values: Mapping[str, Any], where: str, document: Document | None = None) -> M:
    """Build the model.

    A field's description says what it should be, where its type alone does not tell the user.

    Args:
        model: the settings.
        values: by name.
        where: what the mistakes are in, for the message.
        document: the file that the values come from, if they do; mistakes then name its lines.

    Raises:
        UserError: unknown names, missing ones, wrong values; all of them in one message.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        mistakes = [_sentence(model, values, dict(e), document) for e in error.errors(include_url=False)]
        raise_all(list(dict.fromkeys(mistakes)), where)
        raise


def line_of(document: Document | None, keys: Sequence[str]) -> str:
    """The line that these keys lead to in the file, as the beginning of a sentence; empty without a file."""
    node = document.find(keys) if document and keys else None
    return f"line {node.line}: " if node else ""


def _sentence(
    model: type[BaseModel], values: Mapping[str, Any], error: dict[str, Any], document: Document | None
) -> str:
    path, field, owner = _resolve(model, error["loc"])
    name = ".".join(key if key and key.isprintable() else shown(key) for key in path)
    line = line_of(document, path)
    if error["type"] == "extra_forbidden":
        names = list(owner.model_fields)
        return f"{line}{name} is not a setting.{near(path[-1], names)} Known: {', '.join(names)}."
    if error["type"] == "value_error":
        return f"{line}{name}{': ' if name else ''}{error['ctx']['error']}."
    wanted = (field.description or in_words(field.annotation, field.metadata)) if field else "settings, or nothing"
    if error["type"] == "missing":
        return f"{name} is missing. It should be {wanted}."
    return f"{line}{name} should be {wanted}. {_found(values, path, document, field)}"


def _resolve(model: type[BaseModel], loc: Sequence[Any]) -> tuple[tuple[str, ...], FieldInfo | None, type[BaseModel]]:
    """Map pydantic's location of an error to keys of the file, the field that they lead to, and its model.

    A field that maps names to a model has one key more, and no field stands for all of an entry.
    """
    if not loc:
        return (), None, model
    key, *rest = loc
    field = model.model_fields.get(key)
    inner = next(_models_in(field.annotation), None) if field else None
    if inner is None or not rest:
        return (str(key),), field, model
    path, field, owner = _resolve(inner, [part for part in rest[1:] if part != "[key]"])
    return (str(key), str(rest[0]), *path), field, owner


def _models_in(hint: Any) -> Iterator[type[BaseModel]]:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        yield hint
    for part in typing.get_args(hint):
        yield from _models_in(part)


def _found(values: Any, path: Sequence[str], document: Document | None, field: FieldInfo | None) -> str:
    """The value that was found, as written; with advice where YAML reads something other than the intended string."""
    node = document.find(path) if document else None
    if node is None or not node.text or isinstance(node.value, str):
        found = functools.reduce(lambda inside, key: inside[key], path, values)
        return "Found nothing." if found is None else f"Found {shown(found)}."
    text = node.text[:LONGEST]
    quote = field is not None and "a text" in in_words(field.annotation)
    return f"Found {text}." + (f' Write it in quotes: "{text}".' if quote else "")
