"""Sweeps on a Slurm cluster, through submitit: launching, the jobs themselves, and where a sweep stands."""
