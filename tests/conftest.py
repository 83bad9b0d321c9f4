"""Marks: `-m docker` runs the tests that want a Docker engine, which are marked here, `-m modes` those of the run targets."""
import pytest


def pytest_configure(config):
  config.addinivalue_line('markers', 'docker: wants a Docker engine')
  config.addinivalue_line('markers', 'modes: a run target of the Makefile; of the first tier')


def pytest_collection_modifyitems(items):
  for item in items:
    if 'engine' in getattr(item, 'fixturenames', ()):
      item.add_marker(pytest.mark.docker)
