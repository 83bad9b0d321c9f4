"""The Rust SDK's suite of pipelines (sdk/tests/validates_runner) on runners of all kinds.

Cargo runs it on the embedded runner; here it runs on our job service, with workers in the launcher's process and in
processes of a worker pool, and on Beam's Python job service. Needs `make build` first; PURLIN_BIN names another folder
of binaries.
"""
import json
import os
import re
import signal
import socket
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.environ.get('PURLIN_BIN', os.path.join(ROOT, 'target', 'release'))
PYTHON = os.path.join(ROOT, 'third_party', 'venv', 'bin', 'python')
ENV = dict(os.environ, RUST_BACKTRACE='0', PATH=os.path.dirname(PYTHON) + os.pathsep + os.environ['PATH'])


@pytest.fixture(name='suite', scope='session')
def _suite():
  """The suite's program; of the whole workspace, whose features are those of `cargo test --workspace`: nothing is built twice."""
  built = subprocess.run(
      ['cargo', 'test', '-q', '--workspace', '--test', 'validates_runner', '--no-run', '--message-format=json'],
      cwd=ROOT, env=ENV, capture_output=True, text=True, check=True)
  messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith('{')]
  programs = [m['executable'] for m in messages if m.get('target', {}).get('name') == 'validates_runner']
  return next(program for program in programs if program)


def serve(command, pattern):
  """A service, and what the pattern finds in its output once it listens."""
  process = subprocess.Popen(
      command, cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
  for line in process.stdout:
    found = re.search(pattern, line)
    if found:
      return process, found.group(1)
  raise AssertionError('%s ended with %s' % (command[0], process.wait()))


@pytest.fixture(name='start')
def _start():
  """Starts services, and stops them after the test."""
  processes = []

  def start(command, pattern):
    process, found = serve(command, pattern)
    processes.append(process)
    # What else it says is not looked at; a full pipe would stop it.
    subprocess.Popen(['cat'], stdin=process.stdout, stdout=subprocess.DEVNULL)
    return found

  yield start
  for process in reversed(processes):
    process.send_signal(signal.SIGTERM)
    process.wait(20)


def run(suite, *options):
  ran = subprocess.run([suite, '--runner=PortableRunner', *options], cwd=ROOT, env=ENV, capture_output=True, text=True)
  result = re.search(r'test result: ok\. (\d+) passed; 0 failed', ran.stdout)
  assert ran.returncode == 0 and result, ran.stdout[-20000:] + ran.stderr[-2000:]
  assert int(result.group(1)) > 50, ran.stdout


def job_service(start):
  command = [os.path.join(BIN, 'purlin-job-service'), '--job_port=0', '--artifact_port=0', '--expansion_port=0']
  return '--job_endpoint=localhost:' + start(command, r'Job\w* .*:(\d+)\s*$')


def test_loopback(suite, start):
  run(suite, job_service(start))


def test_workers_of_a_pool(suite, start):
  pool = start(
      [os.path.join(BIN, 'purlin-worker-pool'), '--port=0', '--harness_command=' + suite], r'listens on (\S+:\d+)')
  run(suite, job_service(start), '--environment_type=EXTERNAL', '--environment_config=' + pool)


def test_beams_python_job_service(suite, start):
  with socket.create_server(('localhost', 0)) as taken:
    port = taken.getsockname()[1]
  command = [PYTHON, os.path.join(ROOT, 'conformance', 'reference_job_service.py'), '-p', str(port)]
  start(command, r'(Listening) for beam jobs')
  run(suite, '--job_endpoint=localhost:%d' % port, '--beam_python')
