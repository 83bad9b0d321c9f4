"""Beam's Go SDK on the job service: its word count, and its integration tests of the primitives, unmodified.

Run by run.py, which sets JOB_ENDPOINT. They are compiled from Go's module proxy or cache; where Go or the modules are
missing everything here is skipped, and the reason is told.
"""
import os
import re
import shutil
import subprocess

import pytest

ENDPOINT = os.environ['JOB_ENDPOINT']
VERSION = 'v2.77.0'
MODULE = 'github.com/apache/beam/sdks/v2'
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(ROOT, 'target', 'beam-go')
GO = os.environ.get('GO') or shutil.which('go') or '/usr/local/go/bin/go'
# Not for runners: the first is drained from outside of the pipeline, the second makes the worker run out of memory. How
# often the third fires depends on the clock; Beam leaves it out for its own runners too.
NOT_HERE = {'TestDrain', 'TestOomParDo', 'TestTriggerAfterSynchronizedProcessingTime'}


def go(*arguments, limit=600):
  """None, or why it failed."""
  env = dict(os.environ, GOFLAGS='-mod=mod')
  try:
    done = subprocess.run(
        [GO, *arguments], cwd=FOLDER, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=limit)
  except subprocess.TimeoutExpired:
    return '"go %s" took more than %d s' % (arguments[0], limit)
  if done.returncode:
    return '"go %s": %s' % (arguments[0], done.stdout.strip().splitlines()[-1] if done.stdout.strip() else 'no output')
  return None


def build():
  """None, or why there is nothing to run."""
  if not os.path.exists(GO):
    return 'Go is not installed; GO names its program'
  os.makedirs(FOLDER, exist_ok=True)
  with open(os.path.join(FOLDER, 'go.mod'), 'w') as out:
    out.write('module conformance\n\ngo 1.25\n\nrequire %s %s\n' % (MODULE, VERSION))
  missing = go('mod', 'download', MODULE)
  if missing:
    return 'Beam %s is neither in Go\'s module cache nor to be had: %s' % (VERSION, missing)
  return (go('build', '-o', 'wordcount', MODULE + '/go/examples/wordcount') or
          go('test', '-c', '-o', 'primitives', MODULE + '/go/test/integration/primitives'))


WHY = build()


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


@pytest.mark.skipif(WHY is not None, reason=str(WHY))
def test_word_count(tmp_path):
  (tmp_path / 'in.txt').write_text('to be or not to be\nthat is the question\n' * 500)
  run('wordcount', '--input=%s' % (tmp_path / 'in.txt'), '--output=%s' % (tmp_path / 'out.txt'))
  counted = dict(line.split(': ') for line in (tmp_path / 'out.txt').read_text().splitlines())
  assert counted == {'to': '1000', 'be': '1000', 'or': '500', 'not': '500', 'that': '500', 'is': '500', 'the': '500',
                     'question': '500'}


@pytest.mark.skipif(WHY is not None, reason=str(WHY))
@pytest.mark.parametrize('name', names())
def test_primitive(name):
  said = run('primitives', '-test.v', '-test.run', '^%s$' % name)
  assert re.search(r'--- (PASS|SKIP): %s ' % name, said), said[-3000:]
  if '--- SKIP: ' in said:
    pytest.skip(said[-200:])
