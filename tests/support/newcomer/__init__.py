"""What a newcomer adds: files that `tests/test_newcomer.py` puts where they would lie."""
