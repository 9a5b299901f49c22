"""The detector that users load: scores, p-values, verdicts and heat maps of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from torch import Tensor

from data_tools.dataset.cache import DEFAULT_LIMIT, open_cache
from data_tools.dataset.intensity import Intensity
from trainer.run.checkpoint import chosen_checkpoint, read_info
from trainer.scoring.calibration import HEAT, Calibration, calibration_of, joined_in, run_of, terms_of
from trainer.scoring.comparison import compared
from trainer.scoring.criterion import Criterion
from trainer.scoring.heat import blurred_kind, full_size, residual
from trainer.scoring.inference import Inference
from trainer.scoring.join import REVIEWED, SUMMED, fused, weights
from trainer.scoring.judge import Judge, Scored
from trainer.scoring.p_values import p_values
from trainer.scoring.reviewed_run import decided, with_decisions
from trainer.scoring.terms.base import Response, Term


@dataclass(frozen=True)
class Detector(Judge):
    """Trained networks, a criterion, and what the training images say; made by `load`.

    The criterion may be changed at any time by `dataclasses.replace`: the networks do not know of it. calibration:
    None where the criterion is plain, and so does without the dataset.
    """

    inference: Inference
    criterion: Criterion = field(default_factory=Criterion)
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        self.criterion.check()
        self.criterion.check_fits(self.inference.method)

    def __repr__(self) -> str:
        known = self.calibration
        terms = (
            f" of {' + '.join(name for name, weight in known.weights.items() if weight)}"
            if known and self.criterion.by in SUMMED
            else ""
        )
        images = f", calibrated on {len(known.samples):,} training images" if known else ""
        side = self.resolution
        return (
            f"<Detector: {self.inference.config.method}, images of {side}x{side}x{self.channels},"
            f" score {self.criterion.by}{terms}{images}, {self.threshold_note}>"
        )

    @staticmethod
    def load(
        run: str,
        criterion: Criterion | None = None,
        best: bool = False,
        cache: str = "",
        cache_limit: str = DEFAULT_LIMIT,
        data: str = "",
    ) -> Detector:
        """Of a run's newest or best checkpoint, or of one checkpoint, by its URL.

        The first time this reads the run's training images, unless the criterion is plain, and keeps what they say in
        RUN/calibration, or in the user's cache folder where that cannot be written to. data: the URL of the run's
        dataset, where it does not lie any more where it was trained on.
        """
        criterion = criterion or Criterion()
        criterion.check()
        info = read_info(chosen_checkpoint(run, best))
        inference = Inference.from_checkpoint(info)
        if criterion.is_plain:
            return Detector(inference, criterion)
        known = calibration_of(info, inference, cache, cache_limit, data)
        if criterion.by == REVIEWED:
            is_junk = decided([run_of(info.url)])
            known = with_decisions(info, inference, known, is_junk, open_cache(cache, cache_limit), data)
        return Detector(inference, criterion, known)

    @property
    def resolution(self) -> int:
        return self.inference.resolution

    @property
    def channels(self) -> int:
        return self.inference.channels

    @property
    def intensity(self) -> Intensity | None:
        """What `read_image` needs for images of more than 8 bits."""
        return self.inference.intensity

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of `Scored.columns`, in their order."""
        if self.calibration is None:
            return tuple(term.name for term in self.inference.quick)
        return ("p_value", *(term.name for term in self.joined))

    @property
    def joined(self) -> tuple[Term, ...]:
        """The terms that `fused` joins here: those of the calibration, which in an old run are fewer."""
        return joined_in(self.inference, self.calibration) if self.calibration else ()

    def score(self, images: np.ndarray, samples: np.ndarray | None = None) -> Scored:
        """images: uint8, N x H x W x C; H = W = a whole multiple of the detector's resolution.

        samples: where these are the training set's own images, which (int64 N): an image is no neighbour of its own,
        and does not count among those that score as high as it does. What the calibration knows is not computed again.
        """
        if self.calibration is None:
            return self._judged(self.inference.values(images, self.inference.quick).terms)
        return self._judged(*terms_of(self.inference, self.calibration, images, samples))

    def score_with_heat(self, images: np.ndarray) -> Scored:
        """`score` and `heat` by one pass of each network; UserError where the method makes no closest matches."""
        self.check_reconstructs()
        terms = self.inference.quick if self.calibration is None else self.joined
        values = self.inference.values(images, terms, maps=self._map)
        if self.calibration is None:
            scored = self._judged(values.terms)
        else:
            scored = self._judged(compared(terms, values, self.calibration.kept), np.full(len(images), False))
        assert values.maps is not None
        return replace(scored, heat=self._in_ranges(values.maps, images.shape[1]))

    def _judged(self, terms: dict[str, np.ndarray], is_known: np.ndarray | None = None) -> Scored:
        score = self.score_of(terms, is_known)
        return self.verdicts(score, terms, None if self.calibration is None else p_values(score, self.known, is_known))

    def score_of(self, terms: Mapping[str, np.ndarray], is_known: np.ndarray | None = None) -> np.ndarray:
        """One score from terms, N; is_known (bool N): those of an image that is in the calibration."""
        if self.criterion.by in SUMMED:
            assert self.calibration
            return fused(terms, self.calibration.terms, self.calibration.weights, is_known)
        parts = [weight * terms[name] for name, weight in weights(self.criterion.by, self.criterion.lam).items()]
        return np.sum(parts, axis=0)

    @cached_property
    def known(self) -> np.ndarray:  # type: ignore[override]
        """The calibrating training images' scores, n."""
        assert self.calibration
        return self.score_of(self.calibration.terms, np.full(len(self.calibration.samples), True))

    @cached_property
    def made(self) -> Mapping[str, np.ndarray]:  # type: ignore[override]
        """Scores of synthetic anomalies, by kind: none in old runs, and where images are small."""
        assert self.calibration
        return {kind: self.score_of(terms) for kind, terms in self.calibration.made.items()}

    @property
    def calibrated(self) -> Calibration:
        """The calibration, which is there unless the criterion is plain."""
        assert self.calibration
        return self.calibration

    @property
    def known_terms(self) -> dict[str, np.ndarray]:
        """The calibrating training images' terms, n each."""
        return self.calibrated.terms

    @property
    def meanings(self) -> dict[str, str]:
        """What each of these terms is, in a sentence."""
        return {term.name: term.meaning for term in self.joined}

    @property
    def calibrates(self) -> bool:
        return self.calibration is not None

    def all_terms(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """What the score is made of, as an exported folder names it."""
        return self.score(images).terms

    @property
    def reconstructs(self) -> bool:
        """Whether the method makes closest matches, and so heat maps."""
        return self.inference.reconstructs

    def check_reconstructs(self) -> None:
        self.inference.method.check_reconstructs()

    def matches(self, images: np.ndarray) -> np.ndarray:
        """Closest matches as pixels: uint8 N x r x r x C; UserError where the method makes none."""
        return self.inference.contrast.pixels(self.inference.reconstruct(images))

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """Closest matches: float32, N x r x r x C, about [-1, 1]; UserError where the method makes none."""
        return self.inference.reconstruct(images)

    def heat(self, images: np.ndarray) -> np.ndarray:
        """Where: float32 N x H x W in units of what is usual at each pixel; 0 is usual, 3 is rare.

        With a plain criterion |w(Q) - w(R)|, N x r x r in [0, 1]. UserError where the method makes no closest matches.
        """
        return self._in_ranges(self.inference.maps(images, self._map), images.shape[1])

    @property
    def _map(self) -> Callable[[Response], Tensor]:
        """The map that heat is made of."""
        return residual if self.calibration is None or self.calibration.heat is None else blurred_kind(HEAT)

    def _in_ranges(self, maps: np.ndarray, side: int) -> np.ndarray:
        """Maps in units of what is usual, side x side, where that is known."""
        if self.calibration is None or self.calibration.heat is None:
            return maps
        return full_size(self.calibration.heat.applied(maps).astype(np.float32), side)

    def shares(self, heat: np.ndarray) -> np.ndarray:
        """As of any; with a plain criterion |w(Q) - w(R)|, which is a share already."""
        return heat if self.calibration is None else super().shares(heat)
