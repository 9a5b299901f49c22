"""Pages of HTML from templates that share one look: `base.html`, light or dark, for a screen or a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2


def rendered(template: Path, **values: Any) -> str:
    """The page of a template, which extends `base.html`; text is escaped."""
    loader = jinja2.FileSystemLoader([template.parent, Path(__file__).parent])
    return jinja2.Environment(autoescape=True, loader=loader).get_template(template.name).render(**values)
