"""Precisions that an accelerator of the cluster lacks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from simulator.scenario._findings import Findings, Path
from simulator.scenario._scenario import Scenario
from simulator.workload.precision import FORMATS, base_precision, matrix_precision

_NEAREST: Final = {
    "nvfp4": ("mxfp8", "fp8_block", "fp8_current", "fp8", "bf16", "fp16", "fp32"),
    "mxfp8": ("fp8_block", "fp8_current", "fp8", "bf16", "fp16", "fp32"),
    "fp8_block": ("fp8_current", "fp8", "bf16", "fp16", "fp32"),
    "fp8_current": ("fp8", "bf16", "fp16", "fp32"),
    "fp8": ("bf16", "fp16", "fp32"),
    "bf16": ("fp16", "fp32"),
    "fp16": ("bf16", "fp32"),
    "tf32": ("fp32", "bf16", "fp16"),
    "fp32": ("tf32", "bf16", "fp16"),
}
"""By precision, what comes next to it."""


def check_precisions(scenario: Scenario, findings: Findings) -> None:
    """Note precisions of the passes, of what is kept and of what is sent that an accelerator lacks."""
    for group in scenario.cluster.node_groups:
        name, has = group.accelerator.name, group.accelerator.peak_flops
        asked = [(("training", "precision"), scenario.training.precision), *_stored(scenario)]
        for path, precision in asked:
            computes = path[-1] == "precision"
            lack = _lack(precision, has, computes=computes)
            if not lack:
                continue
            near = next((o for o in _NEAREST[precision] if not _lack(o, has, computes=computes)), None)
            told = f"{name} {lack}; it has {', '.join(sorted(has))}"
            findings.add(path, f"{told}; the nearest is {near}" if near else told)
            if computes:
                return


def _lack(precision: str, has: Collection[str], *, computes: bool) -> str:
    """What the accelerator lacks for a precision; empty if it has all."""
    needed = [matrix_precision(precision), *([base_precision(precision)] if computes else [])]
    wanted = next((each for each in needed if each not in has), None)
    if wanted is not None and (computes or wanted != "fp32"):
        return f'has no figure for "{wanted}"' if computes else f'does not know "{wanted}"'
    if FORMATS[precision].block_units and "fp4" not in has:
        return f"has no matrix units that scale by blocks, as {precision} needs"
    return ""


def _stored(scenario: Scenario) -> Iterator[tuple[Path, str]]:
    """Precisions in which something is kept or sent, as far as they are given."""
    training = scenario.training
    for key in ("parameter_precision", "gradient_precision", "activation_input_precision"):
        if getattr(training, key) is not None:
            yield ("training", key), getattr(training, key)
    for key in ("communication_precision", "optimizer_precision"):
        for kind, precision in getattr(training, key):
            if precision is not None:
                yield ("training", key, kind), precision
