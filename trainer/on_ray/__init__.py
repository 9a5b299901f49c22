"""The same training on Ray's workers."""
