"""The commands of python -m tuning, one file each."""
