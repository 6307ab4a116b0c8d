"""A DomainBed-style benchmark suite for domain generalization around SAGE.

A run is described by a `RunConfig`, which `make_config` fills in and checks, and trained by `run` on a `Machine`. An
algorithm of your own derives from `Algorithm` and gets a name from `register`. Results are read with `load_results`,
shown by `table` and compared by `compare`. All of these are imported on first use, so that ``import domainbed_sage``
takes no time.

Example: an algorithm, two short runs of it, and their results.

    >>> from pathlib import Path
    >>> import domainbed_sage as dg

    >>> @dg.register("Halved")
    ... class Halved(dg.Algorithm):
    ...     def update(self, batch):
    ...         loss, gradient = self.gradient(batch)
    ...         self.descend([0.5 * part for part in gradient])
    ...         return {"loss": loss}

    >>> for algorithm in ("ERM", "Halved"):
    ...     config = dg.make_config(
    ...         dataset="EmojiStyles",
    ...         algorithm=algorithm,
    ...         test_envs=["noto"],
    ...         model="small_cnn",
    ...         steps=2,
    ...         hparams={"width": 8, "batch_size": 2},
    ...     )
    ...     dg.run(config, dg.Machine(output_dir=Path("results/halved") / config.folder_name))

    >>> isinstance(config, dg.RunConfig), config.hparams["batch_size"], config.source_envs
    (True, 2, (0, 2, 3))

    >>> frame = dg.load_results("results/halved")
    >>> frame.groupby(["label", "step"], observed=True)["accuracy"].count()
    label   step
    ERM     0       5
            1       5
    Halved  0       5
            1       5
    Name: accuracy, dtype: int64

    >>> dg.table(frame).averages.means.shape
    (2, 2)
    >>> dg.compare(frame, reference="ERM", methods=["Halved"]).frame["pairs"].to_dict()
    {'Halved': 1}
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from domainbed_sage.algorithms import Algorithm, register
    from domainbed_sage.config import Machine, RunConfig, make_config
    from domainbed_sage.results.api import compare, load_results, table
    from domainbed_sage.training.train import run

__version__ = "0.1.0"

__all__ = [
    "Algorithm",
    "Machine",
    "RunConfig",
    "compare",
    "load_results",
    "make_config",
    "register",
    "run",
    "table",
]

_MODULES = {
    "domainbed_sage.algorithms": ("Algorithm", "register"),
    "domainbed_sage.config": ("Machine", "RunConfig", "make_config"),
    "domainbed_sage.results.api": ("compare", "load_results", "table"),
    "domainbed_sage.training.train": ("run",),
}


if not TYPE_CHECKING:  # a type checker that saw it would accept any attribute

    def __getattr__(name: str) -> Any:
        for module, names in _MODULES.items():
            if name in names:
                globals()[name] = found = getattr(import_module(module), name)
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
