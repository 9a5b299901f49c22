"""A run's folder: checkpoints, logs, where it goes on."""
