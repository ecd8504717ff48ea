"""The errors that clustersim raises on purpose, and the exit code of each.

| code | meaning |
|---|---|
| 0 | done; a model that does not fit is a result, not an error |
| 1 | a bug in clustersim: the only place for a traceback |
| 2 | the user's to fix: a scenario, a file or an argument |
| 3 | a sweep with failed points |
| 4 | the environment: disk full, no permission, out of memory |
| 130 | interrupted |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_USER = 2
EXIT_POINTS_FAILED = 3
EXIT_ENVIRONMENT = 4
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a document, where it stands and what would be right.

    Attributes:
        file: Path as the user gave it, or a label such as ``--set``.
        line: Line, counted from 1; 0 where there is none.
        column: Column, counted from 1; 0 where there is none.
        message: What is wrong, in one line.
    """

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        position = f":{self.line}:{self.column}" if self.line else ""
        return f"{self.file}{position}: {self.message}"


class ClustersimError(Exception):
    """Anything that clustersim reports in words instead of a traceback."""

    exit_code = EXIT_USER


class ScenarioError(ClustersimError):
    """Mistakes in what the user wrote, all of them at once, one line each."""

    def __init__(self, problems: Iterable[Problem] | Problem) -> None:
        listed = [problems] if isinstance(problems, Problem) else list(problems)
        self.problems: Sequence[Problem] = tuple(dict.fromkeys(listed))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConflictError(ScenarioError):
    """Blocks that are right by themselves but cannot be true together."""


class UnitError(ClustersimError, ValueError):
    """A quantity without a unit, with a foreign unit, or out of range."""


class PlanError(ClustersimError, ValueError):
    """A plan that cannot be laid out on the cluster, with the arithmetic.

    Attributes:
        path: Scenario key at fault, such as ``("parallelism", "tensor_parallel")``.
    """

    def __init__(self, path: Sequence[str | int], message: str) -> None:
        self.path = tuple(path)
        self.message = message
        super().__init__(f"{'.'.join(map(str, self.path))}: {message}")


class UnsupportedError(PlanError):
    """Something legal that clustersim does not model, refused and never approximated."""


class SimulationError(ClustersimError):
    """The simulated system cannot go on: it names the time, the activity and what it awaits."""


class DeadlockError(SimulationError):
    """Activities wait for one another for ever."""


class EnvironmentFailure(ClustersimError):
    """The machine under clustersim failed: disk, memory, permissions."""

    exit_code = EXIT_ENVIRONMENT
