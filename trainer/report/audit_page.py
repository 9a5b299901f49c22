"""The audit's page: contact sheets, the worst first; what lies behind a score shows under the pointer or at a click."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_tools.dataset.exclusion import written_key
from data_tools.text import readable
from trainer.report.overlay import overlaid
from trainer.report.pages import rendered
from trainer.scoring.audit import Ranking
from trainer.scoring.detector import Detector
from trainer.scoring.ensemble import Ensemble
from trainer.scoring.p_values import p_values

MIN_SIDE = 96
"""Pixels on the page, at least, of an image's side."""


def write_page(path: Path, ranking: Ranking, detector: Detector | Ensemble) -> None:
    """One HTML file with all pictures in it."""
    worst, scored = ranking.worst, ranking.scored
    assert scored.p_value is not None
    heat = overlaid(worst, detector.heat(worst)) if detector.reconstructs else None
    parts = {
        name: -np.log10(p_values(scored.terms[name][: len(worst)], known))
        for name, known in detector.known_terms.items()
    }
    full = 100 / np.log10(len(detector.known) + 1)
    items = []
    for i, image in enumerate(worst):
        origin: dict[str, Any] = json.loads(ranking.origins[i])
        key = origin.pop("key")
        surprise = {name: float(column[i]) for name, column in parts.items()}
        items.append(
            {
                "rank": i + 1,
                "image": embedded(image),
                "heat": None if heat is None else embedded(heat[i]),
                "score": float(scored.score[i]),
                "p": float(scored.p_value[i]),
                "excluded": bool(ranking.excluded[i]),
                "key": readable(key),
                "line": written_key(key),
                "origin": readable(", ".join(f"{name} {x}" for name, x in origin.items() if x not in ("", None))),
                "parts": [{"name": name, "p": 10**-s, "width": full * s} for name, s in surprise.items()],
            }
        )
    side = worst.shape[1] * -(-MIN_SIDE // worst.shape[1])
    terms = detector.meanings
    page = rendered(
        Path(__file__).parent / "audit.html",
        items=items,
        count=len(ranking.origins),
        junk=detector.junk.sentence(),
        limit=detector.limit,
        by=detector.criterion.by,
        side=side,
        terms=terms,
    )
    path.write_text(page, encoding="utf-8")


def embedded(image: np.ndarray) -> str:
    """uint8 H x W x C (C 1 or 3) as a data URL."""
    file = io.BytesIO()
    Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
