"""The cluster on this machine: a real object store for demos and tests."""
