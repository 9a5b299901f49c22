"""The commands of python -m data_tools, one file each."""
