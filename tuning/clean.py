"""Rounds: train, audit, leave the worst out, train again; in the end a training run on what is left.

All that a round has done is in files under the result's URL, so that the same command goes on after any end of it. A
round is over when its list is there, which is written last.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from data_tools.dataset.cache import open_cache
from data_tools.dataset.exclusion import written_key
from data_tools.errors import UserError
from data_tools.storage import open_storage, read_document, write_bytes
from trainer.config import TrainConfig
from trainer.methods import method_of
from trainer.report.audit_page import embedded
from trainer.scoring.criterion import Criterion
from tuning.trainings import check_calibrates

LEFT_OUT, JUNK = "left_out.json", "junk.txt"
SHOWN = 120
"""Images of a round on the page, the worst ones."""


@dataclass(frozen=True)
class Rounds:
    """How often a training run leaves out what it finds the worst, and where that is written.

    cleaned: the training behind the last round, which leaves out all of it. drop: the share of its images that a round
    leaves out, the worst by the score `by`.
    """

    out: str
    cleaned: TrainConfig
    rounds: int
    drop: float
    by: str = "fused"

    def checked(self) -> Rounds:
        """Return self, or raise a UserError that names the first option out of range."""
        check_rounds(self.rounds, self.drop)
        check_calibrates(self.cleaned.validated())
        Criterion(self.by).check_fits(method_of(self.cleaned))
        return self

    def place(self, number: int) -> str:
        return f"{self.out}/round-{number}"

    def training(self, number: int) -> TrainConfig:
        """That of a round, from 1 on."""
        excluded = f"{self.place(number)}/exclude.txt" if number > 1 else ""
        return dataclasses.replace(self.cleaned, out=f"{self.place(number)}/run", exclude=excluded)


def check_rounds(rounds: int, drop: float) -> None:
    """UserError for the first that is out of range."""
    if rounds < 1:
        raise UserError(f"--rounds {rounds} is below 1 - give e.g. 3")
    if not 0 < drop < 1:
        raise UserError(
            f"--drop {drop} is not a share - give the share of images that each round leaves out, e.g. 0.02"
        )


@dataclass(frozen=True)
class Done:
    """A round that is over: what it left out, the worst first, and of how many images."""

    number: int
    ranked: int
    images: list[dict[str, Any]]  # key, pool, score, p and, of the first ones, the picture as a data URL


def audited(rounds: Rounds, number: int) -> Done:
    """What the round's detector finds the worst of the images that it was trained on."""
    from trainer.scoring.audit import ranked
    from trainer.scoring.loading import load_detector

    config = rounds.training(number)
    criterion = Criterion(rounds.by, contamination=rounds.drop)
    detector = load_detector(config.out, criterion, False, config.cache, config.cache_limit)
    ranking = ranked(config.out, detector, open_cache(config.cache, config.cache_limit), SHOWN)
    count, scored, images = max(int(rounds.drop * len(ranking.origins)), 1), ranking.scored, []
    assert scored.p_value is not None
    for i, line in enumerate(ranking.origins[:count]):
        origin = json.loads(line)
        image = {"key": origin["key"], "pool": origin.get("pool", ""), "score": float(scored.score[i])}
        picture = {"picture": embedded(ranking.worst[i])} if i < len(ranking.worst) else {}
        images.append(image | {"p": float(scored.p_value[i])} | picture)
    return Done(number, len(ranking.origins), images)


def run_rounds(
    rounds: Rounds,
    train: Callable[[TrainConfig], None],
    audit: Callable[[Rounds, int], Done] = audited,
    log: Callable[[str], None] = print,
) -> list[Done]:
    """All rounds that are not over, then the cleaned training.

    train: trains to the end, or goes on; audit: `audited`, perhaps elsewhere.
    """
    done: list[Done] = []
    for number in range(1, rounds.rounds + 1):
        left_out = _read(rounds, number)
        if left_out is None:
            log(f"round {number} of {rounds.rounds}")
            _write_list(rounds.place(number), "exclude.txt", done)
            train(rounds.training(number))
            left_out = audit(rounds, number)
            write_bytes(open_storage(rounds.place(number)), LEFT_OUT, json.dumps(dataclasses.asdict(left_out)).encode())
        done.append(left_out)
        log(f"round {number} left out {len(left_out.images):,} of {left_out.ranked:,} images")
    _write_list(rounds.out, JUNK, done)
    train(rounds.cleaned)
    return done


def _read(rounds: Rounds, number: int) -> Done | None:
    try:
        return Done(**read_document(open_storage(rounds.place(number)), LEFT_OUT))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        place = f"{rounds.place(number)}/{LEFT_OUT}"
        raise UserError(f"{place}: damaged ({error!r:.200}) - delete it, the round's audit is made again") from None


def _write_list(place: str, name: str, done: list[Done]) -> None:
    """What all rounds so far left out, as --exclude takes it; nothing before the first."""
    if not done:
        return
    lines = [f"# {sum(len(each.images) for each in done)} training images, left out round by round, the worst first"]
    for each in done:
        lines += [f"{written_key(image['key'])}  # round {each.number}, p {image['p']:.2g}" for image in each.images]
    write_bytes(open_storage(place), name, ("\n".join(lines) + "\n").encode())
