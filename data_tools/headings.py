"""Options under headings: a flat dataclass of many options, shown by --help in groups.

tyro shows the fields of a nested dataclass as a group. A configuration that is stored as flat JSON stays flat, so the
nested dataclasses are made here from a table, for the command line alone, and turned back into the flat one.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

UNSET = tyro.conf.arg(help_behavior_hint="")
"""For an option whose empty default means no more than that it was not given."""


@dataclass(frozen=True)
class Heading:
    """A group of options: its name, a sentence about it, and the fields. Fields that are groups of their own follow."""

    name: str
    line: str
    fields: tuple[str, ...]


def with_headings(
    default: Any, headings: Sequence[Heading], marks: Mapping[str, Any] | None = None, hidden: Collection[str] = ()
) -> type:
    """A dataclass with the fields and defaults of `default`, nested by headings; its `flat` gives the flat one back.

    Fields under no heading come first. marks: a field's `tyro.conf.arg`, which goes before what its class says. hidden:
    fields that are read, but not shown by --help.
    """
    kind = type(default)
    hints = typing.get_type_hints(kind, include_extras=True)
    for name, text in docstrings(kind).items():
        hints[name] = Annotated[hints[name], tyro.conf.arg(help=text)]
    for name, mark in (marks or {}).items():
        hints[name] = Annotated[hints[name], mark]
    for name in set(hidden) & set(hints):
        hints[name] = tyro.conf.Suppress[hints[name]]
    headed = {name for heading in headings for name in heading.fields}
    left = [f.name for f in dataclasses.fields(kind) if f.name not in headed]
    members: list[tuple[str, Any, Any]] = [_option(name, hints, default) for name in left]
    place: dict[str, str] = {}
    for heading in headings:
        plain = [name for name in heading.fields if not _is_group(getattr(default, name))]
        place |= dict.fromkeys(plain, heading.name)
        group = dataclasses.make_dataclass(heading.name, [_option(name, hints, default) for name in plain])
        group.__doc__ = heading.line
        members.append((heading.name, tyro.conf.OmitArgPrefixes[group], field(default_factory=group)))
        members += [_option(name, hints, default) for name in heading.fields if name not in plain]

    def flat(self: Any) -> Any:
        holder = {name: getattr(self, group) for name, group in place.items()}
        return kind(**{f.name: getattr(holder.get(f.name, self), f.name) for f in dataclasses.fields(kind)})

    return dataclasses.make_dataclass(kind.__name__, members, namespace={"flat": flat, "__doc__": kind.__doc__})


def configured(
    command: type, default: Any, headings: Sequence[Heading], marks: Mapping[str, Any], hidden: Collection[str] = ()
) -> type:
    """`command`, whose field `config` is such a flat dataclass, with its options under headings; for tyro to read."""
    config = with_headings(default, headings, marks, hidden)

    def call(self: Any) -> None:
        command(**{**vars(self), "config": self.config.flat()})()

    return dataclasses.make_dataclass(
        command.__name__,
        [("config", Annotated[config, tyro.conf.arg(name="")], field(default_factory=config))],
        bases=(command,),
        namespace={"__call__": call, "__doc__": command.__doc__},
        frozen=True,
    )


def docstrings(kind: type) -> dict[str, str]:
    """What stands below each field of a dataclass, on one line."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    result = {}
    for line, below in zip(tree.body, tree.body[1:]):
        match line, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                result[name] = " ".join(text.split())
    return result


def _is_group(value: Any) -> bool:
    """Whether tyro shows a field with this value as a group of its own."""
    return dataclasses.is_dataclass(value) or isinstance(value, dict)


def _option(name: str, hints: Mapping[str, Any], default: Any) -> tuple[str, Any, Any]:
    value, kind = getattr(default, name), hints[name]
    if value in ("", None, ()) and not _has_hint(kind):
        kind = Annotated[kind, UNSET]
    return name, kind, field(default_factory=lambda: value)


def _has_hint(kind: Any) -> bool:
    return any(getattr(mark, "help_behavior_hint", None) is not None for mark in getattr(kind, "__metadata__", ()))
