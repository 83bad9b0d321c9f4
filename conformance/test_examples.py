"""Beam's shipped examples, unmodified: the same output through Purlin's job service as on Beam's own runner.

JOB_ENDPOINT names the running service.
"""
import glob
import json
import os
import random
import subprocess
import sys

import pytest

WORDS = ['king', 'lear', 'fool', 'storm', "daughter's", 'Cordelia', 'the', 'of', 'nothing', 'a']


def run(module, *arguments):
  done = subprocess.run(
      [sys.executable, '-m', 'apache_beam.examples.' + module, *arguments],
      capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, done.stderr[-4000:]


def lines(prefix):
  """All lines of a sharded output, without order."""
  found = []
  for path in glob.glob(prefix + '*'):
    with open(path, encoding='utf-8') as f:
      found += f.read().splitlines()
  return sorted(found)


def both(folder, module, *arguments, outputs=('',), output='--output'):
  """The outputs of an example on Beam's runner and on ours."""
  results = []
  for name, options in (
      ('beam', ['--runner=FnApiRunner']),
      ('purlin', ['--runner=PortableRunner', '--environment_type=LOOPBACK',
                  '--job_endpoint=' + os.environ['JOB_ENDPOINT']])):
    prefix = os.path.join(str(folder), name, 'out')
    os.makedirs(os.path.dirname(prefix))
    run(module, *arguments, '%s=%s' % (output, prefix), *options)
    results.append([lines(prefix + suffix) for suffix in outputs])
  return results


@pytest.fixture(name='text')
def _text(tmp_path):
  path = tmp_path / 'text.txt'
  chooser = random.Random(7)
  path.write_text(''.join(
      ' '.join(chooser.choice(WORDS) for _ in range(chooser.randrange(12))) + '\n' for _ in range(2000)))
  return path


def test_wordcount(tmp_path, text):
  beam, purlin = both(tmp_path, 'wordcount', '--input=%s' % text)
  assert len(beam[0]) == len(WORDS)
  assert purlin == beam


def test_tfidf(tmp_path):
  documents = tmp_path / 'documents'
  documents.mkdir()
  for name, content in (('1.txt', 'abc def ghi'), ('2.txt', 'abc def'), ('3.txt', 'abc')):
    (documents / name).write_text(content)
  beam, purlin = both(tmp_path, 'complete.tfidf', '--uris=%s/*' % documents)
  assert len(beam[0]) == 6
  assert purlin == beam


def test_multiple_outputs(tmp_path, text):
  parts = ('-chars', '-short-words', '-words')
  beam, purlin = both(tmp_path, 'cookbook.multiple_output_pardo', '--input=%s' % text, outputs=parts)
  assert all(beam)
  assert purlin == beam


def test_sessions(tmp_path):
  edits = tmp_path / 'edits.json'
  # Sessions of different lengths, so that the top ones are the same in any order of arrival.
  edits.write_text(''.join(
      json.dumps({'timestamp': session * 100000.0 + edit * 60, 'contributor_username': 'user%d' % (session % 5)}) + '\n'
      for session in range(20) for edit in range(session + 1)))
  beam, purlin = both(
      tmp_path, 'complete.top_wikipedia_sessions', '--input=%s' % edits, '--sampling_threshold=1.0')
  assert beam[0]
  assert purlin == beam
