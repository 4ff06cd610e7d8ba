"""Settings for all tests: no timing judgements on a loaded machine, and a failing example is printed to be replayed."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

TEST_SECONDS_MAX = 30
"""A test that takes longer hangs: all stacks are printed, and the run ends."""

settings.register_profile("p2pos", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("p2pos")


@pytest.fixture(autouse=True)
def no_test_hangs() -> Iterator[None]:
    faulthandler.dump_traceback_later(TEST_SECONDS_MAX, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
