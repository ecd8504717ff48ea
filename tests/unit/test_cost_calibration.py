"""The calibration that ships, and what a malformed one is refused for."""

import subprocess
import sys
from dataclasses import fields

import pytest
from pydantic import ValidationError

from simulator.errors import ScenarioError
from simulator.specs import Calibration, CollectiveConstants, KernelConstants


def test_every_constant_says_what_it_means_and_where_it_comes_from():
    for name, constant in Calibration.load().constants.items():
        assert len(constant.meaning) > 15, name
        assert len(constant.fitted_to) > 10, name
        assert constant.unit in {"1", "s", "B", "B/s", "FLOP/s", "FLOP/cycle", "J/FLOP"}, name
        assert 0 < constant.uncertainty < 1, name


def test_fractions_lie_between_zero_and_one():
    constants = Calibration.load().constants
    assert all(0 < c.value <= 1 for name, c in constants.items() if name.endswith("_fraction"))


def test_the_constants_are_few():
    assert len(fields(KernelConstants)) <= 25
    assert len(fields(CollectiveConstants)) <= 21


def test_the_catalogue_is_read_once_and_not_at_import():
    assert Calibration.load() is Calibration.load("shared")
    code = "import sys, simulator.cost; sys.exit('ruamel.yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_calibration_is_refused_with_the_names_that_there_are():
    with pytest.raises(ScenarioError, match="no such calibration; there are: shared"):
        Calibration.load("mine")


def test_missing_foreign_and_negative_constants_are_told_together():
    shared = Calibration.load()
    constants = dict(shared.constants)
    constants["memory_fractoin"] = constants.pop("memory_fraction")
    constants["channels"] = constants["channels"].model_copy(update={"value": -1.0})
    with pytest.raises(ValidationError) as error:
        Calibration(name="x", description="x", constants=constants)
    text = str(error.value)
    assert "missing: memory_fraction; unknown: memory_fractoin; negative: channels" in text


def test_a_constant_set_by_hand_is_no_longer_called_fitted():
    changed = Calibration.load().with_values(memory_fraction=0.5)
    assert changed.kernels.memory_fraction == 0.5
    assert changed.constants["memory_fraction"].basis == "assumed"
    assert Calibration.load().kernels.memory_fraction != 0.5
    with pytest.raises(KeyError):
        Calibration.load().with_values(memory_fractoin=0.5)
