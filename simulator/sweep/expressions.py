"""Expressions over the keys of a scenario: read by Python's grammar, evaluated by rules of our own."""

from __future__ import annotations

import ast
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from simulator.errors import UnitError
from simulator.units import dimensions, parse

MAX_LENGTH: Final = 500
MAX_DEPTH: Final = 40

Lookup = Callable[[str], object]
"""Gives the value of a key: a number (quantities in SI units), text, true, false or None."""

_ARITHMETIC: Final[Mapping[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: Final[Mapping[type[ast.cmpop], Callable[[Any, Any], bool]]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ORDERED: Final = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


class ExpressionError(ValueError):
    """An expression that cannot be read, or has no value for some point; the message says why."""


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression and the keys that it speaks of.

    Attributes:
        text: As written.
        names: Keys, each once, in the order in which they first occur.
    """

    text: str
    names: tuple[str, ...]
    _tree: ast.expr

    def compared(self) -> Iterator[tuple[str, str]]:
        """Each key that is compared with quoted text, and that text."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                for key, other in itertools.chain(itertools.pairwise(sides), itertools.pairwise(sides[::-1])):
                    quoted = other.value if isinstance(other, ast.Constant) else None
                    if isinstance(key, (ast.Name, ast.Attribute)) and isinstance(quoted, str):
                        yield _dotted(key), quoted

    def value(self, lookup: Lookup) -> Any:
        """What it comes to.

        Raises:
            ExpressionError: A division by zero, text where a number is needed, or the like.
        """
        return _value(self._tree, lookup)


def read_expression(text: str) -> Expression:
    """Reads numbers, keys, quoted text, + - * / // %, comparisons, and, or, not, and parentheses.

    Quoted text that is a quantity (``"2 TB/s"``) is its value in SI units.

    Raises:
        ExpressionError: Anything else.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"an expression of {len(text):,} characters; at most {MAX_LENGTH}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ExpressionError(f'"{text[:60]}" is no expression, such as "8 * num_gpus <= 4096"') from None
    names: list[str] = []
    _check(tree, names, 0)
    return Expression(text.strip(), tuple(dict.fromkeys(names)), tree)


def _check(node: ast.expr, names: list[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ExpressionError(f"parentheses or operators more than {MAX_DEPTH} deep")
    if isinstance(node, (ast.Name, ast.Attribute)):
        names.append(_dotted(node))
        return
    if isinstance(node, ast.Constant):
        if type(node.value) not in (int, float, bool, str):
            raise ExpressionError(f"{ast.unparse(node)[:40]} is no number, key or text")
        return
    for inner in _operands(node):
        _check(inner, names, depth + 1)


def _operands(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        return [node.left, node.right]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd, ast.Not)):
        return [node.operand]
    if isinstance(node, ast.BoolOp):
        return node.values
    if isinstance(node, ast.Compare) and all(type(op) in _COMPARISONS for op in node.ops):
        return [node.left, *node.comparators]
    allowed = "numbers, keys, quoted text, + - * / // %, comparisons, and, or, not"
    raise ExpressionError(f'"{ast.unparse(node)[:40]}" is not allowed; an expression has {allowed}')


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    raise ExpressionError(f'"{ast.unparse(node)[:40]}" is no key, such as training.global_batch_size')


def _value(node: ast.expr, lookup: Lookup) -> Any:
    if isinstance(node, (ast.Name, ast.Attribute)):
        return lookup(_dotted(node))
    if isinstance(node, ast.Constant):
        return _constant(node.value)
    if isinstance(node, ast.UnaryOp):
        inner = _value(node.operand, lookup)
        if isinstance(node.op, ast.Not):
            return not inner
        return -_number(inner, node) if isinstance(node.op, ast.USub) else _number(inner, node)
    if isinstance(node, ast.BoolOp):
        return _choice(node, lookup)
    if isinstance(node, ast.Compare):
        return _compared(node, lookup)
    assert isinstance(node, ast.BinOp)
    left, right = _number(_value(node.left, lookup), node), _number(_value(node.right, lookup), node)
    try:
        result = _ARITHMETIC[type(node.op)](left, right)
    except ZeroDivisionError:
        raise ExpressionError(f'"{ast.unparse(node)[:60]}" divides by zero') from None
    except OverflowError:
        raise ExpressionError(f'"{ast.unparse(node)[:60]}" is too large') from None
    if not math.isfinite(result) or abs(result) > 1e300:
        raise ExpressionError(f'"{ast.unparse(node)[:60]}" is too large')
    return result


def _choice(node: ast.BoolOp, lookup: Lookup) -> bool:
    wanted = isinstance(node.op, ast.Or)
    return (
        any(_value(v, lookup) for v in node.values) if wanted else all(_value(v, lookup) for v in node.values)
    )


def _compared(node: ast.Compare, lookup: Lookup) -> bool:
    left = _value(node.left, lookup)
    for op, right_node in zip(node.ops, node.comparators, strict=True):
        right = _value(right_node, lookup)
        if isinstance(op, _ORDERED):
            _number(left, node), _number(right, node)
        if not _COMPARISONS[type(op)](left, right):
            return False
        left = right
    return True


def _number(value: object, node: ast.expr) -> float:
    if isinstance(value, (int, float)):
        return value
    raise ExpressionError(f'"{ast.unparse(node)[:60]}" needs a number, not {value!r}'[:160])


def _constant(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    for dimension in dimensions():
        try:
            return parse(value, dimension, allow_zero=True)
        except UnitError:
            continue
    return value
