"""Constants of whole steps come back from steps that were made with them, with and without one part."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from simulator.errors import ClustersimError
from simulator.specs import Calibration
from simulator.specs.evidence import Refit
from simulator.validation import TrainingRuns, fit_steps

FRACTION, OPERATOR = 0.8, 7e-5
ODD = 0.6
"""The matrix fraction of one source that is unlike the others."""


def rows(groups: tuple[str, ...]) -> list[dict[str, str]]:
    """Large models that products bind, and small ones that the launching thread does."""
    shapes = [(4096, 16, "1"), (8192, 8, "1"), (256, 64, "1"), (512, 32, "8")]
    return [
        {
            "id": f"{group}-{hidden}",
            "group": group,
            "num_hidden_layers": "4",
            "hidden_size": str(hidden),
            "num_attention_heads": "8",
            "vocab_size": "1024",
            "sequence_length": "1024",
            "micro_batch_size": "1",
            "global_batch_size": str(batch),
            "gpu": "H100-SXM-80GB" if group == "d" else "A100-SXM-80GB",
            "num_gpus": gpus,
        }
        for group in groups
        for hidden, batch, gpus in shapes
    ]


def write(
    folder: Path, groups: tuple[str, ...], *, odd: str = "", refits: tuple[Refit, ...] = ()
) -> Calibration:
    """A file of steps as the true constants have them, and a calibration that starts elsewhere."""
    shared = Calibration.load()
    true = shared.with_values(step_matrix_fraction=FRACTION, python_operator_time=OPERATOR)
    other = true.with_values(step_matrix_fraction=ODD)
    made = rows(groups)
    for row in made:
        predicted = TrainingRuns().predict(row, other if row["group"] == odd else true)
        row["measured_step_time_s"] = repr(predicted["predicted_step_time_s"])
    with (folder / "runs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(made[0]))
        writer.writeheader()
        writer.writerows(made)
    return Calibration(
        name="mine", description="", constants=shared.constants, range=shared.range, refits=list(refits)
    )


def test_constants_come_back(tmp_path: Path) -> None:
    base = write(tmp_path, ("a", "b", "c", "d"))
    found = fit_steps(tmp_path, base, command="it").constants
    # The prior around the round figures is weak, and it is there.
    assert found["step_matrix_fraction"].value == pytest.approx(FRACTION, rel=0.02)
    assert found["python_operator_time"].value == pytest.approx(OPERATOR, rel=0.05)
    assert (found["step_matrix_fraction"].basis, found["step_matrix_fraction"].command) == ("fitted", "it")
    assert "16 published training runs" in found["step_matrix_fraction"].fitted_to
    assert found["memory_fraction"] == base.constants["memory_fraction"]


def test_each_part_is_left_out(tmp_path: Path) -> None:
    """Without the source that is unlike the others the constant is the others'."""
    held = Refit(left_out="accelerator H100", values={"memory_fraction": 0.75})
    base = write(tmp_path, ("a", "b", "c", "d"), odd="d", refits=(held,))
    found = fit_steps(tmp_path, base, command="it", leave_one_out=True)
    refits = {refit.left_out: refit.values for refit in found.refits}
    # Without A100 one source is left, too few to fit to.
    assert set(refits) == {"accelerator H100", "runs a", "runs b", "runs c", "runs d"}
    assert refits["accelerator H100"]["memory_fraction"] == 0.75
    without = {label: values["step_matrix_fraction"] for label, values in refits.items()}
    assert without["runs d"] == pytest.approx(FRACTION, rel=0.02)
    # Slower memory there is made up for by faster products.
    assert without["accelerator H100"] == pytest.approx(FRACTION, rel=0.05)
    assert without["accelerator H100"] > FRACTION
    whole = found.constants["step_matrix_fraction"].value
    assert without["runs a"] < whole < without["runs d"]
    assert found.without("runs d").kernels.step_matrix_fraction == without["runs d"]


def test_one_source_is_too_few(tmp_path: Path) -> None:
    base = write(tmp_path, ("a",))
    with pytest.raises(ClustersimError, match="too few training runs: sources a; at least 4"):
        fit_steps(tmp_path, base, command="it")


def test_no_runs_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "gemm.csv").write_text("id,gpu,precision,kernels,m,n,k,time_us\n", encoding="utf-8")
    base = Calibration.load()
    assert fit_steps(tmp_path, base, command="it") is base
