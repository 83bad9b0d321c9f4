"""Beam's Go SDK on the job service: its word count, and its integration tests of the primitives, unmodified.

Run by run.py, which sets JOB_ENDPOINT. They are compiled from Go's module proxy or cache; where Go or the modules are
missing everything here is skipped, and the reason is told; in CI it fails.
"""
import os
import re
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import beam_go  # pylint: disable=wrong-import-position

ENDPOINT = os.environ['JOB_ENDPOINT']
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(ROOT, 'target', 'beam-go')
# Not for runners: the first is drained from outside of the pipeline, the second makes the worker run out of memory. How
# often the third fires depends on the clock; Beam leaves it out for its own runners too.
NOT_HERE = {'TestDrain', 'TestOomParDo', 'TestTriggerAfterSynchronizedProcessingTime'}


def build():
  """None, or why there is nothing to run."""
  try:
    programs = beam_go.Programs(FOLDER)
    programs.build('wordcount', '/go/examples/wordcount')
    programs.build_tests('primitives', '/go/test/integration/primitives')
  except beam_go.NoGo as why:
    return str(why)
  return None


WHY = build()


@pytest.fixture(name='programs', autouse=True)
def _programs():
  if WHY:
    (pytest.fail if os.environ.get('CI') else pytest.skip)(WHY)


def names():
  if WHY:
    return ['all']
  listed = subprocess.run(
      [os.path.join(FOLDER, 'primitives'), '-test.list', '.'], stdout=subprocess.PIPE, text=True, check=True)
  return [name for name in listed.stdout.split() if name.startswith('Test') and name not in NOT_HERE]


def run(program, *arguments):
  done = subprocess.run(
      [os.path.join(FOLDER, program), *arguments, '--runner=universal', '--endpoint=' + ENDPOINT,
       '--environment_type=LOOPBACK'],
      cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=170)
  # Its log lines begin with the time.
  said = '\n'.join(line for line in done.stdout.splitlines() if not line.startswith('time='))
  assert done.returncode == 0, said[-3000:]
  return said


def test_word_count(tmp_path):
  (tmp_path / 'in.txt').write_text('to be or not to be\nthat is the question\n' * 500)
  run('wordcount', '--input=%s' % (tmp_path / 'in.txt'), '--output=%s' % (tmp_path / 'out.txt'))
  counted = dict(line.split(': ') for line in (tmp_path / 'out.txt').read_text().splitlines())
  assert counted == {'to': '1000', 'be': '1000', 'or': '500', 'not': '500', 'that': '500', 'is': '500', 'the': '500',
                     'question': '500'}


@pytest.mark.parametrize('name', names())
def test_primitive(name):
  said = run('primitives', '-test.v', '-test.run', '^%s$' % name)
  assert re.search(r'--- (PASS|SKIP): %s ' % name, said), said[-3000:]
  if '--- SKIP: ' in said:
    pytest.skip(said[-200:])
