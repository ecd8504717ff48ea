"""A calibration as a file: complete under its name or not at all, and never over another one."""

from __future__ import annotations

import os
from pathlib import Path

from simulator.documents import write_yaml
from simulator.errors import ClustersimError
from simulator.specs import Calibration
from simulator.specs.calibration import EVIDENCE


def check_calibration_path(out: Path) -> None:
    """Refuse a destination before the work begins.

    Raises:
        ClustersimError: It exists, has no folder, or would not be read as a calibration.
    """
    if out.exists():
        raise ClustersimError(f"{out}: exists; a calibration is not overwritten: name another file")
    if not out.parent.is_dir():
        raise ClustersimError(f"{out}: no such folder as {out.parent}")
    if out.suffix != ".yaml" or out.stem.endswith(EVIDENCE):
        raise ClustersimError(f"{out}: a file name that ends in .yaml is wanted")


def write_calibration(calibration: Calibration, out: Path) -> None:
    """Write the file; the evidence has a file of its own."""
    check_calibration_path(out)
    data = calibration.model_dump(mode="json", exclude={"evidence"}, exclude_none=True)
    for entry in data["constants"].values():
        if not entry["command"]:
            del entry["command"]
    aside = out.with_name(f".{out.name[:100]}.{os.getpid()}.part")
    try:
        aside.write_text(write_yaml(data), encoding="utf-8")
        # A link, unlike a rename, fails where another process was quicker.
        os.link(aside, out)
    except FileExistsError:
        raise ClustersimError(f"{out}: exists; a calibration is not overwritten: name another file") from None
    finally:
        aside.unlink(missing_ok=True)
