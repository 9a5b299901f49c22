"""What a registry names is a file of its package."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from data_tools.errors import UserError


def listed_module(package: str, name: str) -> tuple[ModuleType, str]:
    """A module by its name in its package's list, and its file as one speaks of it; UserError where it has none."""
    full = f"{package}.{name}"
    place = full.replace(".", "/")
    if importlib.util.find_spec(full) is None:
        raise UserError(f"{place}.py: is not there - write it, or take {name} out of the list in {package}")
    module = importlib.import_module(full)
    return module, place + ("/__init__.py" if hasattr(module, "__path__") else ".py")
