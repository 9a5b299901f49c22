"""The page's maps, histograms and pictures, gathered from a sweep's latent vectors, detectors and dataset."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import open_dataset
from data_tools.errors import UserError
from trainer.methods import METHODS
from trainer.scoring.join import PAPER_LAMBDA, WEIGHTED
from tuning.report.blocks import Block, drawn, listed
from tuning.report.figure_style import gamma_title, score_title
from tuning.report.latent_figures import MIN_VECTORS, TSNE_IMAGES, embedding, histograms_figure, maps_figure, subset
from tuning.report.picture_figures import extremes_figure, matches_figure
from tuning.score_names import FUSED, A, known_by, rivals, siblings, title_of_method
from tuning.scored import scored_images
from tuning.sweep_tables import Sweep, Trial

EACH_KIND, EXTREMES = 6, 8


class LatentMaps:
    """A sweep's latent vectors with labels, and their t-SNE maps, each made once."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.maps: dict[str, np.ndarray] = {}

    def latents(self, trial: Trial) -> tuple[np.ndarray, np.ndarray] | None:
        """z_hat (N x N_z) and labels (N); None where the trial left none."""
        result = self.sweep.latents(trial)
        labels = trial.scores.labels
        return None if result is None or labels is None else (result, labels)

    def map(self, trial: Trial) -> tuple[np.ndarray, np.ndarray] | None:
        """The t-SNE map (M x 2) and labels (M); None where there are too few vectors."""
        result = self.latents(trial)
        if result is None or len(result[0]) < MIN_VECTORS or result[0].shape[1] < 2:
            return None
        shown = subset(len(result[0]))
        if trial.name not in self.maps:
            self.maps[trial.name] = embedding(result[0][shown])
        return self.maps[trial.name], result[1][shown]

    def figure_2(self, name: str) -> Block | None:
        corners = _corners(self.sweep, list(METHODS))
        maps = {place: points for place, trial in corners.items() if (points := self.map(trial))}
        trials = {place: corners[place] for place in maps}
        if not maps:
            return None
        caption = f"t-SNE maps (perplexity 30 or less) of z_hat of the test images{_most(maps)}; {_names(trials)}."
        figure = maps_figure(*_axes(maps), maps)
        return Block(name, "Figure 2: where the encoders put the test images", caption, picture=drawn(figure, "png"))

    def figure_3(self, name: str) -> Block | None:
        corners = _corners(self.sweep, list(METHODS))
        values = {place: vectors for place, trial in corners.items() if (vectors := self.latents(trial))}
        trials = {place: corners[place] for place in values}
        if not values:
            return None
        caption = (
            "Histograms of all coefficients of z_hat of the test images, pooled, each kind scaled to area one; "
            f"{_names(trials)}."
        )
        figure = histograms_figure(*_axes(values), {place: (z, labels) for place, (z, labels) in values.items()})
        return Block(name, "Figure 3: coefficients of z_hat", caption, picture=drawn(figure, "svg"))

    def figure_4(self, name: str) -> Block | None:
        gamma = self.sweep.gammas[0]
        subject = self.sweep.subject
        corners = _corners(self.sweep, siblings(subject.method) if subject else [])
        trials = {place: trial for place, trial in corners.items() if place[0] == gamma_title(gamma)}
        maps = {place: points for place, trial in trials.items() if (points := self.map(trial))}
        if len(maps) < 2:
            return None
        caption = f"t-SNE maps of z_hat of the test images{_most(maps)}; {_names(trials)}."
        figure = maps_figure(*_axes(maps), maps)
        return Block(name, "Figure 4: d_I against d_z", caption, picture=drawn(figure, "png"))


def score_histograms(sweep: Sweep, name: str) -> Block | None:
    """Histograms of one method's scores by contamination, first seed; None without scores."""
    methods = [sweep.subject.method] if sweep.subject else []
    trials = {row: trial for (row, _), trial in _corners(sweep, methods, sweep.gammas).items()}
    scores = dict.fromkeys([*WEIGHTED, *(known_by(method) for method in methods), A, FUSED])
    values = {
        (row, score_title(score)): (trial.scores.score(score, PAPER_LAMBDA), trial.scores.labels)
        for row, trial in trials.items()
        for score in scores
        if trial.scores.has(score)
    }
    if not values:
        return None
    caption = f"Histograms of scores of the {_kind(sweep)}; the greater, the more anomalous; {_names(trials)}."
    picture = drawn(histograms_figure(*_axes(values), values), "svg")
    return Block(name, "Distributions of scores", caption, picture=picture)


def pictures(sweep: Sweep, name: str, cache: str, cache_limit: str) -> list[Block]:
    """Figure 5's closest matches and the extremes; a sentence where a run or the dataset is gone."""
    if sweep.subject is None:
        return []
    shown = [method for method in METHODS if method == sweep.subject.method or method in rivals(sweep.subject.method)]
    shown = [method for method in shown if "reconstruct" in METHODS[method].offers()]
    corner = {method: trial for (_, method), trial in _corners(sweep, shown, sweep.gammas[-1:]).items()}
    if not corner:
        return []
    matches_title, extremes_title = "Figure 5: closest matches", f"The most and the least anomalous {_kind(sweep)}"
    try:
        images = _scored_images(sweep, next(iter(corner.values())), cache, cache_limit)
        blocks = []
        labels = next(iter(corner.values())).scores.labels
        if labels is not None:
            blocks.append(_matches(sweep, f"{name}-matches", matches_title, corner, images, labels))
        if subject := corner.get(title_of_method(sweep.subject.method)):
            blocks.append(_extremes(sweep, f"{name}-extremes", extremes_title, subject, images))
        return blocks
    except (UserError, FileNotFoundError) as error:
        return [Block(f"{name}-matches", "Closest matches and extremes", f"Left out: {error}.")]


def _scored_images(sweep: Sweep, trial: Trial, cache: str, cache_limit: str) -> np.ndarray:
    """The images in the scores' order. UserError: they are gone, or are others by now."""
    judged = scored_images(open_dataset(sweep.plan.data, open_cache(cache or None, cache_limit)))
    if [origin["key"] for origin in judged.provenance] != trial.scores.keys:
        raise UserError(f"{sweep.plan.data}: holds other images than were scored - give the sweep its dataset back")
    return judged.images


def _matches(
    sweep: Sweep, name: str, title: str, corner: dict[str, Trial], images: np.ndarray, labels: np.ndarray
) -> Block:
    normal, anomalous = (_spread(np.flatnonzero(labels == kind)) for kind in (False, True))
    chosen = np.concatenate([normal, anomalous])
    rows = {}
    for method, trial in corner.items():
        detector = _detector(sweep, trial)
        rows.setdefault("query", detector.seen(images[chosen]))
        rows[method.partition(" (")[0]] = detector.reconstruct(images[chosen])
    caption = f"Test images, evenly drawn, above what each method makes of them; {_names(corner)}."
    headings = ["normal", *[""] * (len(normal) - 1), "anomalous", *[""] * (len(anomalous) - 1)]
    figure = matches_figure(headings, rows)
    return Block(name, title, caption, picture=drawn(figure, "png"))


def _extremes(sweep: Sweep, name: str, title: str, trial: Trial, images: np.ndarray) -> Block:
    by = FUSED if trial.scores.has(FUSED) else known_by(trial.variant.method)
    score, labels = trial.scores.score(by, PAPER_LAMBDA), trial.scores.labels
    order = np.argsort(-score, kind="stable")
    detector = _detector(sweep, trial)
    blocks = {}
    for block, chosen in (("most anomalous", order[:EXTREMES]), ("least anomalous", order[::-1][:EXTREMES])):
        kinds = ["" if labels is None else "\nanomalous" if labels[i] else "\nnormal" for i in chosen]
        headings = [f"{score[i]:.3g}{kind}" for i, kind in zip(chosen, kinds)]
        part = images[chosen]
        queries = detector.seen(part)
        blocks[block] = (headings, queries, detector.reconstruct(part), detector.heatmap(part))
    top = max(float(heat.max()) for *_, heat in blocks.values())
    caption = (
        f"The {_kind(sweep)} of the greatest and the least {score_title(by)} (above each, with its label, if any), "
        f"their closest matches, and heat maps of |w(Q) − w(R)| from 0 (black) to {top:.2g} (light); "
        f"{_names({'': trial})}."
    )
    return Block(name, title, caption, picture=drawn(extremes_figure(blocks, top), "png"))


def _kind(sweep: Sweep) -> str:
    return "test images" if sweep.labelled else "training images"


def _detector(sweep: Sweep, trial: Trial):
    from trainer.scoring.inference import Inference

    return Inference.load(f"{sweep.url}/trials/{trial.name}/run")


def _corners(sweep: Sweep, methods: list[str], gammas: list[float] | None = None) -> dict[tuple[str, str], Trial]:
    """Trials of the first seed by row (the least and the greatest contamination, or all given) and column (method)."""
    ends = sorted({sweep.gammas[0], sweep.gammas[-1]}) if gammas is None else gammas
    result = {}
    for gamma in ends:
        for method in methods:
            variant = sweep.first(method)
            if variant and (trials := sweep.of(variant, gamma)):
                result[gamma_title(gamma), title_of_method(method)] = trials[0]
    return result


def _axes(places: Iterable[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return list(dict.fromkeys(row for row, _ in places)), list(dict.fromkeys(column for _, column in places))


def _most(maps: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]) -> str:
    full = any(len(points) == TSNE_IMAGES for points, _ in maps.values())
    return f" (of more than {TSNE_IMAGES:,}, so many drawn at random)" if full else ""


def _names(trials: dict) -> str:
    return f"trials {listed(trial.name for trial in trials.values())}"


def _spread(indices: np.ndarray) -> np.ndarray:
    return indices[np.linspace(0, len(indices) - 1, min(EACH_KIND, len(indices))).round().astype(int)]
