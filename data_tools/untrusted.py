"""What comes from outside, checked where it comes in: JSON of bounded size and depth, names, integers.

All of these raise ValueError with a reason; who reads the file names it.
"""

from __future__ import annotations

import json
import math
from typing import Any

JSON_BYTES = 2**28
"""A manifest of a million shards takes less."""
NAME_BYTES = 255


def parse_json(content: bytes | str, most: int = JSON_BYTES) -> Any:
    """A JSON document: at most `most` bytes, of finite numbers, no deeper than Python reads."""
    if len(content) > most:
        raise ValueError(f"more than {most:,} bytes of JSON")
    text = (content if isinstance(content, str) else content.decode("utf-8-sig")).strip(" \t\r\n")
    try:
        value, end = DECODER.raw_decode(text)
    except RecursionError:
        raise ValueError("JSON nested too deep") from None
    if end != len(text):
        raise ValueError("more than one value of JSON")
    return value


def _refused(word: str) -> float:
    raise ValueError(f"{word} is not a JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refused(digits[:40])


DECODER = json.JSONDecoder(parse_constant=_refused, parse_float=_finite)
"""Made once: a shard has thousands of small documents."""


def object_name(name: Any) -> str:
    """The name of an object beside others: one part of a path, nothing that leads elsewhere."""
    if not isinstance(name, str) or not name or len(name.encode(errors="surrogatepass")) > NAME_BYTES:
        raise ValueError("a name that is not text of 1 to 255 bytes")
    if name in (".", "..") or "/" in name or "\\" in name or not name.isprintable():
        raise ValueError(f"the name {name!r} leads elsewhere or cannot be printed")
    return name


def relative_name(name: Any) -> str:
    """A name of parts joined by /, each as of `object_name`."""
    if not isinstance(name, str):
        raise ValueError("a name that is not text")
    for part in name.split("/"):
        object_name(part)
    return name


def whole(value: Any, least: int, most: int, what: str) -> int:
    """An integer from `least` to `most`."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{what} is {value!r:.40}, not an integer from {least} to {most}")
    return value


def typed(default: Any, values: Any) -> dict[str, Any]:
    """An object of JSON as a dataclass's fields, each of the type that it has in `default`; no more and finite."""
    if type(values) is not dict:
        raise ValueError("no object")
    for name, value in values.items():
        kind = type(getattr(default, name, None))
        is_right = type(value) is kind or (kind is float and type(value) is int)
        if not is_right or (type(value) is int and abs(value) >= 2**63):
            raise ValueError(f"{name!r:.40} is {value!r:.40}")
    return values
