"""Set-up of every test."""

import pytest
from hypothesis import HealthCheck, settings

# Asserts of shared helpers speak as plainly as those of a test.
pytest.register_assert_rewrite("support")

# A busy machine is no failure. What is drawn differs from run to run, so that runs add up.
settings.register_profile("clustersim", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("clustersim")
