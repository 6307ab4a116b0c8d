"""What every wing builds on: registries, hyperparameters, errors, files, seeds, plugins, shipped files."""
