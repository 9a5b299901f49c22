"""A detector to carry away: one folder that scores without Ray, without this package, without training data."""

from typing import Literal

Format = Literal["torch", "onnx"]
