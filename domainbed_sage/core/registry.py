"""Registries by name: of algorithms, datasets, models, optimizers."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from domainbed_sage.core.errors import UserError, known, near, shown

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from name to thing that refuses duplicates and explains unknown names.

    Args:
        kind: what is registered, for messages: "algorithm", "dataset", …
        of: class of the things.
    """

    def __init__(self, kind: str, of: Any = object) -> None:
        self.kind, self.of = kind, of
        self._things: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters its argument under `name`.

        Raises:
            UserError: `name` is taken by another thing, or cannot be the name of one; the thing is of another class.
        """
        if not isinstance(name, str) or not name.isprintable() or name.strip() != name or not name or "/" in name:
            raise UserError(
                f"The name of a {self.kind} should be a printable text without / and without blanks at its ends; it "
                f"becomes part of file names. Found {shown(name)}."
            )

        def enter(thing: T) -> T:
            if not isinstance(thing, self.of):
                raise UserError(f"{self.kind} {name!r} should be a {self.of.__name__}. Found {shown(thing)}.")
            if name in self._things:
                raise UserError(f"{self.kind} {name!r} is registered twice. Choose another name for the new one.")
            self._things[name] = thing
            return thing

        return enter

    def register_class(self, name: str, base: type, needs: str) -> Callable[[T], T]:
        """Return a class decorator as `register`, which also gives the class its name as the attribute `name`.

        Args:
            name: of the class.
            base: what it should be a subclass of, with nothing abstract left.
            needs: what that takes, for the message.

        Raises:
            UserError: see `register`; it is no such class.
        """

        def enter(cls: Any) -> T:
            suits = inspect.isclass(cls) and issubclass(cls, base) and not inspect.isabstract(cls)
            if not suits:
                kind = self.kind.capitalize()
                raise UserError(f"{kind} {name!r} should be a subclass of {base.__name__} with {needs}. Found {cls!r}.")
            cls.name = name
            return self.register(name)(cls)

        return enter

    def __getitem__(self, name: str) -> T:
        if name not in self._things:
            raise UserError(self.unknown(name))
        return self._things[name]

    def __contains__(self, name: object) -> bool:  # Mapping's own would catch KeyError only
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)

    def unknown(self, name: str) -> str:
        """Message for a name that is not registered, with the nearest known one."""
        return f"Unknown {self.kind} {shown(name)}.{near(name, self._things)} {known(list(self._things))}."
