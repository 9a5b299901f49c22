"""The same training run on Ray's workers."""
