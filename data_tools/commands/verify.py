"""python -m data_tools verify: every byte of a dataset against its manifest, and every key and picture's kind."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from data_tools.errors import UserError


@dataclass(frozen=True)
class Verify:
    """Compare every byte of a dataset with its manifest; keys must differ, images be of its side, depth and colour."""

    url: tyro.conf.Positional[str]
    """The dataset."""

    def __call__(self) -> None:
        from data_tools.dataset.manifest import MANIFEST, read_manifest
        from data_tools.dataset.shards import check_shard
        from data_tools.progress import progress
        from data_tools.storage import open_storage

        storage = open_storage(self.url)
        manifest, seen = read_manifest(storage), set[str]()
        for shard in progress(manifest.shards, "verifying", "shards", len(manifest.shards)):
            keys = check_shard(storage, shard, (manifest.resolution, manifest.channels))
            if twice := seen.intersection(keys):
                raise UserError(
                    f"{storage.url}/{shard.name}: the key {min(twice)} is in another shard as well"
                    " - write the dataset anew"
                )
            seen.update(keys)
        surplus = set(storage.names()) - {shard.name for shard in manifest.shards} - {MANIFEST}
        if surplus:
            raise UserError(f"{storage.url}/{min(surplus)}: is not in the manifest - remove it")
        size = sum(shard.size for shard in manifest.shards)
        print(f"{storage.url}: all {len(manifest.shards)} shards ({size:,} bytes) are as the manifest says")
