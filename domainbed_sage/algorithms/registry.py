"""The registry of algorithms."""

from collections.abc import Callable

from domainbed_sage.algorithms.base import Algorithm
from domainbed_sage.core.registry import Registry

algorithms: Registry[type[Algorithm]] = Registry("algorithm")


def register(name: str) -> Callable[[type[Algorithm]], type[Algorithm]]:
    """Class decorator that enters an algorithm under `name`, the name used by ``--algorithm`` and in records.

    Raises:
        UserError: the name is taken, or the thing is no algorithm.
    """
    return algorithms.register_class(name, Algorithm, "an update")
