# SPDX-License-Identifier: GPL-3.0-or-later
"""Recorded observations as dataclasses again: what ``dataclasses.asdict`` and JSON made of them.

What a recording leaves out has the value that the dataclass gives it by itself.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any


def build(kind: Any, value: Any) -> Any:
    """``value`` (JSON) as the type ``kind`` says: dataclasses, lists, tuples, mappings, optional values."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if value is None:
        return None
    if origin in (typing.Union, types.UnionType):
        return build(next(one for one in arguments if one is not type(None)), value)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        names = [one.name for one in dataclasses.fields(kind) if one.name in value]
        return kind(**{name: build(hints[name], value[name]) for name in names})
    if origin is tuple:
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(build(one, item) for one, item in zip(inner, value, strict=True))
    if origin is list:
        return [build(arguments[0], item) for item in value]
    if origin is dict or (origin is not None and issubclass(origin, typing.Mapping)):
        return {key: build(arguments[1], item) for key, item in value.items()}
    return value
