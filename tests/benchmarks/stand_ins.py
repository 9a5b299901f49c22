"""Stand-ins for packages that a training step does not use: it can be measured where only torch is installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ClassVar

UNUSED = (
    "PIL",
    "botocore",
    "boto3",
    "filelock",
    "imagecodecs",
    "jinja2",
    "matplotlib",
    "pandas",
    "platformdirs",
    "rich",
    "safetensors",
    "scipy",
    "sklearn",
    "tensorboard",
    "tifffile",
    "tyro",
)
"""What pyproject.toml names besides torch and numpy, as far as modules of the steps import it."""


class _Anything:
    """May be called, subscripted and asked for attributes while modules are imported; is never computed with."""

    def __call__(self, *args: Any, **options: Any) -> _Anything:
        return self

    def __getitem__(self, key: Any) -> Any:
        return key

    def __getattr__(self, name: str) -> _Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()


class _StandIn(ModuleType):
    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Exception,), {}) if name.endswith("Error") else _Anything()


class _Finder(MetaPathFinder, Loader):
    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in self.names else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""


def stand_in_for_missing() -> list[str]:
    """From here on, importing one of `UNUSED` that is not installed gives a stand-in; returns their names."""
    missing = [name for name in UNUSED if importlib.util.find_spec(name) is None]
    sys.meta_path.append(_Finder(missing))
    return missing
