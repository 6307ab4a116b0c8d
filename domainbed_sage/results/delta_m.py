"""Δm: the mean relative change of a multi-task network's metrics against networks that each learn one task."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from math import inf

from domainbed_sage.core.errors import UserError, counted, known


@dataclass(frozen=True)
class Implied:
    """A printed Δm, and the one that the printed columns of its row imply; percent.

    Attributes:
        printed: as it is printed.
        delta_m: of the columns as they are printed.
        half_width: how far the two may be apart, if each printed number was rounded correctly: what rounding moves the
            columns' Δm to either side, and half a unit of the printed one.
    """

    printed: str
    delta_m: float
    half_width: float

    @property
    def off(self) -> float:
        """The printed Δm minus the implied one."""
        return float(self.printed) - self.delta_m

    @property
    def follows(self) -> bool:
        """Whether rounding can explain the difference."""
        return abs(self.off) <= self.half_width + 1e-9


@dataclass(frozen=True)
class Baseline:
    """Metrics of single-task networks, to which Δm is relative.

    Δm = 100 / n Σ_i s_i (M_i - B_i) / B_i percent with s_i = -1 where higher is better and 1 elsewhere, over the n
    metrics of the baseline: a mean over metrics, not over tasks, so that a task with many of them counts for more. Less
    is better. It is affine in M: the Δm of a mean over epochs or seeds is the mean of their Δm, and a printed Δm has to
    follow from its row's printed columns, within `rounding`.

    Attributes:
        name: whose metrics these are, for tables and messages.
        metrics: B_i by name, all positive.
        higher_is_better: the direction of each.

    Raises:
        UserError: there is no metric, or one that is not positive and finite, or has no direction.
    """

    name: str
    metrics: Mapping[str, float]
    higher_is_better: Mapping[str, bool]

    def __post_init__(self) -> None:
        bad = {name: value for name, value in self.metrics.items() if not 0 < value < inf}
        if bad or not self.metrics:
            raise UserError(
                f"The baseline {self.name} should have at least one metric, each positive and finite, because Δm "
                f"divides by them. Found {bad or 'none'}."
            )
        missing = [name for name in self.metrics if name not in self.higher_is_better]
        if missing:
            raise UserError(f"The baseline {self.name} does not say whether more is better of {', '.join(missing)}.")

    def delta_m(self, metrics: Mapping[str, float]) -> float:
        """Δm of these metrics in percent; NaN if one of them is.

        Raises:
            UserError: they are not those of the baseline.
        """
        self._check_names(metrics)
        changes = [
            (-1 if self.higher_is_better[name] else 1) * (metrics[name] - base) / base
            for name, base in self.metrics.items()
        ]
        return 100 * sum(changes) / len(changes)

    def rounding(self, printed: Mapping[str, str]) -> float:
        """How far the rounding of printed metrics can move their Δm to either side, in points of Δm.

        Each metric may be off by half a unit of its last place; the baseline is taken as it is.

        Raises:
            UserError: the metrics are not those of the baseline.
        """
        self._check_names(printed)
        moves = [half_unit(printed[name]) / base for name, base in self.metrics.items()]
        return 100 * sum(moves) / len(moves)

    def implied(self, columns: Mapping[str, str], printed: str) -> "Implied":
        """The Δm that printed columns imply, for comparison with the one printed beside them.

        Raises:
            UserError: the columns are not those of the baseline, or something is no finite number.
        """
        half_width = self.rounding(columns) + half_unit(printed)
        return Implied(printed, self.delta_m({name: float(text) for name, text in columns.items()}), half_width)

    def _check_names(self, metrics: Mapping[str, object]) -> None:
        if set(metrics) != set(self.metrics):
            raise UserError(
                f"Δm against {self.name} takes exactly its {counted(len(self.metrics), 'metric')}. "
                f"Found {', '.join(metrics) or 'none'}. {known(list(self.metrics))}."
            )


def half_unit(printed: str) -> float:
    """Half a unit of the last place of a printed number: 0.05 of ``93.4``.

    Raises:
        UserError: it is no finite number.
    """
    try:
        exponent = Decimal(printed).as_tuple().exponent
    except InvalidOperation:
        exponent = "n"
    if not isinstance(exponent, int):
        raise UserError(f"A printed metric should be a finite number. Found {printed!r}.")
    return float(Decimal(5).scaleb(exponent - 1))
