"""The registry of algorithms."""

from collections.abc import Callable

from domainbed_sage.algorithms.base import Algorithm
from domainbed_sage.core.registry import Registry

algorithms: Registry[type[Algorithm]] = Registry("algorithm")


def register(name: str) -> Callable[[type[Algorithm]], type[Algorithm]]:
    """Class decorator that enters an algorithm under `name`, the name used by ``--algorithm`` and in records."""

    def enter(cls: type[Algorithm]) -> type[Algorithm]:
        cls.name = name
        return algorithms.register(name)(cls)

    return enter
