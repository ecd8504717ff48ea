"""What the fields of the specs mean and consist of: docstrings below them, parts of their annotations.

Docstrings are read from the source when they are asked for; pydantic can do the same while it makes each
class, at the price of a tenth of a second for every command.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@cache
def meanings(spec: type[BaseModel]) -> dict[str, str]:
    """The docstring of every field that has one, those of the classes above included."""
    found: dict[str, str] = {}
    for owner in reversed(spec.__mro__):
        found |= _written(owner.__module__).get(owner.__name__, {}) if issubclass(owner, BaseModel) else {}
    return {name: found[name] for name in spec.model_fields if name in found}


def parts_of(field: FieldInfo) -> Iterator[Any]:
    """Constraints of a field, and all that its annotation is made of: types, options, quantities."""
    yield from field.metadata
    yield from _arguments(field.annotation)


def _arguments(annotation: object) -> Iterator[Any]:
    yield annotation
    for argument in (*get_args(annotation), *getattr(annotation, "__metadata__", ())):
        if get_args(argument):
            yield from _arguments(argument)
        else:
            yield argument


@cache
def _written(module: str) -> dict[str, dict[str, str]]:
    """Class -> field -> docstring of one module."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except OSError:  # installed without its source
        return {}
    return {
        owner.name: {
            field.target.id: inspect.cleandoc(text.value.value)
            for field, text in zip(owner.body, owner.body[1:], strict=False)
            if isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        }
        for owner in tree.body
        if isinstance(owner, ast.ClassDef)
    }
