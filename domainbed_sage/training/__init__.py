"""One run, from its description to its records: the loop, its folder, its evaluations, its restarts."""
