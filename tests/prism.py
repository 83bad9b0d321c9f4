"""Prism, Beam's runner in Go: one that is there, or one that is built."""
import functools
import os
import shutil
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(ROOT, 'target', 'prism')
GO = os.environ.get('GO') or shutil.which('go') or '/usr/local/go/bin/go'
# That of the Python SDK whose suites run here.
VERSION = 'v2.77.0'
MODULE = 'github.com/apache/beam/sdks/v2'


@functools.lru_cache(1)
def build():
  """Its program, or why there is none."""
  given = os.environ.get('PRISM') or shutil.which('prism')
  if given:
    return given, None
  if not os.path.exists(GO):
    return None, 'Prism is not here: PRISM names its program, GO that of Go, to build it'
  program = os.path.join(FOLDER, 'prism')
  if os.path.exists(program):
    return program, None
  os.makedirs(FOLDER, exist_ok=True)
  with open(os.path.join(FOLDER, 'go.mod'), 'w', encoding='utf-8') as out:
    out.write('module prism\n\ngo 1.25\n\nrequire %s %s\n' % (MODULE, VERSION))
  built = subprocess.run(
      [GO, 'build', '-o', 'prism', MODULE + '/go/cmd/prism'], cwd=FOLDER, env=dict(os.environ, GOFLAGS='-mod=mod'),
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
  if built.returncode:
    return None, 'Prism cannot be built: ' + built.stdout.strip()[-500:]
  return program, None


def prism_or_skip():
  program, why = build()
  if not program:
    (pytest.fail if os.environ.get('CI') else pytest.skip)(why)
  return program
