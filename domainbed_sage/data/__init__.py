"""Datasets: environments of labelled images, their splits, and the minibatches made from them."""
