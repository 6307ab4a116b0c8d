"""Many runs: the sweep file, its cost, and where they run: this machine, or a Slurm cluster."""
