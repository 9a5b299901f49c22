"""What each round of a cleaning left out, as one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_tools.text import readable
from trainer.report.pages import rendered
from tuning.clean import Done, Rounds

SIDE = 96
"""Pixels on the page of an image's side."""
PLANTED = "train-anomaly"
"""The pool of anomalies that a dataset knows."""


def planted_among(done: Done) -> int:
    """How many of the images that a round left out are known anomalies."""
    return sum(image["pool"] == PLANTED for image in done.images)


def rounds_page(method: str, rounds: Rounds, done: Sequence[Done], planted: int) -> str:
    """HTML with all pictures in it. planted: known anomalies among the training images; 0 where none are known."""
    sheets = [
        {
            "number": each.number,
            "ranked": each.ranked,
            "count": len(each.images),
            "planted": planted_among(each),
            "sheet": [image | {"key": readable(image["key"])} for image in each.images if "picture" in image],
        }
        for each in done
    ]
    return rendered(
        Path(__file__).parent / "rounds.html",
        rounds=sheets,
        total=sum(len(each.images) for each in done),
        images=done[0].ranked,
        method=method,
        drop=rounds.drop,
        by=rounds.by,
        planted=planted,
        side=SIDE,
    )
