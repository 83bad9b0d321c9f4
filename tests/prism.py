"""Prism, Beam's runner in Go: one that is there, or one that is built."""
import functools
import os
import shutil
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, 'conformance'))
import beam_go  # pylint: disable=wrong-import-position


@functools.lru_cache(1)
def build():
  """Its program, or why there is none."""
  given = os.environ.get('PRISM') or shutil.which('prism')
  if given:
    return given, None
  try:
    return beam_go.Programs(os.path.join(ROOT, 'target', 'prism')).build('prism', '/go/cmd/prism'), None
  except beam_go.NoGo as why:
    return None, 'Prism is not here (PRISM names its program), and cannot be built: %s' % why


def prism_or_skip():
  program, why = build()
  if not program:
    (pytest.fail if os.environ.get('CI') else pytest.skip)(why)
  return program
