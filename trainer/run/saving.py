"""Checkpoints on their way to the run's URL, validated and thinned out there, while training goes on.

One thread of the first worker does it all, in order: files, logs, checkpoint.json, validation, removal of old ones. So
a checkpoint that exists has its logs beside it, and no checkpoint goes that is not validated.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import numpy as np

from data_tools.dataset.reader import Dataset
from data_tools.errors import TakenOverError, UserError
from data_tools.storage import Guarded, StillOurs, open_storage, write_bytes
from trainer.config import SEPARATION, TrainConfig
from trainer.methods import method_of
from trainer.run.checkpoint import BEST, Snapshot, checkpoint_names, images_of, remove_checkpoint, write_checkpoint
from trainer.run.monitor import Monitor
from trainer.run.recoveries import rollback_target
from trainer.schedule import ends_a_phase
from trainer.scoring.evaluation import has_labels, score_table, summary
from trainer.scoring.inference import Inference
from trainer.scoring.synthetic import CORRUPTIONS, MIN_SIDE, corrupted, median_separation, separation

PROBES, PROBE_BYTES = 256, 2**24
"""Training images that are corrupted to tell how good a checkpoint is; of large ones fewer, but 32."""
LAST_ATTEMPTS, PAUSE = 10, 5.0
"""How often a run that is over tries to save its end, and seconds between."""


class Saver:
    """Saves what it is given, one snapshot after the other.

    One that still waits gives way to a newer one, unless it is one that must not be left out.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        probes: np.ndarray,
        monitor: Monitor,
        still_ours: StillOurs,
        unsettled: Snapshot | None,
    ) -> None:
        """probes: the first PROBES training images, which say without labels how good a checkpoint is.

        still_ours: raises TakenOverError once the run is another process's. unsettled: what to catch up on.
        """
        self.config, self.dataset, self.monitor, self.still_ours = config, dataset, monitor, still_ours
        self.labelled = has_labels(dataset)
        self.best_by = config.judged_by(self.labelled)
        probes = probes[: max(PROBE_BYTES // probes[0].size, 32)]
        self.probes = {"": probes}
        if min(probes.shape[1:3]) >= MIN_SIDE:
            self.probes |= {kind: corrupted(probes, kind, seed=0) for kind in CORRUPTIONS}
        self.news, self.over = threading.Condition(), False
        self.waiting: list[tuple[Snapshot, bool]] = []
        self.failure: BaseException | None = None
        self.unsaved: Snapshot | None = None
        self.unsettled = unsettled
        self.refuge: str | None = None  # the checkpoint to go back to, which stays
        self.thread = threading.Thread(target=self._work, name="saver", daemon=True)
        self.thread.start()

    def save(self, snapshot: Snapshot, must: bool) -> None:
        """Hand a snapshot over; raises what stopped the saving of an earlier one for good."""
        self.check()
        with self.news:
            if self.waiting and not self.waiting[-1][1]:
                self.waiting.pop()
            self.waiting.append((snapshot, must))
            self.news.notify()

    def check(self) -> None:
        """Raise what stopped the saving for good."""
        if self.failure:
            raise self.failure

    def finish(self) -> None:
        """Wait until all is saved; tries again for a while where the storage is away."""
        self._end()
        self.check()
        for attempt in range(LAST_ATTEMPTS):
            try:
                if self.unsaved:
                    self._save(self.unsaved)
                if self.unsettled:
                    self._settle(self.unsettled)
                return self.monitor.send()
            except UserError as error:
                if attempt + 1 == LAST_ATTEMPTS or isinstance(error, TakenOverError):
                    raise
                self.monitor.say(f"{error}; trying again")
                time.sleep(PAUSE)

    def abandon(self) -> None:
        """End without saving what waits."""
        with self.news:
            self.waiting.clear()
        self._end()

    def _end(self) -> None:
        with self.news:
            self.over = True
            self.news.notify()
        self.thread.join()

    def _work(self) -> None:
        if self.unsettled:
            self._try(self._settle, self.unsettled)
        while not self.failure:
            with self.news:
                self.news.wait_for(lambda: self.waiting or self.over)
                if not self.waiting:
                    return
                snapshot, _ = self.waiting.pop(0)
            self.unsaved = snapshot
            self._try(self._save, snapshot)

    def _try(self, task: Callable[[Snapshot], None], snapshot: Snapshot) -> None:
        try:
            task(snapshot)
        except UserError as error:  # the storage is away; training can go on, and the next one may get through
            if isinstance(error, TakenOverError):
                self.failure = error
            self.monitor.say(f"warning: while saving at {snapshot.images_seen:,} images: {error}")
        except BaseException as error:
            self.failure = error

    def _save(self, snapshot: Snapshot) -> None:
        write_checkpoint(self.config.out, snapshot, self.monitor.send, self.still_ours)
        self.unsaved, self.unsettled = None, snapshot
        self._settle(snapshot)

    def _settle(self, snapshot: Snapshot) -> None:
        """What remains to be done for a checkpoint that is there."""
        ready = method_of(snapshot.config).ready(snapshot.config, snapshot.images_seen)
        if ready and not self.monitor.is_validated(snapshot.name):
            self._validate(snapshot)
        self._thin_out(snapshot)
        self.unsettled = None

    def _validate(self, snapshot: Snapshot) -> None:
        """Record how well a snapshot tells synthetic anomalies, and its AUCs on labelled test images."""
        inference, values = Inference.from_snapshot(snapshot), dict[str, float]()
        if len(self.probes) > 1 and inference.quick:
            values[SEPARATION] = self._separation(inference)
        if self.labelled:
            table = score_table(inference, self.dataset, inference.quick)
            values |= summary(table.scores, table.labels)
        if values:
            self.monitor.metrics(snapshot.images_seen, {f"validation/{name}": value for name, value in values.items()})

    def _separation(self, inference: Inference) -> float:
        """The best quick term's AUC of synthetic anomalies against their originals, the median of their kinds."""
        scores = {kind: inference.values(images, inference.quick) for kind, images in self.probes.items()}
        usual = scores.pop("")
        return max(
            median_separation([separation(usual[term.name], made[term.name]) for made in scores.values()])
            for term in inference.quick
        )

    def _thin_out(self, newest: Snapshot) -> None:
        """Remove all but the newest ones, the best and one to go back to, and what is left of broken attempts."""
        run = self.config.out
        whole = checkpoint_names(run)
        aucs = self.monitor.validations(self.best_by)
        scored = [name for name in whole if name in aucs]
        kept = set(whole[-self.config.keep :])
        if scored:
            best = max(scored, key=lambda name: aucs[name])
            kept.add(best)
            said = {"checkpoint": best, self.best_by: aucs[best]}
            write_bytes(Guarded(open_storage(run), self.still_ours), BEST, (json.dumps(said, indent=2) + "\n").encode())
        if ends_a_phase(self.config.schedule(), newest.images_seen) and not newest.ailing:
            self.refuge = newest.name
        elif self.refuge is None and (target := rollback_target(run)):
            self.refuge = target.name
        kept.add(self.refuge or "")
        for name in checkpoint_names(run, whole=False):
            if name not in kept and images_of(name) <= newest.images_seen:
                remove_checkpoint(run, name, self.still_ours)
