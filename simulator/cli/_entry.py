"""The way in and the ways out: streams, signals, and the one place that turns errors into exit codes."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from threading import Event
from types import FrameType

import typer

from simulator.cli._commands import app
from simulator.errors import (
    EXIT_BUG,
    EXIT_DONE,
    EXIT_ENVIRONMENT,
    EXIT_INTERRUPTED,
    EXIT_USER,
    ClustersimError,
)

PROGRAM = "clustersim"

_OBJECTS_BETWEEN_SEARCHES = 100_000

# typer takes these two from click (its own copy or the library, by version) and does not export them.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_ClickError: type[Exception] = _UsageError.__mro__[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What follows the program's name; those of the process if not given.

    Returns:
        The exit code (the table in `simulator.errors`). Nothing escapes but `SystemExit`.
    """
    _prepare_streams()
    # Nearly all that a command makes it keeps; to search it for cycles at every few hundred objects takes a
    # tenth of a short command's time.
    gc.set_threshold(_OBJECTS_BETWEEN_SEARCHES, 20, 50)
    listed = list(sys.argv[1:] if arguments is None else arguments)
    with _signals_interrupt() as interrupted:
        code = guarded(lambda: _dispatch(listed), interrupted=interrupted)
        return guarded(_flush, code, interrupted=interrupted)


def guarded(action: Callable[[], int], success: int = EXIT_DONE, *, interrupted: Event | None = None) -> int:
    """What `action` returns, or the exit code of what it raises, which is told on stderr.

    Args:
        action: Something that returns 0 when all is well.
        success: What to return in that case.
        interrupted: Set once a signal has interrupted. Compiled libraries that are being imported turn an
            interruption into errors of their own, which are then no bugs.
    """
    try:
        return action() or success
    except ClustersimError as error:
        return _tell(str(error) or type(error).__name__, error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _tell(f"{PROGRAM}: interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output left (`| head`); the interpreter's last flush must not complain either.
        _silence(sys.stdout)
        return success
    except MemoryError:
        return _tell(f"{PROGRAM}: out of memory", EXIT_ENVIRONMENT)
    except _ClickError as error:
        return _tell(f"{PROGRAM}: {_usage(error)}", EXIT_USER)
    except OSError as error:
        _silence_if_full(error)
        return _tell(f"{PROGRAM}: {_environment(error)}", EXIT_ENVIRONMENT)
    except Exception:  # noqa: BLE001 - the last resort, which tells all it knows
        if interrupted is not None and interrupted.is_set():
            return _tell(f"{PROGRAM}: interrupted", EXIT_INTERRUPTED)
        return _bug()


def _dispatch(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    # Not `command.main`: it turns a broken pipe into exit code 1 and prints usage over several lines.
    try:
        with command.make_context(PROGRAM, arguments) as context:
            outcome = command.invoke(context)
    except typer.Exit as leaving:
        return int(leaving.exit_code)
    return outcome if isinstance(outcome, int) else EXIT_DONE


def _usage(error: Exception) -> str:
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", PROGRAM)
    return f"{' '.join(message.split())} (see {path} --help)"


def _environment(error: OSError) -> str:
    words = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {words}" if error.filename is not None else words


def _bug() -> int:
    import traceback

    with contextlib.suppress(OSError, ValueError):
        traceback.print_exc()
        print(  # noqa: T201
            f"{PROGRAM}: this is a bug in clustersim; please report it with the lines above and the scenario",
            file=sys.stderr,
        )
    return EXIT_BUG


def _tell(text: str, code: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201
    return code


def _flush() -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    return EXIT_DONE


def _prepare_streams() -> None:
    """A closed stream swallows; a terminal that lacks a character shows its escape instead of failing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Held until the process ends, as the stream that it stands for would be.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _silence(stream: object) -> None:
    """Let what is still buffered for a reader that left go nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[attr-defined]
        os.close(nowhere)


def _silence_if_full(error: OSError) -> None:
    """A full stdout would fail once more when the interpreter flushes it at exit."""
    if error.filename is None:
        _silence(sys.stdout)


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[Event]:
    """SIGTERM and SIGHUP end a command as Ctrl-C does: whatever is half done is cleaned up on the way out.

    The event that it gives is set as soon as one of them, or Ctrl-C, has come.
    """
    interrupted = Event()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    replaced: dict[signal.Signals, object] = {}
    defaults = (signal.SIG_DFL, signal.default_int_handler)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # Only the main thread may set handlers; an ignored signal (nohup) stays ignored.
        with contextlib.suppress(ValueError):
            if number is not None and signal.getsignal(number) in defaults:
                replaced[number] = signal.signal(number, interrupt)
    try:
        yield interrupted
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
