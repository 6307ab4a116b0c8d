"""Multi-task datasets: images, each with one target for every task."""
