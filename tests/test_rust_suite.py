"""The Rust SDK's suite of pipelines (sdk/tests/validates_runner) on runners of all kinds.

Cargo runs it on the embedded runner; here it runs on our job service, with workers in the launcher's process and in
processes of a worker pool, on Beam's Python job service and on Prism. Needs `make build` first; PURLIN_BIN names another folder
of binaries.
"""
import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from all import COMPILED  # pylint: disable=wrong-import-position
from prism import prism_or_skip  # pylint: disable=wrong-import-position

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.environ.get('PURLIN_BIN', os.path.join(ROOT, 'target', 'release'))
PYTHON = os.path.join(ROOT, 'third_party', 'venv', 'bin', 'python')
ENV = dict(os.environ, RUST_BACKTRACE='0', PATH=os.path.dirname(PYTHON) + os.pathsep + os.environ['PATH'])


@pytest.fixture(name='programs', scope='session')
def _programs():
  """Test programs by name; of the whole workspace, with the features of all its tests: nothing is built twice."""
  built = subprocess.run(
      ['cargo', 'test', '-q', *COMPILED, '--test', 'validates_runner', '--test', 'same_results', '--no-run',
       '--message-format=json'],
      cwd=ROOT, env=ENV, capture_output=True, text=True, check=True)
  messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith('{')]
  return {m['target']['name']: m['executable'] for m in messages if m.get('executable')}


@pytest.fixture(name='suite')
def _suite(programs):
  return programs['validates_runner']


class Service:
  """A service, and what the pattern finds in its output once it listens."""
  def __init__(self, command, pattern):
    self.process = subprocess.Popen(
        command, cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
    found = next(filter(None, (re.search(pattern, line) for line in self.process.stdout)), None)
    if not found:
      raise AssertionError('%s ended with %s' % (command[0], self.process.wait()))
    self.found = found.group(1)
    # What else it says is not looked at; a full pipe would stop it.
    subprocess.Popen(['cat'], stdin=self.process.stdout, stdout=subprocess.DEVNULL)

  def crashed(self):
    return (self.process.poll() or 0) < 0

  def stop(self):
    self.process.send_signal(signal.SIGTERM)
    self.process.wait(20)


@pytest.fixture(name='start')
def _start():
  """Starts services, and stops them after the test."""
  services = []

  def start(command, pattern):
    services.append(Service(command, pattern))
    return services[-1]

  yield start
  for service in reversed(services):
    service.stop()


def run(suite, *options, runner='PortableRunner', at_least=50):
  ran = subprocess.run([suite, '--runner=' + runner, *options], cwd=ROOT, env=ENV, capture_output=True, text=True)
  result = re.search(r'test result: ok\. (\d+) passed; 0 failed', ran.stdout)
  assert ran.returncode == 0 and result, ran.stdout[-20000:] + ran.stderr[-2000:]
  assert int(result.group(1)) > at_least, ran.stdout


def job_service(start):
  command = [os.path.join(BIN, 'purlin-job-service'), '--job_port=0', '--artifact_port=0', '--expansion_port=0']
  return '--job_endpoint=localhost:' + start(command, r'Job\w* .*:(\d+)\s*$').found


def test_loopback(suite, start):
  run(suite, job_service(start))


def test_workers_of_a_pool(suite, start):
  pool = start(
      [os.path.join(BIN, 'purlin-worker-pool'), '--port=0', '--harness_command=' + suite], r'listens on (\S+:\d+)')
  run(suite, job_service(start), '--environment_type=EXTERNAL', '--environment_config=' + pool.found)


def test_beams_python_job_service(suite, start):
  for crashes in range(3):
    with socket.create_server(('localhost', 0)) as taken:
      port = taken.getsockname()[1]
    command = [PYTHON, os.path.join(ROOT, 'conformance', 'reference_job_service.py'), '-p', str(port)]
    service = start(command, r'(Listening) for beam jobs')
    try:
      run(suite, '--job_endpoint=localhost:%d' % port, '--beams=python')
      return
    except AssertionError:
      # Its gRPC is known to take down the whole of Python, which says nothing of the suite.
      if not service.crashed() or crashes == 2:
        raise
      print("Beam's Python service crashed with %d; once more" % service.process.returncode)


def test_prism(suite):
  """Each case starts a Prism of its own: some take it down."""
  run(suite, '--prism_location=' + prism_or_skip(), '--beams=prism', runner='PrismRunner')


def test_one_test_on_each_runner(programs, start):
  """#[purlin::test] with workers in the test's process and in processes of their own, which are the test program again."""
  endpoint = job_service(start).split('=')[1]
  env = dict(ENV, PURLIN_TEST_RUNNERS='direct=2 portable=%s process=%s' % (endpoint, endpoint))
  command = [programs['same_results'], 'on_each_runner', 'runners_make_no_difference']
  ran = subprocess.run(command, env=env, capture_output=True, text=True)
  assert ran.returncode == 0 and '2 passed' in ran.stdout, ran.stdout[-20000:] + ran.stderr[-2000:]
  env['PURLIN_TEST_RUNNERS'] = 'direct portable=localhost:1'
  ran = subprocess.run(command, env=env, capture_output=True, text=True)
  assert ran.returncode == 101 and 'failed on 1 of 2 runners\non runner portable=localhost:1: ' in ran.stdout, ran.stdout
