"""The commands of python -m cluster, one file each."""
