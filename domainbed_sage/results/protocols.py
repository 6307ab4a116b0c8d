"""Which protocol a number belongs to; only numbers of one protocol are compared."""

from collections.abc import Iterable
from types import MappingProxyType

from domainbed_sage.results.records import RunRecord
from domainbed_sage.results.selection import Method

FINE_TUNING, PROMPTS = "fine-tuning", "prompts"
TITLES = MappingProxyType(
    {
        FINE_TUNING: "fine-tuning, training-domain validation",
        PROMPTS: "visual prompt tuning, validation set of the target (oracle)",
    }
)


def followed(records: Iterable[RunRecord], method: Method) -> dict[str, str]:
    """The protocol of every row of a table that follows one: a key of `TITLES`.

    The prompts of a model are tuned if its name says so (``…_vpt``), with `oracle`, which selects on the target's out
    split; models are fine-tuned otherwise, with `training-domain`. All runs of a row have one model.
    """
    kinds = {run.label: PROMPTS if run.model.endswith("_vpt") else FINE_TUNING for run in records}
    selected = {"oracle": PROMPTS, "training-domain": FINE_TUNING}.get(method.name)
    return {label: kind for label, kind in kinds.items() if kind == selected}
