"""e: how much of an image an autoencoder does not reconstruct."""

from __future__ import annotations

from trainer.methods.ae.step import squared_errors
from trainer.scoring.terms.base import Term

SQUARED_ERROR = Term(
    "e",
    "squared error: the sum over all pixels of (image - reconstruction)^2",
    lambda response: squared_errors(response.queries, response.matches),
    needs=("reconstruct",),
    has_say=False,  # it grows with contrast: on textures it has an AUC of .13, where L_n has .53
)
