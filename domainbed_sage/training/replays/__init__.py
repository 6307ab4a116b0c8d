"""What was recorded of multi-task codes beside whole updates, computed again: solvers, metrics, crops, MTAN, Δm."""
