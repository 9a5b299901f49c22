"""The audit's page: contact sheets, the worst first; what lies behind a score shows under the pointer or at a click."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from PIL import Image

from trainer.report.overlay import overlaid
from trainer.scoring.judge import Judge
from trainer.scoring.p_values import p_values
from trainer.scoring.terms import TERMS
from trainer.scoring.thresholds import Threshold

if TYPE_CHECKING:
    from trainer.scoring.audit import Ranking

LEAST_SIDE = 96
"""Pixels on the page, at least, of an image's side."""


def write_page(path: Path, ranking: Ranking, judge: Judge, limit: Threshold) -> None:
    """One HTML file with all pictures in it."""
    worst = ranking.worst
    heat = overlaid(worst, judge.heat(worst))
    known = judge.calibration.terms
    parts = {name: p_values(ranking.judged.terms[name][: len(worst)], known[name]) for name in TERMS}
    items = []
    for i, (image, over) in enumerate(zip(worst, heat)):
        origin: dict[str, Any] = json.loads(ranking.origins[i])
        surprise = {name: float(-np.log10(column[i])) for name, column in parts.items()}
        items.append(
            {
                "rank": i + 1,
                "image": _embedded(image),
                "heat": _embedded(over),
                "score": float(ranking.judged.score[i]),
                "p": float(ranking.judged.p_value[i]),
                "excluded": bool(ranking.judged.score[i] > limit.value),
                "key": origin.pop("key"),
                "origin": ", ".join(f"{name} {value}" for name, value in origin.items() if value not in ("", None)),
                "parts": [
                    {"name": name, "p": 10**-s, "width": 100 * s / np.log10(len(judge.known) + 1)}
                    for name, s in surprise.items()
                ],
            }
        )
    template = jinja2.Environment(autoescape=True).from_string((Path(__file__).parent / "audit.html").read_text())
    side = worst.shape[1] * -(-LEAST_SIDE // worst.shape[1])
    page = template.render(items=items, count=len(ranking.origins), limit=limit, by=judge.by, side=side, terms=TERMS)
    path.write_text(page)


def _embedded(image: np.ndarray) -> str:
    """uint8 H x W x C (C 1 or 3) as a data URL."""
    file = io.BytesIO()
    Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
