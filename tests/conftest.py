"""Set-up of every test."""

import pytest
from hypothesis import HealthCheck, settings

# Asserts of shared helpers speak as plainly as those of a test.
pytest.register_assert_rewrite("support")

# A busy machine is no failure. A commit passes or fails whenever it is checked, so its draws are always the
# same; whoever looks for more draws others with --hypothesis-profile=explore.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", _PATIENT)
settings.register_profile("clustersim", _PATIENT, derandomize=True)
settings.load_profile("clustersim")
