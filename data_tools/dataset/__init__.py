"""Datasets: shards, manifest, cache, and the order in which a training run reads them."""
