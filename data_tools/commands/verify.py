"""python -m data_tools verify: every byte of a dataset against its manifest, and every key and picture's kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro

from data_tools.errors import UserError

if TYPE_CHECKING:
    from data_tools.dataset.manifest import Shard

FEW = 20_000
"""Images that are checked sooner than further processes have started."""


@dataclass(frozen=True)
class Verify:
    """Compare every byte of a dataset with its manifest; keys must differ, images be of its side, depth and colour."""

    url: tyro.conf.Positional[str]
    """The dataset."""

    def __call__(self) -> None:
        from data_tools.dataset.manifest import MANIFEST, read_manifest
        from data_tools.processes import cores, in_processes
        from data_tools.progress import progress
        from data_tools.storage import open_storage

        storage = open_storage(self.url)
        manifest, seen = read_manifest(storage), set[str]()
        processes = 1 if sum(shard.samples for shard in manifest.shards) < FEW else min(cores(), len(manifest.shards))
        like = (manifest.resolution, manifest.channels)
        checked = in_processes(_check, (self.url, like), manifest.shards, processes)
        for name, keys in progress(checked, "verifying", "shards", len(manifest.shards)):
            if twice := seen.intersection(keys):
                raise UserError(
                    f"{storage.url}/{name}: the key {min(twice)} is in another shard as well - write the dataset again"
                )
            seen.update(keys)
        surplus = set(storage.names()) - {shard.name for shard in manifest.shards} - {MANIFEST}
        if surplus:
            raise UserError(f"{storage.url}/{min(surplus)}: is not in the manifest - remove it")
        size = sum(shard.size for shard in manifest.shards)
        print(f"{storage.url}: all {len(manifest.shards)} shards ({size:,} bytes) are as the manifest says")


def _check(shared: tuple[str, tuple[int, int]], shard: Shard) -> tuple[str, list[str]]:
    from data_tools.dataset.shards import check_shard
    from data_tools.storage import open_storage

    url, like = shared
    return shard.name, check_shard(open_storage(url), shard, like)
