"""Reads the values of a config one by one and gathers what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from simulator.errors import ClustersimError

_MOST: Final = 10**9

MOST_LAYERS: Final = 10_000
"""Layers of a stack; more are a slip."""

ACTIVATIONS: Final = {
    "gelu": "gelu",
    "gelu_10": "gelu",
    "gelu_fast": "gelu",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "quick_gelu": "gelu",
    "relu": "relu",
    "relu2": "squared_relu",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
"""The library's words for activation functions; those of one kind cost the same."""


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One mistake in a config.

    Attributes:
        path: Keys that lead to the value, such as ``("text_config", "vocab_size")``.
        message: What is wrong, in one line.
    """

    path: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        return f"{'.'.join(self.path)}: {self.message}"


class ConfigError(ClustersimError, ValueError):
    """A config that cannot be read as a transformer, every mistake at once."""

    def __init__(self, problems: Iterable[ConfigProblem]) -> None:
        self.problems: Sequence[ConfigProblem] = tuple(dict.fromkeys(problems))
        super().__init__("; ".join(map(str, self.problems)))


class Reader:
    """Values of a config under any of the names that they go by; null is as good as missing."""

    def __init__(self, config: Mapping[str, object], prefix: tuple[str, ...]) -> None:
        self._config = config
        self._prefix = prefix
        self.defaults: Mapping[str, object] = {}
        self.problems: list[ConfigProblem] = []
        self.warnings: list[tuple[str, str]] = []

    def get(self, *names: str) -> object:
        """The first of these that is there and not null."""
        for source in (self._config, self.defaults):
            for name in names:
                if source.get(name) is not None:
                    return source[name]
        return None

    def written(self, *names: str) -> str:
        """The name among these that the config uses; the first if it uses none."""
        return next((name for name in names if name in self._config), names[0])

    def count(self, *names: str, default: int | None = None, least: int = 1, most: int = _MOST) -> int | None:
        """A whole number; None, and the mistake noted, if it is missing without a default or no number."""
        value = self.get(*names)
        key = self.written(*names)
        if value is None:
            if default is None:
                self.problem(key, "missing")
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.problem(key, f"{self.shown(value)} is not a whole number")
            return None
        if not least <= value <= most:
            self.problem(key, f"{self.shown(value)} is out of range; {least} to {most:,}")
            return None
        return value

    def number(self, key: str) -> int:
        """A whole number that only matters if it is one; 0 if not."""
        value = self.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else 0

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problem(key, f"{self.shown(value)} is neither true nor false")
            return default
        return value

    def text(self, *names: str, default: str) -> str:
        """A word."""
        value = self.get(*names)
        if value is None:
            return default
        if not isinstance(value, str):
            self.problem(self.written(*names), f"{self.shown(value)} is not a text")
            return default
        return value[:60]

    def activation(self, *names: str, default: str) -> str | None:
        """An activation function; None, and the mistake noted, if it is not known."""
        name = self.text(*names, default=default)
        if name not in ACTIVATIONS:
            self.problem(self.written(*names), f'"{name}" is not known; known are {", ".join(ACTIVATIONS)}')
        return ACTIVATIONS.get(name)

    def problem(self, key: str, message: str) -> None:
        """Note a mistake at a key."""
        self.problems.append(ConfigProblem((*self._prefix, key), message))

    def warn(self, key: str, message: str) -> None:
        """Note what is simulated otherwise than the config says."""
        self.warnings.append((key, message))

    @staticmethod
    def shown(value: object) -> str:
        """A value in a message: short, and plain where it is not a number."""
        if isinstance(value, float) and not math.isfinite(value):
            return "a number that is not finite"
        if isinstance(value, int) and not isinstance(value, bool):
            return f"{value:,}" if abs(value) < 10**18 else "a number of more than 18 digits"
        if isinstance(value, Mapping):
            return "a mapping"
        if isinstance(value, (list, tuple)):
            return "a list"
        text = f'the text "{value}"' if isinstance(value, str) else repr(value)
        return text if len(text) <= 60 else text[:56] + "..."
