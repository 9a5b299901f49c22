"""Datasets: shards, manifest, cache, and the order in which a training reads them."""
