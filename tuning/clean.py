"""Rounds: train, audit, leave the worst out, train again; until a training on what is left (as Xia et al. 2015 do it).

All that a round has done is in files under the result's URL, so that the same command goes on after any end of it. A
round is over when its list is there, which is written last.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from data_tools.dataset.exclusion import written_key
from data_tools.errors import UserError
from data_tools.storage import open_storage, read_document, write_bytes
from trainer.commands.train import train
from trainer.config import TrainConfig
from trainer.presets import preset
from trainer.report.audit_page import embedded
from tuning.begun import OPERATIONAL, begin_or_go_on
from tuning.options import parse, with_option

PLAN, LEFT_OUT, JUNK = "clean.json", "left_out.json", "junk.txt"
SHOWN = 120
"""Images of a round on the page, the worst ones."""


@dataclass(frozen=True)
class Rounds:
    """What is trained, how often, and what each round leaves out.

    settings: further options of the training, NAME=VALUE each. drop: the share of its images that a round leaves out.
    """

    data: str
    out: str
    preset: str
    method: str
    rounds: int
    drop: float
    by: str
    gamma: float
    seed: int
    settings: tuple[str, ...]
    workers: str
    cache: str
    cache_limit: str

    def checked(self) -> Rounds:
        """Return self, or raise a UserError that names the first option out of range."""
        if not self.data:
            raise UserError("--data is missing - give the URL that data_tools wrote a dataset to")
        if not self.out:
            raise UserError("--out is missing - give a folder for the result")
        if self.rounds < 1:
            raise UserError(f"--rounds {self.rounds} is below 1 - give e.g. 3")
        if not 0 < self.drop < 1:
            raise UserError(f"--drop {self.drop} is no share - give the share of images that each round leaves out")
        self.training(1).validated()
        return self

    def place(self, number: int) -> str:
        return f"{self.out}/round-{number}"

    def training(self, number: int) -> TrainConfig:
        """That of a round, from 1 on; the one behind the last round is the cleaned one."""
        last = number > self.rounds
        config = dataclasses.replace(
            preset(self.preset),
            data=self.data,
            out=f"{self.out}/cleaned" if last else f"{self.place(number)}/run",
            method=self.method,
            gamma=self.gamma,
            seed=self.seed,
            workers=self.workers,
            cache=self.cache,
            cache_limit=self.cache_limit,
            exclude=f"{self.out}/{JUNK}" if last else f"{self.place(number)}/exclude.txt" if number > 1 else "",
        )
        for text in self.settings:
            choice = parse(text, config)
            if len(choice.values) != 1:
                raise UserError(f"--set {text} is no single value - give NAME=VALUE")
            config = with_option(config, choice.name, choice.values[0])
        return config


@dataclass(frozen=True)
class Done:
    """A round that is over: what it left out, the worst first, and of how many images."""

    number: int
    ranked: int
    images: list[dict[str, Any]]  # key, pool, score, p and, of the first ones, the picture as a data URL


def run_rounds(rounds: Rounds) -> list[Done]:
    """All rounds that are not over, then the cleaned training; UserError for what the user can mend."""
    options = {name: value for name, value in dataclasses.asdict(rounds).items() if name not in OPERATIONAL}
    begin_or_go_on(rounds.out, PLAN, options, "rounds")
    done: list[Done] = []
    for number in range(1, rounds.rounds + 1):
        found = _read(rounds, number)
        if found is None:
            print(f"round {number} of {rounds.rounds}", flush=True)
            _write_list(rounds.place(number), "exclude.txt", done)
            train(rounds.training(number))
            found = _audited(rounds, number)
            write_bytes(open_storage(rounds.place(number)), LEFT_OUT, json.dumps(dataclasses.asdict(found)).encode())
        done.append(found)
        print(f"round {number} left out {len(found.images):,} of {found.ranked:,} images", flush=True)
    _write_list(rounds.out, JUNK, done)
    train(rounds.training(rounds.rounds + 1))
    return done


def _read(rounds: Rounds, number: int) -> Done | None:
    try:
        return Done(**read_document(open_storage(rounds.place(number)), LEFT_OUT))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        place = f"{rounds.place(number)}/{LEFT_OUT}"
        raise UserError(f"{place}: damaged ({error!r:.200}) - delete it, the round's audit is made anew") from None


def _audited(rounds: Rounds, number: int) -> Done:
    """What the round's detector finds the worst of the images that it was trained on."""
    from data_tools.dataset.cache import open_cache
    from trainer.scoring.audit import ranked
    from trainer.scoring.criterion import Criterion
    from trainer.scoring.loading import load_detector

    run = rounds.training(number).out
    criterion = Criterion(rounds.by, contamination=rounds.drop)
    detector = load_detector(run, criterion, False, rounds.cache, rounds.cache_limit)
    ranking = ranked(run, detector, open_cache(rounds.cache, rounds.cache_limit), SHOWN)
    count, scored, images = max(int(rounds.drop * len(ranking.origins)), 1), ranking.scored, []
    assert scored.p_value is not None
    for i, line in enumerate(ranking.origins[:count]):
        origin = json.loads(line)
        image = {"key": origin["key"], "pool": origin.get("pool", ""), "score": float(scored.score[i])}
        picture = {"picture": embedded(ranking.worst[i])} if i < len(ranking.worst) else {}
        images.append(image | {"p": float(scored.p_value[i])} | picture)
    return Done(number, len(ranking.origins), images)


def _write_list(place: str, name: str, done: list[Done]) -> None:
    """What all rounds so far left out, as --exclude takes it; nothing before the first."""
    if not done:
        return
    lines = [f"# {sum(len(each.images) for each in done)} training images, left out round by round, the worst first"]
    for each in done:
        lines += [f"{written_key(image['key'])}  # round {each.number}, p {image['p']:.2g}" for image in each.images]
    write_bytes(open_storage(place), name, ("\n".join(lines) + "\n").encode())
