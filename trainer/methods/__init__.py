"""Methods: the proposed one and its rivals."""
