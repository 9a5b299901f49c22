"""Tables as they lie in a run's or a report's folder."""

from __future__ import annotations

import csv
from pathlib import Path


def read_csv(path: Path) -> list[dict[str, str]]:
    """Its rows, by the names in its first."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
