"""The example, the Rust suite and Beam's Python pipelines on a real Flink.

The targets of the Makefile start a cluster each, as they do for a user; all other tests have one together.

Needs `make build` first, Java, and Maven where Beam's job server is not fetched yet.
"""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import apache_beam as beam
import grpc
import pytest
from apache_beam.metrics import Metrics
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.transforms import window
from apache_beam.transforms.periodicsequence import PeriodicImpulse

from test_end_to_end import (  # pylint: disable=unused-import
    ROOT, _expected, free_ports, rows, run, said)

import test_rust_suite
from test_rust_suite import Service, _programs, _start, _suite  # pylint: disable=unused-import

JAR = os.path.join(ROOT, 'third_party', 'flink', 'job-server.jar')

LONG = pytest.mark.skipif(not os.environ.get('LONG_TESTS'), reason='LONG_TESTS=1 runs what takes minutes')


def need_flink():
  if not os.environ.get('CI') and not (shutil.which('java') and (os.path.exists(JAR) or shutil.which('mvn'))):
    pytest.skip("Java is missing, or Maven with which Beam's job server is fetched: apt-get install default-jdk-headless maven")


@pytest.fixture(name='ports')
def _ports():
  """Ports that are free, for the servers that make starts."""
  need_flink()
  return free_ports('JOB_PORT', 'ARTIFACT_PORT', 'EXPANSION_PORT', 'FLINK_PORT', 'WORKER_POOL_PORT')


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


@pytest.mark.parametrize('target', [
    'run-flink', 'run-portable-flink', 'run-portable-flink-local', 'run-portable-flink-worker-local', 'run-portable-flink-cluster'])
def test_each_target_compares_its_rows(target):
  """As run-direct does, of which test_end_to_end.py shows that a mismatch fails it."""
  told = run('make', '--no-print-directory', '-n', target, 'OUTPUT=o.csv', 'EXPECTED=e.csv')
  assert told.returncode == 0 and told.stdout.splitlines()[-1] == 'tests/same-rows.sh o.csv e.csv', told.stdout + told.stderr


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


@LONG
def test_the_rust_suite_in_batch(suite, job_server):
  test_rust_suite.run(suite, job_server, '--beams=flink')


@LONG
def test_the_rust_suite_in_streaming(suite, job_server):
  """What is another matter there than in batch."""
  kinds = ['State', 'Timer', 'Stream', 'Triggered', 'Finalizer', 'Unbounded', 'StableInput', 'TimeSorted']
  test_rust_suite.run(suite, job_server, '--beams=flink-streaming', '--streaming', *kinds, at_least=20)


@LONG
def test_an_option_that_the_runner_does_not_have(suite, job_server):
  command = [suite, '--case=impulse', '--runner=PortableRunner', job_server]
  run_with = lambda *more: subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True)
  assert run_with('--parallelism=1', '--object_reuse').returncode == 0
  result = run_with('--paralelism=1', '--max_bundle_size=big')
  assert result.returncode != 0
  assert 'did you mean --parallelism?' in result.stderr and '--max_bundle_size: "big" does not do' in result.stderr


@pytest.mark.parametrize('target', ['run-flink', 'run-portable-flink-local', 'run-portable-flink-worker-local'])
def test_a_cluster_for_the_run_gives_the_same_rows(target, tmp_path, ports, expected):
  output = tmp_path / 'classes.csv'
  result = run('make', target, 'OUTPUT=%s' % output, env=ports, timeout=400)
  assert result.returncode == 0, result.stdout + result.stderr
  assert rows(output) == expected
  # What was started has ended.
  assert not any(listening(port) for port in ports.values())


def test_a_cluster_of_three_machines(tmp_path, ports, expected):
  """Its TaskManagers reach workers only in pools beside them, and both have some."""
  if not os.environ.get('CI') and (os.geteuid() != 0 or not shutil.which('ip')):
    pytest.skip('network namespaces need root, and the command ip: apt-get install iproute2')
  output = tmp_path / 'classes.csv'
  steps = 'make create-flink-cluster && make run-portable-flink-cluster OUTPUT=%s; status=$?; make remove-flink-cluster; exit $status'
  result = run('tests/namespaces.py', 'bash', '-c', steps % output, env=ports, timeout=400)
  assert result.returncode == 0, result.stdout + result.stderr
  assert rows(output) == expected
  for name in ('tm1', 'tm2'):
    with open(os.path.join(ROOT, 'out', 'flink-cluster', 'taskmanager-%s.log' % name), encoding='utf-8') as log:
      assert re.search('switched from .* to RUNNING', log.read()), name


def test_what_there_is_no_cluster_for_is_told(tmp_path):
  result = run('make', 'remove-flink-cluster')
  assert 'there is no cluster that create-flink-cluster started' in said(result)
  result = run('target/release/image-classification', '--runner=FlinkRunner', '--input=%s/examples/image-classification/data/images' % ROOT, '--output=%s' % (tmp_path / 'o'))
  assert result.returncode != 0 and '--flink_master=HOST:PORT' in said(result)


class Cluster:
  """A Flink cluster, and our job service in front of it."""
  def __init__(self, folder):
    subprocess.run(['setup/flink.sh'], cwd=ROOT, check=True)
    self.services = []
    self.ports = free_ports('REST', 'JOB')
    self.rest = 'http://localhost:%s/v1/' % self.ports['REST']
    self.job = 'localhost:' + self.ports['JOB']
    self._start(['tests/flink-cluster.sh', 'third_party/flink/dist', self.ports['REST'], str(folder)], r'(listens)')

  def _start(self, command, pattern):
    self.services.append(Service(command, pattern))

  def serve(self):
    """Starts the service, anew if it runs."""
    if len(self.services) > 1:
      self.services.pop().stop()
    self._start(
        ['target/release/purlin-job-service', '--job_port=' + self.ports['JOB'], '--serve_http=false',
         '--flink_master=localhost:' + self.ports['REST'], '--flink_job_server_jar=' + JAR], r'Job service (listens)')

  def stop(self):
    for service in reversed(self.services):
      service.stop()

  def get(self, path):
    with urllib.request.urlopen(self.rest + path) as answer:
      return json.load(answer)

  def jobs(self):
    return [job['state'] for job in self.get('jobs/overview')['jobs']]

  def jars(self):
    return [jar['name'] for jar in self.get('jars')['files']]

  def options(self, *more):
    return ['--runner=PortableRunner', '--job_endpoint=' + self.job, *more]

  def loopback(self, *more):
    return self.options('--environment_type=LOOPBACK', *more)

  def until(self, holds, seconds=60):
    """What Flink tells of jobs is a little old."""
    deadline = time.time() + seconds
    while not holds() and time.time() < deadline:
      time.sleep(0.2)
    assert holds(), (self.jobs(), self.jars())


@pytest.fixture(name='cluster', scope='module')
def _cluster(tmp_path_factory):
  need_flink()
  cluster = Cluster(tmp_path_factory.mktemp('flink'))
  try:
    cluster.serve()
    yield cluster
  finally:
    cluster.stop()


def ticks(*options):
  """Starts a Python pipeline that goes on until it is cancelled."""
  pipeline = beam.Pipeline(options=PipelineOptions([*options, '--streaming']))
  _ = pipeline | PeriodicImpulse(fire_interval=1) | beam.Map(lambda x: x)
  return pipeline.run()


def wordcount(folder, *options):
  """Runs Beam's own program."""
  text = folder / 'text'
  text.write_text('a few words and a few more\n' * 10)
  return subprocess.run(
      [sys.executable, '-m', 'apache_beam.examples.wordcount', '--input=%s' % text, '--output=%s' % (folder / 'counts'), *options],
      cwd=ROOT, capture_output=True, text=True, timeout=200)


def counts(folder):
  """What it wrote."""
  lines = ''.join(part.read_text() for part in folder.glob('counts*')).split('\n')
  return sorted(filter(None, lines))


COUNTED = ['a: 20', 'and: 10', 'few: 20', 'more: 10', 'words: 10']


def test_beams_pipelines_on_a_cluster(cluster, tmp_path):
  """Beam's word count, unmodified; metrics, user code that fails, what Flink cannot do, and cancel."""
  done = wordcount(tmp_path, *cluster.loopback())
  assert done.returncode == 0, done.stderr
  assert counts(tmp_path) == COUNTED

  def counted(element):
    Metrics.counter('test', 'seen').inc()
    if element == 'bad':
      raise ValueError('this is a bad element')
    return element

  def submit(elements, *flags, into=window.GlobalWindows()):
    pipeline = beam.Pipeline(options=PipelineOptions(cluster.loopback(*flags)))
    _ = pipeline | beam.Create(elements) | beam.WindowInto(into) | beam.Map(counted)
    return pipeline.run()

  result = submit(['good', 'better'])
  assert result.wait_until_finish() == 'DONE'
  [seen] = result.metrics().query(MetricsFilter().with_namespace('test'))['counters']
  assert seen.result == 2

  with pytest.raises(RuntimeError, match='this is a bad element'):
    submit(['good', 'bad']).wait_until_finish()

  class Odd(window.NonMergingWindowFn):
    def assign(self, context):
      return [window.GlobalWindow()]

    def get_window_coder(self):
      return beam.coders.coders.GlobalWindowCoder()

  before = cluster.jobs()
  with pytest.raises(Exception, match='is known to its SDK only'):
    submit(['good'], into=Odd())
  assert cluster.jobs() == before

  result = ticks(*cluster.loopback())
  cluster.until(lambda: 'RUNNING' in cluster.jobs())
  result.cancel()
  with pytest.raises(RuntimeError, match='in state CANCELLED'):
    result.wait_until_finish()
  # Nothing stays on the cluster; its jar goes last.
  cluster.until(lambda: 'RUNNING' not in cluster.jobs() and not cluster.jars())


def test_a_service_that_is_started_anew_finds_its_jobs(cluster):
  """Their workers, which are processes that TaskManagers start by Beam's container contract, do not need the program that submitted."""
  boot = {'command': os.path.join(ROOT, 'target', 'release', 'purlin-boot'), 'env': {'PURLIN_PYTHON': sys.executable}}
  result = ticks(*cluster.options('--environment_type=PROCESS', '--environment_config=' + json.dumps(boot)))
  cluster.until(lambda: 'RUNNING' in cluster.jobs())
  [jar] = cluster.jars()
  job = result._job_id  # pylint: disable=protected-access
  cluster.serve()
  assert 'RUNNING' in cluster.jobs() and cluster.jars() == [jar]
  with grpc.insecure_channel(cluster.job) as channel:
    service = beam_job_api_pb2_grpc.JobServiceStub(channel)
    assert job in [found.job_id for found in service.GetJobs(beam_job_api_pb2.GetJobsRequest()).job_info]
    state = lambda: service.GetState(beam_job_api_pb2.GetJobStateRequest(job_id=job)).state
    cluster.until(lambda: state() == beam_job_api_pb2.JobState.RUNNING)
    service.Cancel(beam_job_api_pb2.CancelJobRequest(job_id=job))
    cluster.until(lambda: state() == beam_job_api_pb2.JobState.CANCELLED)
  cluster.until(lambda: not cluster.jars())


@LONG
def test_a_jar_that_flink_runs(cluster, start, tmp_path):
  """The pipeline in a jar, by --output_executable_path: nothing is run until `flink run` does it."""
  jar, before = tmp_path / 'words.jar', len(cluster.jobs())
  boot = 'target/release/purlin-boot --python=%s' % sys.executable
  pool = start(['target/release/purlin-worker-pool', '--port=0', '--harness_command=' + boot], r'listens on (\S+:\d+)').found
  to_jar = '--output_executable_path=%s' % jar
  written = wordcount(
      tmp_path, *cluster.options('--environment_type=EXTERNAL', '--environment_config=' + pool, to_jar))
  assert written.returncode == 0, written.stderr
  assert len(cluster.jobs()) == before and not counts(tmp_path)
  ran = run('third_party/flink/dist/bin/flink', 'run', '-m', 'localhost:' + cluster.ports['REST'], jar)
  assert ran.returncode == 0, ran.stdout + ran.stderr
  assert counts(tmp_path) == COUNTED

  refused = wordcount(tmp_path, *cluster.loopback(to_jar))
  assert refused.returncode != 0 and 'LOOPBACK workers end with the program' in refused.stderr
