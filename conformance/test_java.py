"""Beam's Java SDK on the job service: a word count.

Run by run.py, which sets JOB_ENDPOINT. Maven fetches the SDK; where Java, Maven or the SDK are missing everything here is
skipped, and the reason is told.
"""
import os
import shutil
import subprocess

import pytest

ENDPOINT = os.environ['JOB_ENDPOINT']
HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(os.path.dirname(HERE), 'target', 'beam-java')
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
  return (
      run('mvn', '-q', '-B', '-f', os.path.join(java, 'pom.xml'), 'dependency:build-classpath',
          '-Dmdep.outputFile=' + CLASSPATH) or
      run('javac', '-d', CLASSES, '-cp', open(CLASSPATH, encoding='utf-8').read(),
          os.path.join(java, 'src', 'main', 'java', 'conformance', 'WordCount.java')))


WHY = build()


@pytest.mark.skipif(WHY is not None, reason=str(WHY))
def test_word_count():
  with open(CLASSPATH, encoding='utf-8') as classpath:
    path = CLASSES + os.pathsep + classpath.read()
  done = subprocess.run(
      ['java', '-cp', path, 'conformance.WordCount', '--runner=PortableRunner', '--jobEndpoint=' + ENDPOINT,
       '--defaultEnvironmentType=LOOPBACK'],
      cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=500)
  assert done.returncode == 0, done.stdout[-3000:]
  assert 'DONE right=4 wrong=0' in done.stdout, done.stdout[-3000:]
