"""Marks the tests that want a Docker engine: `-m docker` runs them alone, `-m "not docker"` all others."""
import pytest


def pytest_collection_modifyitems(items):
  for item in items:
    if 'engine' in getattr(item, 'fixturenames', ()):
      item.add_marker(pytest.mark.docker)
