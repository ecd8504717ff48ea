"""What the fields of the specs mean: the docstrings below them, read from the source when they are asked for.

pydantic can do the same while it makes each class, at the price of a tenth of a second for every command.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache

from pydantic import BaseModel


@cache
def meanings(spec: type[BaseModel]) -> dict[str, str]:
    """The docstring of every field that has one, those of the classes above included."""
    found: dict[str, str] = {}
    for owner in reversed(spec.__mro__):
        found |= _written(owner.__module__).get(owner.__name__, {}) if issubclass(owner, BaseModel) else {}
    return {name: found[name] for name in spec.model_fields if name in found}


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
