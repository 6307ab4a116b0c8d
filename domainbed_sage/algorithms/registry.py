"""The registry of algorithms."""

import inspect
from collections.abc import Callable

from domainbed_sage.algorithms.base import Algorithm
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.registry import Registry

algorithms: Registry[type[Algorithm]] = Registry("algorithm")


def register(name: str) -> Callable[[type[Algorithm]], type[Algorithm]]:
    """Class decorator that enters an algorithm under `name`, the name used by ``--algorithm`` and in records.

    Raises:
        UserError: the name is taken, or the thing is no algorithm.
    """

    def enter(cls: type[Algorithm]) -> type[Algorithm]:
        if not (inspect.isclass(cls) and issubclass(cls, Algorithm)) or inspect.isabstract(cls):
            raise UserError(f"Algorithm {name!r} should be a subclass of Algorithm with an update. Found {cls!r}.")
        cls.name = name
        return algorithms.register(name)(cls)

    return enter
