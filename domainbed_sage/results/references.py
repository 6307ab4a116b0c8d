"""BibTeX of what results rest on: the suite, SAGE, the protocol, and the algorithms and datasets used.

`references.bib` holds the entries, `references.toml` says which of them are for which algorithm and dataset.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from domainbed_sage.core import strict_json
from domainbed_sage.results.escape import printable

if TYPE_CHECKING:
    from domainbed_sage.results.records import RunRecord

_ENTRY = re.compile(r"^@\w+\{([^,\s]+),\n.*?^\}$", re.MULTILINE | re.DOTALL)
UNKNOWN = "no BibTeX entry here, and what to cite is not known"


def bibtex(
    algorithms: Iterable[str] = (),
    datasets: Iterable[str] = (),
    stated: Mapping[str, str] | None = None,
    solvers: Iterable[str] = (),
) -> str:
    """The entries of the suite, the SAGE paper and DomainBed, then those of the names, each once.

    A comment line above an entry says for what it is; a name without an entry has such a line alone.

    Args:
        algorithms: their names.
        datasets: their names.
        solvers: names of multi-task solvers; one that has no source, as the sum of the losses, is left out.
        stated: what algorithms and datasets without an entry say of their source, by name.
    """
    cited: dict[str, list[str]] = {key: [] for key in mapping()["always"]}
    without = []
    sourced = [name for name in solvers if name in mapping()["solvers"]]
    for kind, names in (("algorithms", algorithms), ("solvers", sourced), ("datasets", datasets)):
        for name in dict.fromkeys(names):
            keys = mapping()[kind].get(name, ())
            for key in keys:
                cited.setdefault(key, []).append(name)
            if not keys:
                source = (stated or {}).get(name)
                without.append(_comment(f"{name}: {f'{source} (no BibTeX entry here)' if source else UNKNOWN}"))
    known = entries()
    parts = [(f"{_comment(', '.join(names))}\n" if names else "") + known[key] for key, names in cited.items()]
    return "\n\n".join([*parts, *without])


def used(records: "Iterable[RunRecord]") -> tuple[list[str], list[str]]:
    """Algorithms and datasets of these runs, in order; of a method around another one, that one, too."""
    algorithms: dict[str, None] = {}
    datasets: dict[str, None] = {}
    for run in records:
        datasets[run.dataset] = algorithms[run.algorithm] = None
        hparams = strict_json.loads(run.hparams)
        inner = hparams.get("around") if isinstance(hparams, dict) else None
        if isinstance(inner, str):
            algorithms[inner] = None
    return list(algorithms), list(datasets)


@cache
def entries() -> dict[str, str]:
    """The BibTeX entries by key."""
    return {found[1]: found[0] for found in _ENTRY.finditer(_read("references.bib"))}


@cache
def mapping() -> dict[str, Any]:
    """Keys of entries: a list that is `always` cited, and lists by name of `algorithms`, `datasets` and `solvers`."""
    return tomllib.loads(_read("references.toml"))


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _comment(text: str) -> str:
    """A line that BibTeX passes over: it takes whatever follows an @ for an entry."""
    return f"% {printable(text).replace('@', '(at)')}"
