"""What follows from one spec, worked out once for it: specs hold dicts, so they are told apart as objects."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, Final, ParamSpec, TypeVar

_S = TypeVar("_S")
_P = ParamSpec("_P")
_T = TypeVar("_T")

MOST: Final = 64
"""Results of one function that are kept at most."""


def by_identity(function: Callable[Concatenate[_S, _P], _T]) -> Callable[Concatenate[_S, _P], _T]:
    """Remembers what a function returns for the same object, which must not change, and equal further values.

    The object is kept beside the result, so no other one can take its identity meanwhile.
    """
    known: dict[tuple[object, ...], tuple[_S, _T]] = {}

    @wraps(function)
    def remembering(spec: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        key = (id(spec), *args, *kwargs.items())
        found = known.get(key)
        if found is None:
            if len(known) >= MOST:
                known.clear()
            found = known[key] = spec, function(spec, *args, **kwargs)
        return found[1]

    return remembering
