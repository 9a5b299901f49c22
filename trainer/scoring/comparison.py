"""Terms that compare with training images: what is kept of these, and all terms of images by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from data_tools.errors import UserError
from trainer.scoring.inference import Values
from trainer.scoring.terms.base import Compared, Term


def kept_of(terms: Sequence[Term], values: Values) -> dict[str, np.ndarray]:
    """What terms that compare with training images keep of them, by their `kept_as`; values: of these images."""
    return {term.kept_as: term.kept(values.rows[term.name]) for term in terms if isinstance(term, Compared)}


def compared(
    terms: Sequence[Term], values: Values, kept: Mapping[str, np.ndarray], own: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """All terms of N images, in their order, those that compare with training images included.

    own: int64 N, which of the images that something is kept of the image itself is; -1 where none is. UserError for
    rows of other networks.
    """
    try:
        return {
            term.name: term.distances(values.rows[term.name], kept[term.kept_as], own)
            if isinstance(term, Compared)
            else values[term.name]
            for term in terms
        }
    except RuntimeError as error:
        if not any(word in str(error) for word in ("size", "shape", "dimension", "dtype")):
            raise
        raise UserError("the run's calibration is of other networks - delete the folder calibration in it") from None
