"""Rules that make one direction of the gradients of several losses; importing a file registers its rules."""

from domainbed_sage.algorithms.solvers.base import (
    Combined,
    GramSolver,
    LossSolver,
    Solver,
    Tasks,
    make_solver,
    register,
    solvers,
)

# In the order of SAGE's Table 2.
from domainbed_sage.algorithms.solvers import scalarizations  # isort: skip
from domainbed_sage.algorithms.solvers import dwa  # isort: skip
from domainbed_sage.algorithms.solvers import uw  # isort: skip
from domainbed_sage.algorithms.solvers import mgda  # isort: skip
from domainbed_sage.algorithms.solvers import pcgrad  # isort: skip
from domainbed_sage.algorithms.solvers import graddrop  # isort: skip
from domainbed_sage.algorithms.solvers import imtl  # isort: skip
from domainbed_sage.algorithms.solvers import cagrad  # isort: skip
from domainbed_sage.algorithms.solvers import moco  # isort: skip
from domainbed_sage.algorithms.solvers import fairgrad  # isort: skip
from domainbed_sage.algorithms.solvers import famo  # isort: skip

__all__ = [
    "Combined",
    "GramSolver",
    "LossSolver",
    "Solver",
    "Tasks",
    "cagrad",
    "dwa",
    "fairgrad",
    "famo",
    "graddrop",
    "imtl",
    "make_solver",
    "mgda",
    "moco",
    "pcgrad",
    "register",
    "scalarizations",
    "solvers",
    "uw",
]
