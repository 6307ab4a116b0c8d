"""Statements of the SAGE paper's text that a short computation decides: noise, radius, Appendix G, its own numbers."""

import math
from collections.abc import Iterator

import numpy as np

from domainbed_sage.paper.findings import Finding
from domainbed_sage.results.printed_tasks import rows

WIDTH, DEPTH, TOKENS, PIXELS, OUT = 768, 12, 197, 16 * 16 * 3, 512  # CLIP's ViT-B/16: its image tower
BLOCK = ((3 * WIDTH, WIDTH), (WIDTH, WIDTH), (4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH))
MATRICES = ((WIDTH, PIXELS), (TOKENS, WIDTH), (WIDTH, OUT), *BLOCK * DEPTH)
VECTORS = 101  # biases, layer norms and the class embedding of that tower
STEPS = 5  # T
QUOTED = (  # where, what, table, row, column, as in the text
    ("Section 5.2", "SAGE's average", "table1", "SAGE (Ours)", "avg_printed", "78.9"),
    ("Section 5.2", "SAGM's average", "table1", "SAGM", "avg_printed", "76.4"),
    ("Section 5.2", "DISAM's average", "table1", "DISAM", "avg_printed", "76.5"),
    ("Section 5.2", "BOA's average", "table1", "BOA (SAM pretrained)", "avg_printed", "78.1"),
    ("Section 5.2", "FairGrad's Δm on NYU-v2", "table2", "FairGrad", "nyu_dm_printed", "-4.96"),
    ("Section 5.2", "SAGE-FairGrad's Δm on NYU-v2", "table2", "SAGE-FairGrad", "nyu_dm_printed", "-5.63"),
    ("Section 5.2", "FairGrad's Δm on Cityscapes", "table2", "FairGrad", "cs_dm_printed", "3.90"),
    ("Section 5.2", "SAGE-FairGrad's Δm on Cityscapes", "table2", "SAGE-FairGrad", "cs_dm_printed", "2.63"),
)


def findings() -> Iterator[Finding]:
    """In the order of the paper."""
    yield _radius()
    yield _noise()
    yield from _quoted()
    yield _products()
    yield _negligible()
    yield _twice()


def _radius() -> Finding:
    return Finding(
        "Section 3.1, one-dimensional parameters",
        "ρ g/‖g‖ for each of them is consistent with SAM",
        f"SAM has one norm over all parameters; {VECTORS} vectors (those of CLIP's ViT-B/16), each moved by ρ, move by "
        f"ρ √{VECTORS} = {math.sqrt(VECTORS):.1f} ρ together",
        "does not hold",
        "The norm of independent moves of length ρ.",
        {"ratio": math.sqrt(VECTORS)},
    )


def least_agreement(K: int) -> float:
    """The least S of K gradients: of the corners of a regular simplex, S = -1/(K - 1), computed from the vectors."""
    corners = np.eye(K) - 1 / K
    cosines = corners @ corners.T / (1 - 1 / K)
    return float(cosines[np.triu_indices(K, 1)].mean())


def _noise() -> Finding:
    largest = {K: 1 - least_agreement(K) for K in (2, 3, 5)}
    return Finding(
        "Section 3.2, noise scale β = γ (1 - S)",
        "γ is the maximum noise scale",
        f"the maximum is γ K/(K - 1): {', '.join(f'{value:.2f} γ for K = {K}' for K, value in largest.items())}",
        "does not hold",
        "‖Σ g_k/‖g_k‖‖² ≥ 0 bounds S below by -1/(K - 1). Gradients of equal norm attain it where they sum to zero, as "
        "at a minimum of the mean loss; computed from vectors to the corners of a regular simplex.",
        {f"K = {K}": value for K, value in largest.items()},
    )


def _quoted() -> Iterator[Finding]:
    for where, what, table, row, column, text in QUOTED:
        key = "printed" if table == "table1" else "method"
        there = next(own[column] for own in rows(table) if own[key] == row)
        same = float(there) == float(text)
        yield Finding(
            f"{where}, {what}",
            text,
            f"the table has {there}",
            "follows" if same else "cannot follow",
            "The number quoted in the text beside the one in the table.",
            {"text": float(text), "table": float(there)},
        )


def newton_schulz_flops(products: int) -> float:
    """FLOPs of T steps on all matrices of the image tower; the third product of a step is of m x m matrices."""
    total = 0.0
    for first, second in MATRICES:
        m, n = sorted((first, second))
        total += STEPS * (min(products, 2) * 2 * m * m * n + (products == 3) * 2 * m**3)
    return total


def pass_flops(images: int) -> float:
    """FLOPs of a forward and a backward pass (three forward ones) of the image tower on so many images."""
    linear = sum(m * n for m, n in BLOCK) * TOKENS
    attention = 2 * TOKENS**2 * WIDTH
    forward = 2 * (DEPTH * (linear + attention) + (TOKENS - 1) * WIDTH * PIXELS + WIDTH * OUT)
    return 3.0 * images * forward


def _products() -> Finding:
    return Finding(
        "Appendix G, products in a Newton-Schulz step",
        "a single matrix multiplication and a subtraction",
        "Section 3.1 says two, which Eq. 7 takes (X Xᵀ and its product with X); «NewtonSchulz5» of Algorithm 1 takes "
        f"three. For T = 5 on CLIP's ViT-B/16: {newton_schulz_flops(1) / 1e12:.2f}, "
        f"{newton_schulz_flops(2) / 1e12:.2f} and {newton_schulz_flops(3) / 1e12:.2f} TFLOP",
        "does not hold",
        "Counting the products of the formulas, on the shorter side of each of the 51 matrices of the image tower.",
        {f"{products} products": newton_schulz_flops(products) for products in (1, 2, 3)},
    )


def _negligible() -> Finding:
    share = {n: newton_schulz_flops(3) / (2 * pass_flops(n)) for n in (12, 36)}
    return Finding(
        "Appendix G, cost of Newton-Schulz",
        "negligible compared to the forward-backward passes",
        f"{newton_schulz_flops(3) / 1e12:.2f} TFLOP a step beside {2 * pass_flops(12) / 1e12:.2f} TFLOP for two "
        f"forward-backward passes of 12 images ({100 * share[12]:.0f}%), and {2 * pass_flops(36) / 1e12:.2f} of "
        f"36 images ({100 * share[36]:.0f}%)",
        "does not hold",
        "FLOPs of linear layers and attention of CLIP's ViT-B/16, a backward pass counted as two forward ones; three "
        "products a step. FLOPs are not time; `domainbed-sage paper cost` measures.",
        {f"{n} images": value for n, value in share.items()},
    )


def step_cost(K: int, images: int, *, joint: bool) -> float:
    """The FLOPs of a SAGE step in those of an ERM step.

    Args:
        K: domains.
        images: of all domains together.
        joint: whether the K gradients are taken from one graph over all images, each a whole backward pass, or each
            domain's from a graph of its own.
    """
    first = (1 + 2 * K) / 3 if joint else 1.0
    return first + 1 + newton_schulz_flops(3) / pass_flops(images)


def _twice() -> Finding:
    cost = {(K, joint): step_cost(K, 12 * K, joint=joint) for K in (3, 5) for joint in (True, False)}
    return Finding(
        "Appendix G, cost of a step",
        "approximately 2 x 2 that of ERM, the same factor as SAM, from a single forward pass",
        "2 x 2 is not SAM's factor, 2. K gradients of one forward pass take K backward passes: "
        f"{cost[3, True]:.1f} (K = 3) and {cost[5, True]:.1f} (K = 5) times ERM at 12 images a domain; with a forward "
        f"pass for each domain, {cost[3, False]:.1f} and {cost[5, False]:.1f}",
        "holds in part",
        "FLOPs as above: ERM is a forward and a backward pass of all images, SAM two of both.",
        {f"K = {K}, {'one graph' if joint else 'K graphs'}": value for (K, joint), value in cost.items()},
    )
