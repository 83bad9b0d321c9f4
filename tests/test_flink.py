"""The example on a real Flink.

Needs `make build` first, Java, and Maven where Beam's job server is not fetched yet.
"""
import os
import shutil
import socket

import pytest

from test_end_to_end import (  # pylint: disable=unused-import
    ROOT, _expected, assert_a_mismatch_fails, free_ports, rows, run, said)

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
