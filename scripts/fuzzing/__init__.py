"""What `scripts/fuzz.py` throws at the readers of the suite, one module for each kind of input."""
