"""The example, the Rust suite and Beam's Python pipelines on a real Flink.

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

import pytest

from test_end_to_end import (  # pylint: disable=unused-import
    ROOT, _expected, assert_a_mismatch_fails, free_ports, rows, run, said)

import test_rust_suite
from test_rust_suite import _programs, _start, _suite  # pylint: disable=unused-import

JAR = os.path.join(ROOT, 'third_party', 'flink', 'job-server.jar')

LONG = pytest.mark.skipif(not os.environ.get('LONG_TESTS'), reason='LONG_TESTS=1 runs what takes minutes')


@pytest.fixture(name='ports')
def _ports():
  """Ports that are free, for the servers that make starts."""
  if not os.environ.get('CI') and not (shutil.which('java') and (os.path.exists(JAR) or shutil.which('mvn'))):
    pytest.skip("Java is missing, or Maven with which Beam's job server is fetched: apt-get install default-jdk-headless maven")
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


@LONG
def test_the_rust_suite_in_batch(suite, job_server):
  test_rust_suite.run(suite, job_server, '--beams=flink')


@LONG
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
  def __init__(self, start, ports, logs):
    subprocess.run(['setup/flink.sh'], cwd=ROOT, check=True)
    self.rest = 'http://localhost:%s/v1/' % ports['FLINK_PORT']
    self.job = 'localhost:' + ports['JOB_PORT']
    start(['tests/flink-cluster.sh', 'third_party/flink/dist', ports['FLINK_PORT'], str(logs)], r'(listens)')
    self.serve = lambda: start(
        ['target/release/purlin-job-service', '--job_port=' + ports['JOB_PORT'], '--serve_http=false',
         '--flink_master=localhost:' + ports['FLINK_PORT'], '--flink_job_server_jar=' + JAR], r'Job service (listens)')

  def get(self, path):
    with urllib.request.urlopen(self.rest + path) as answer:
      return json.load(answer)

  def jobs(self):
    return [job['state'] for job in self.get('jobs/overview')['jobs']]

  def options(self, *more):
    return ['--runner=PortableRunner', '--job_endpoint=' + self.job, '--environment_type=LOOPBACK', *more]


def test_beams_pipelines_on_a_cluster(start, ports, tmp_path):
  """Beam's word count, unmodified; metrics, user code that fails, what Flink cannot do, and cancel."""
  import apache_beam as beam
  from apache_beam.metrics import Metrics
  from apache_beam.metrics.metric import MetricsFilter
  from apache_beam.options.pipeline_options import PipelineOptions
  from apache_beam.transforms import window
  from apache_beam.transforms.periodicsequence import PeriodicImpulse
  cluster = Cluster(start, ports, tmp_path / 'logs')
  cluster.serve()
  text = tmp_path / 'text'
  text.write_text('a few words and a few more\n' * 10)
  done = subprocess.run(
      [sys.executable, '-m', 'apache_beam.examples.wordcount', '--input=%s' % text, '--output=%s' % (tmp_path / 'counts'),
       *cluster.options()], capture_output=True, text=True, timeout=200)
  assert done.returncode == 0, done.stderr
  counts = ''.join(part.read_text() for part in tmp_path.glob('counts*')).split('\n')
  assert sorted(filter(None, counts)) == ['a: 20', 'and: 10', 'few: 20', 'more: 10', 'words: 10']

  def counted(element):
    Metrics.counter('test', 'seen').inc()
    if element == 'bad':
      raise ValueError('this is a bad element')
    return element

  def submit(elements, *flags, into=window.GlobalWindows()):
    pipeline = beam.Pipeline(options=PipelineOptions(cluster.options(*flags)))
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

  pipeline = beam.Pipeline(options=PipelineOptions(cluster.options('--streaming')))
  _ = pipeline | PeriodicImpulse(fire_interval=1) | beam.Map(lambda x: x)
  result = pipeline.run()
  deadline = time.time() + 60
  while 'RUNNING' not in cluster.jobs() and time.time() < deadline:
    time.sleep(0.2)
  result.cancel()
  with pytest.raises(RuntimeError, match='in state CANCELLED'):
    result.wait_until_finish()
  # Nothing stays on the cluster; its jar goes last, and what is told of jobs is a little old.
  deadline = time.time() + 30
  while ('RUNNING' in cluster.jobs() or cluster.get('jars')['files']) and time.time() < deadline:
    time.sleep(0.2)
  assert 'RUNNING' not in cluster.jobs() and cluster.get('jars')['files'] == []
