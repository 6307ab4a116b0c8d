"""The published methods, one file each; importing a file registers its method.

CONTRIBUTING.md says what adding one takes.
"""

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import algorithms, register

# One line a method, in the order of the paper's Table 1.
from domainbed_sage.algorithms import erm  # isort: skip
from domainbed_sage.algorithms import fish  # isort: skip
from domainbed_sage.algorithms import sam  # isort: skip
from domainbed_sage.algorithms import gsam  # isort: skip
from domainbed_sage.algorithms import gam  # isort: skip
from domainbed_sage.algorithms import asam  # isort: skip
from domainbed_sage.algorithms import friendly_sam  # isort: skip
from domainbed_sage.algorithms import sagm  # isort: skip
from domainbed_sage.algorithms import gga  # isort: skip
from domainbed_sage.algorithms import disam  # isort: skip
from domainbed_sage.algorithms import boa  # isort: skip
from domainbed_sage.algorithms import sage  # isort: skip
from domainbed_sage.algorithms import swad  # isort: skip
from domainbed_sage.algorithms import clipood  # isort: skip
from domainbed_sage.algorithms import beta_average  # isort: skip
from domainbed_sage.algorithms import zero_shot  # isort: skip

__all__ = [
    "Algorithm",
    "Metrics",
    "Problem",
    "algorithms",
    "asam",
    "beta_average",
    "boa",
    "clipood",
    "disam",
    "erm",
    "fish",
    "friendly_sam",
    "gam",
    "gga",
    "gsam",
    "register",
    "sage",
    "sagm",
    "sam",
    "swad",
    "zero_shot",
]
