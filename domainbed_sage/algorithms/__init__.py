"""The published methods, one file each; importing a file registers its method.

CONTRIBUTING.md says what adding one takes.
"""

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import algorithms, register

# One line a method, in the order of the paper's Table 1.
from domainbed_sage.algorithms import erm  # isort: skip
from domainbed_sage.algorithms import sam  # isort: skip
from domainbed_sage.algorithms import sagm  # isort: skip
from domainbed_sage.algorithms import gga  # isort: skip
from domainbed_sage.algorithms import disam  # isort: skip
from domainbed_sage.algorithms import sage  # isort: skip

__all__ = ["Algorithm", "Metrics", "Problem", "algorithms", "disam", "erm", "gga", "register", "sage", "sagm", "sam"]
