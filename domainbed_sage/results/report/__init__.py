"""One HTML page about a results folder, that never asks the network, and the same numbers as JSON."""
