"""The odd polynomials p(x) = a x + b x³ + c x⁵ that bring singular values in (0, 1] towards 1, one per iteration."""

from typing import Literal, TypeAlias

Iteration: TypeAlias = Literal["quintic", "cubic", "polar_express"]
Coefficients: TypeAlias = tuple[float, float, float]

MUON_QUINTIC = (3.4445, -4.7750, 2.0315)
CUBIC = (1.5, -0.5, 0.0)

POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.875, -1.25, 0.375),
)
SAFETY = 1.01


def polynomials(method: Iteration, steps: int) -> list[Coefficients]:
    """Return the coefficients (a, b, c) of each of `steps` iterations.

    - ``quintic``: Muon's tuned polynomial in every step. It brings singular values quickly to about [0.7, 1.2] and
      never to 1.
    - ``cubic``: Newton-Schulz, which converges to 1, slowly from small values: each step lifts them by 1.5.
    - ``polar_express``: the greedy composition of degree-5 polynomials with the smallest worst error over singular
      values in [1e-3, 1]; after the tabulated steps the quintic Newton-Schulz polynomial, which converges. All but
      that are shrunk by a safety factor of 1.01, so that values rounded to above 1 do not diverge.

    Source: Jordan et al., Muon, 2024; SAGE, Eq. 7; Amsel et al., The Polar Express, 2025, Algorithm 1 and its table.
    """
    if method != "polar_express":
        return [MUON_QUINTIC if method == "quintic" else CUBIC] * steps
    shrunk = [(a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in POLAR_EXPRESS[:-1]]
    return (shrunk + [POLAR_EXPRESS[-1]] * max(steps - len(shrunk), 0))[:steps]
