"""What all other packages build on: registries, hyperparameters, errors, files, seeds, plugins, shipped files."""
