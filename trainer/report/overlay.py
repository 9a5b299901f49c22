"""Heat maps that a person can read: laid over the image, in colours that differ in brightness too."""

from __future__ import annotations

import matplotlib
import numpy as np

from trainer.scoring.detector import Detector
from trainer.scoring.ensemble import Ensemble
from trainer.scoring.heat import strength

MAX_COVER = 0.85
"""How much of the image the fullest colour covers."""
COLOURS = matplotlib.colormaps["inferno"]


def overlaid(images: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Images in grey with what is unusual in colour: uint8 N x H x W x C, float N x H x W -> uint8 N x H x W x 3."""
    grey = images.mean(axis=3, keepdims=True)
    shares = strength(heat)
    colours = COLOURS(0.4 + 0.55 * shares)[..., :3] * 255  # from purple to yellow, on any grey
    cover = (shares > 0)[..., None] * (0.35 + (MAX_COVER - 0.35) * shares[..., None])
    return np.rint(grey * (1 - cover) + colours * cover).astype(np.uint8)


def beside_match(detector: Detector | Ensemble, images: np.ndarray, maps: np.ndarray | None) -> list[np.ndarray]:
    """Query, closest match and map side by side, uint8 H x 3 W x 3 each.

    maps: uint8 N x H x W x 3 as of `overlaid`; without them |w(Q) - w(R)| in colour, 0 dark and 1 bright.
    """
    side = images.shape[1]
    matches = detector.matches(images)
    if maps is None:
        maps = (matplotlib.colormaps["magma"](detector.heat(images))[..., :3] * 255).astype(np.uint8)
    times = [side // matches.shape[1], side // maps.shape[1]]
    wide = [each.repeat(n, axis=1).repeat(n, axis=2) for each, n in zip((matches, maps), times)]
    rows = zip(images, *wide)
    return [np.concatenate([np.broadcast_to(x, (side, side, 3)) for x in row], axis=1) for row in rows]
