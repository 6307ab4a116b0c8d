"""The literal reference of every method that has one."""

from reference.literals import LITERALS as FIRST
from reference.literals_sharpness import SHARPNESS

LITERALS = FIRST | SHARPNESS
