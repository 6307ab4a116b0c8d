"""Finding a model's tensors in a weight file that was made for, or by, something else."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from domainbed_sage.core.errors import UserError
from domainbed_sage.models.checkpoints import State

log = logging.getLogger(__name__)

CLASSIFIERS = ("fc", "head", "classifier", "linear")  # what the classifiers of other networks are called
MOST_NAMES = 6


def fitted(state: State, expected: Mapping[str, torch.Size], path: Path, classifier: Sequence[str] = ()) -> State:
    """The tensors of a file under the model's names, if the file holds the model; the log says what was taken and left.

    The model may be a part of what the file holds: then its names have a prefix, such as ``featurizer.0.``, and
    everything else is ignored. Where the caller discards the model's own classifier, the file's may be missing or
    different; zeros then take its place.

    Args:
        state: what the file holds.
        expected: names and shapes of the model's tensors.
        path: the file, for messages.
        classifier: names of the modules that make the model's classifier, if it is discarded.

    Returns:
        the model's tensors, and any others under the same prefix; or the whole state unchanged, if some of the model's
        are missing. Only the classifier's shapes are compared; the caller has to check the rest.

    Raises:
        UserError: the file holds several such models, with different weights.
    """
    own = tuple(f"{name}." for name in classifier)
    needed = [n for n in expected if not n.startswith(own) and not n.endswith("num_batches_tracked")]
    fitting = [p for p in _prefixes(state, needed) if all(p + name in state for name in needed)]
    if not fitting:
        return state
    prefix, *others = fitting
    if unlike := [p for p in others if not all(torch.equal(state[prefix + n], state[p + n]) for n in needed)]:
        raise UserError(
            f"{path} holds {1 + len(unlike)} models with different weights, behind the prefixes "
            f"{', '.join(map(repr, (prefix, *unlike)))}. Save one of them alone."
        )
    thrown_away = (*own, *(f"{name}." for name in CLASSIFIERS)) if own else ()
    inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    taken = {
        name: tensor
        for name, tensor in inner.items()
        if not name.startswith(thrown_away) or (name in expected and tensor.shape == expected[name])
    }
    used = {prefix + name for name in taken}
    _tell(path, prefix, len(taken), [name for name in state if name not in used])
    zeros = {n: torch.zeros(size) for n, size in expected.items() if n.startswith(own) and n not in taken}
    return taken | zeros


def _prefixes(state: State, names: Sequence[str]) -> list[str]:
    """Prefixes that the model's first name has in the file; the empty prefix comes last."""
    if not names:
        return []
    found = [name.removesuffix(names[0]) for name in state if name.endswith(names[0])]
    return sorted((prefix for prefix in found if not prefix or prefix.endswith(".")), key=lambda prefix: not prefix)


def _tell(path: Path, prefix: str, taken: int, left: Sequence[str]) -> None:
    behind = f" behind {prefix!r}" if prefix else ""
    some = ", ".join(left[:MOST_NAMES]) + (", …" if len(left) > MOST_NAMES else "")
    log.info("%s: took %d tensors%s, left %d%s.", path, taken, behind, len(left), f" ({some})" if left else "")
