"""The detector that users load: scores, p-values, verdicts and heat maps of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from data_tools.dataset.cache import DEFAULT_LIMIT, open_cache
from data_tools.dataset.intensity import Intensity
from data_tools.errors import UserError
from trainer.run.checkpoint import chosen_checkpoint, read_info
from trainer.scoring.calibration import HEAT, Calibration, calibration_of, joined_in, run_of, terms_of
from trainer.scoring.criterion import AUTO, Criterion
from trainer.scoring.heat import full_size, heat_maps, strength
from trainer.scoring.inference import Inference
from trainer.scoring.join import REVIEWED, SUMMED, fused, weights
from trainer.scoring.junk_share import JunkShare, junk_share
from trainer.scoring.p_values import p_values
from trainer.scoring.reviewed_run import decided, with_decisions
from trainer.scoring.terms.base import Term
from trainer.scoring.thresholds import Kind, Threshold, threshold

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Scored:
    """Of N images: one score, the greater the more anomalous, float64 N; every term by name, float64 N each.

    p_value: the share of training images that score as high; anomalous: verdicts, bool N. None where there is no
    calibration, or no threshold.
    """

    score: np.ndarray
    terms: dict[str, np.ndarray]
    p_value: np.ndarray | None = None
    anomalous: np.ndarray | None = None

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """What tables show behind the score."""
        return self.terms if self.p_value is None else {"p_value": self.p_value, **self.terms}

    def frame(self, index: Sequence[object] | None = None) -> pandas.DataFrame:
        """A row per image: score, p_value, terms, anomalous, as far as they are there; index: names of the images."""
        import pandas

        columns = {"score": self.score, **self.columns}
        columns |= {} if self.anomalous is None else {"anomalous": self.anomalous}
        return pandas.DataFrame(columns, index=None if index is None else pandas.Index(index))


class Judge:
    """What follows from a criterion and from the scores of training images, whatever gave these."""

    criterion: Criterion
    known: np.ndarray
    made: Mapping[str, np.ndarray]
    """Scores of synthetic anomalies made from training images, by kind."""

    @property
    def threshold_note(self) -> str:
        """What is called anomalous, in a few words."""
        if self.above is None:
            return "no threshold"
        asked = self.criterion
        shares = {"false alarms": asked.false_alarms, "contamination": asked.contamination}
        said = [f" ({name} {share})" for name, share in shares.items() if share is not None]
        return f"anomalous above {self.above:.4g}{said[0] if said else ''}"

    def heat(self, images: np.ndarray) -> np.ndarray:
        """Where: float32 N x H x W in units of what is usual at each pixel."""
        raise NotImplementedError

    def check_reconstructs(self) -> None:
        """UserError where nothing makes closest matches, and so no heat maps."""
        raise NotImplementedError

    @property
    def calibrates(self) -> bool:
        """Whether heat is in units of what is usual."""
        return True

    def threshold(self, kind: Kind, share: float, judged: int = 1000) -> Threshold:
        """The threshold on this score; see `thresholds.threshold`."""
        return threshold(self.known, kind, share, judged)

    @cached_property
    def limit(self) -> Threshold | None:
        """The threshold that the criterion derives from the training images; None where it asks for none."""
        asked = self.criterion
        if asked.false_alarms is not None:
            return self.threshold("false-alarms", asked.false_alarms)
        if asked.contamination != AUTO:
            return None if asked.contamination is None else self.threshold("contamination", asked.contamination)
        if self.junk.expected is None:
            raise UserError(f"--contamination auto: {self.junk.sentence()[:-1]} - give a number, e.g. 0.02")
        return self.threshold("contamination", self.junk.expected)

    @cached_property
    def junk(self) -> JunkShare:
        """How much of the training images is junk, as far as the score can tell."""
        return junk_share(self.known, self.made)

    @property
    def above(self) -> float | None:
        """The score above which an image is called anomalous; None without a threshold."""
        return self.limit.value if self.limit else self.criterion.threshold

    @property
    def meaning(self) -> str:
        """What the threshold means, for a person; empty where the user chose it, or where there is none."""
        result = [self.junk.sentence()] if self.criterion.contamination == AUTO else []
        return " ".join([*result, self.limit.sentences()]) if self.limit else ""

    def heat_shares(self, images: np.ndarray) -> np.ndarray:
        """The same as shares of the fullest colour: 0 is usual there, 1 is as rare as colour shows."""
        heat = self.heat(images)
        return strength(heat)

    def verdicts(self, score: np.ndarray, terms: dict[str, np.ndarray], p_value: np.ndarray | None = None) -> Scored:
        """Scores with what they mean for the criterion."""
        return Scored(score, terms, p_value, None if self.above is None else score > self.above)


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
            terms = self.inference.values(images, self.inference.quick).terms
            return self.verdicts(self.score_of(terms), terms)
        terms, known = terms_of(self.inference, self.calibration, images, samples)
        score = self.score_of(terms, known)
        return self.verdicts(score, terms, p_values(score, self.known, known))

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
        if self.calibration is None or self.calibration.heat is None:
            return self.inference.heatmap(images)
        maps = self.calibration.heat.applied(heat_maps(self.inference, images, HEAT))
        return full_size(maps.astype(np.float32), images.shape[1])

    def heat_shares(self, images: np.ndarray) -> np.ndarray:
        """As of any; with a plain criterion |w(Q) - w(R)|, which is a share already."""
        return self.heat(images) if self.calibration is None else super().heat_shares(images)
