"""Data tools: cut images into patches, shard them, read them back in any order."""
