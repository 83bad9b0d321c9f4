"""Beam's Java SDK on the job service: a word count in each environment, and small pipelines of what Java does in its own way.

Run by run.py, which sets JOB_ENDPOINT. Maven fetches the SDK; where Java, Maven or the SDK are missing everything here is
skipped, and the reason is told; in CI it fails.
"""
import contextlib
import glob
import json
import os
import shutil
import subprocess
import time

import pytest

ENDPOINT = os.environ['JOB_ENDPOINT']
HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(os.path.dirname(HERE), 'target', 'beam-java')
SERVICES = os.path.dirname(os.environ['JOB_SERVICE'])
CLASSPATH = os.path.join(FOLDER, 'classpath.txt')
CLASSES = os.path.join(FOLDER, 'classes')


def run(*command, limit=500):
  """None, or why it failed."""
  done = subprocess.run(
      command, cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit)
  return done.stdout.strip()[-500:] or 'no output' if done.returncode else None


def build():
  """None, or why there is nothing to run."""
  for program in ('java', 'javac', 'mvn'):
    if not shutil.which(program):
      return '%s is not installed' % program
  os.makedirs(CLASSES, exist_ok=True)
  java = os.path.join(HERE, 'java')
  sources = glob.glob(os.path.join(java, 'src', 'main', 'java', 'conformance', '*.java'))
  return (
      run('mvn', '-q', '-B', '-f', os.path.join(java, 'pom.xml'), 'dependency:build-classpath',
          '-Dmdep.outputFile=' + CLASSPATH) or
      run('javac', '-d', CLASSES, '-cp', open(CLASSPATH, encoding='utf-8').read(), *sources))


WHY = build()


@pytest.fixture(name='programs', autouse=True)
def _programs():
  if WHY:
    (pytest.fail if os.environ.get('CI') else pytest.skip)(WHY)


LOOPBACK = ('LOOPBACK', '')


def launch(environment, *arguments, without=None):
  """What a program of ours prints, run on the job service; without the jar whose name begins so.

  stdout is the program's own; in LOOPBACK its worker goes on logging to stderr after the program has printed its last line.
  """
  with open(CLASSPATH, encoding='utf-8') as classpath:
    jars = [jar for jar in classpath.read().split(os.pathsep)
            if without is None or not os.path.basename(jar).startswith(without)]
  kind, config = environment
  return subprocess.run(
      ['java', '-cp', os.pathsep.join([CLASSES, *jars]), *arguments, '--runner=PortableRunner',
       '--jobEndpoint=' + ENDPOINT, '--defaultEnvironmentType=' + kind, '--defaultEnvironmentConfig=' + config],
      cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=500)


def tail(done):
  """What to show of a program that did not do what was expected."""
  return done.stderr[-3000:] + done.stdout[-3000:]


def process(**env):
  """Workers that are processes, which purlin-boot starts."""
  return 'PROCESS', json.dumps({'command': os.path.join(SERVICES, 'purlin-boot'), 'env': env})


@contextlib.contextmanager
def pool():
  """Workers of a pool, which purlin-boot starts."""
  with subprocess.Popen(
      [os.path.join(SERVICES, 'purlin-worker-pool'), '--port=0',
       '--harness_command=' + os.path.join(SERVICES, 'purlin-boot')],
      stdout=subprocess.PIPE, text=True) as running:
    try:
      yield 'EXTERNAL', running.stdout.readline().split()[-1]
    finally:
      running.terminate()


def counts_words(environment):
  done = launch(environment, 'conformance.WordCount')
  assert done.returncode == 0, tail(done)
  assert 'DONE right=4 wrong=0' in done.stdout, tail(done)


def test_word_count():
  counts_words(LOOPBACK)


def test_word_count_in_processes(tmp_path):
  counts_words(process(TMPDIR=str(tmp_path)))
  # The workers' files end with them, and they with their job.
  deadline = time.monotonic() + 60
  while list(tmp_path.iterdir()):
    assert time.monotonic() < deadline, 'it still has %s' % list(tmp_path.iterdir())
    time.sleep(0.02)


def test_word_count_in_a_pool():
  with pool() as environment:
    counts_words(environment)


@pytest.mark.parametrize('lacks, told', [
    ('beam-sdks-java-harness', 'has org.apache.beam.fn.harness.FnHarness'),
    ('jamm', 'has org.github.jamm.MemoryMeter'),
])
def test_what_the_jars_lack_is_told(lacks, told):
  done = launch(process(), 'conformance.WordCount', without=lacks)
  assert done.returncode != 0 and told in done.stderr, tail(done)


def test_no_java_is_told():
  done = launch(process(JAVA_HOME='/no/java'), 'conformance.WordCount')
  assert done.returncode != 0 and 'there is no /no/java/bin/java' in done.stderr, tail(done)


# What each pipeline's user code saw, in order; after a *, in any.
SAW = {
    'stragglers': 'DONE * 0 1 2 3 4 5 6 7 8 9',
    'splits': 'CANCELLED * ' + ' '.join(map(str, range(20))),
    'side-accumulating': 'DONE 100:5 200:5',
    'side-discarding': 'DONE 100:5 200:1',
    'side-map': 'DONE 100:5 200:6',
    'held-timer': 'DONE element1 element2 timer last',
    'late-signal': 'DONE signal main',
    'buffered': 'DONE 3 3',
    'integer-keys': 'DONE * 1:ac 2:b',
    'void-keys': 'DONE null:abc',
}


@pytest.mark.parametrize('name', SAW)
def test_pipeline(name):
  done = launch(LOOPBACK, 'conformance.Points', name)
  assert done.returncode == 0, tail(done)
  state, *saw = done.stdout.strip().rpartition('\n')[2].split()
  expected_state, *expected = SAW[name].split()
  if expected[0] == '*':
    expected, saw = sorted(expected[1:]), sorted(saw)
  assert (state, saw) == (expected_state, expected), tail(done)
