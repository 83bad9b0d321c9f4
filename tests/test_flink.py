"""The example and the Rust suite on a real Flink.

Needs `make build` first, Java, and Maven where Beam's job server is not fetched yet.
"""
import os
import shutil
import socket
import subprocess

import pytest

from test_end_to_end import (  # pylint: disable=unused-import
    ROOT, _expected, assert_a_mismatch_fails, free_ports, rows, run, said)

import test_rust_suite
from test_rust_suite import _programs, _start, _suite  # pylint: disable=unused-import

JAR = os.path.join(ROOT, 'third_party', 'flink', 'job-server.jar')


@pytest.fixture(name='ports')
def _ports():
  """Ports that are free, for the servers that make starts."""
  if not os.environ.get('CI') and not (shutil.which('java') and (os.path.exists(JAR) or shutil.which('mvn'))):
    pytest.skip("Java is missing, or Maven with which Beam's job server is fetched: apt-get install default-jdk-headless maven")
  return free_ports('JOB_PORT', 'ARTIFACT_PORT', 'EXPANSION_PORT')


def listening(port):
  with socket.socket() as s:
    return s.connect_ex(('localhost', int(port))) == 0


def test_beams_job_server_gives_the_same_rows(tmp_path, ports, expected):
  output = tmp_path / 'classes.csv'
  result = run('make', 'run-portable-flink', 'OUTPUT=%s' % output, env=ports, timeout=300)
  assert result.returncode == 0, result.stdout + result.stderr
  assert rows(output) == expected
  # What was started has ended.
  assert not any(listening(port) for port in ports.values())


def test_a_mismatch_on_flink_fails_the_target(tmp_path, ports, expected):
  assert_a_mismatch_fails('run-portable-flink', tmp_path, expected, env=ports, timeout=300)
  assert not any(listening(port) for port in ports.values())


def test_a_job_server_that_is_missing_is_named(tmp_path, ports):
  result = run('make', 'run-portable-flink', 'FLINK_JOB_SERVER_JAR=%s' % (tmp_path / 'none.jar'), env=ports)
  assert 'none.jar is no file' in said(result)


@pytest.fixture(name='job_server')
def _job_server(ports, start, tmp_path):
  """The option that names Beam's job server, with a Flink in it."""
  subprocess.run(['setup/flink.sh', 'job-server'], cwd=ROOT, check=True)
  start(['tests/flink-job-server.sh', JAR, str(tmp_path / 'log'), '--flink-master=[local]', '--job-host=localhost',
         '--job-port=' + ports['JOB_PORT'], '--artifact-port=0', '--expansion-port=0'], r'(started) on')
  return '--job_endpoint=localhost:' + ports['JOB_PORT']


def test_the_rust_suite_in_batch(suite, job_server):
  test_rust_suite.run(suite, job_server, '--beams=flink')


def test_the_rust_suite_in_streaming(suite, job_server):
  """What is another matter there than in batch."""
  kinds = ['State', 'Timer', 'Stream', 'Triggered', 'Finalizer', 'Unbounded', 'StableInput', 'TimeSorted']
  test_rust_suite.run(suite, job_server, '--beams=flink-streaming', '--streaming', *kinds, at_least=20)


def test_an_option_that_the_runner_does_not_have(suite, job_server):
  command = [suite, '--case=impulse', '--runner=PortableRunner', job_server]
  run_with = lambda *more: subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True)
  assert run_with('--parallelism=1', '--object_reuse').returncode == 0
  result = run_with('--paralelism=1', '--max_bundle_size=big')
  assert result.returncode != 0
  assert 'did you mean --parallelism?' in result.stderr and '--max_bundle_size: "big" does not do' in result.stderr
