"""Workers in every environment, and what happens when they die: the release binaries, real processes, a real Docker engine.

Needs `make build` first; tests/all.py does that. What needs Docker uses the engine that DOCKER_HOST names, or one that it
starts itself where it may (root, with docker.io installed).
"""
import contextlib
import datetime
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
import zipfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from test_end_to_end import CLASSIFY, DATA, ROOT, SERVICE, free_ports, rows, run, said  # pylint: disable=wrong-import-position
from prism import prism_or_skip  # pylint: disable=wrong-import-position

POOL = os.path.join(ROOT, 'target', 'release', 'purlin-worker-pool')
PYTHON = os.path.join(ROOT, 'third_party', 'venv', 'bin', 'python')
BOOT = os.path.join(ROOT, 'target', 'release', 'purlin-boot')
IMAGE = 'purlin-worker-test:latest'
# Debian's own client, where another comes first on the path.
DOCKER = '/usr/bin/docker' if os.path.exists('/usr/bin/docker') else shutil.which('docker')
# So long may anything take that is to happen soon.
SOON = 60


def until(what, found, seconds=SOON):
  """Waits until `found` gives something that is true."""
  deadline = time.monotonic() + seconds
  while True:
    value = found()
    if value:
      return value
    assert time.monotonic() < deadline, 'waited %d s in vain for %s' % (seconds, what)
    time.sleep(0.02)


def processes():
  """{pid: (parent, command line)} of what runs; the dead that nobody has buried do not."""
  table = {}
  for pid in filter(str.isdigit, os.listdir('/proc')):
    with contextlib.suppress(OSError):
      with open('/proc/%s/stat' % pid, encoding='utf-8', errors='replace') as f:
        state, parent = f.read().rpartition(')')[2].split()[:2]
      with open('/proc/%s/cmdline' % pid, encoding='utf-8', errors='replace') as f:
        command = f.read().replace('\0', ' ')
      if state != 'Z':
        table[int(pid)] = (int(parent), command)
  return table


def below(ancestor):
  """The processes that `ancestor` started, and that those started."""
  table = processes()
  found, open_ = [], [ancestor]
  while open_:
    parent = open_.pop()
    children = [pid for pid, (of, _) in table.items() if of == parent]
    found += children
    open_ += children
  return {pid: table[pid][1] for pid in found}


def no_tokens():
  """The tokens of workers' ids are on no command line, where all users of the machine could read them."""
  shown = [command for _, command in processes().values() if re.search(r'--id=\S+\.[0-9a-f]{32}\b', command)]
  assert not shown, shown


def alive(pid):
  return pid in processes()


class Program:
  """A service on free ports, with its output kept."""
  def __init__(self, *command, ports=1, **options):
    self.process = subprocess.Popen(
        [str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    self.lines = []
    self.reader = threading.Thread(target=self.read, daemon=True)
    self.reader.start()
    self.endpoints = []
    while len(self.endpoints) < ports:
      line = self.process.stdout.readline()
      assert line, 'it ended with %s: %s' % (self.process.wait(), self.log())
      self.endpoints += re.findall(r'(\S+:\d+)\s*$', line)
    self.endpoint = self.endpoints[0]

  def read(self):
    for line in self.process.stderr:
      self.lines.append(line)

  def log(self):
    return ''.join(self.lines)

  def stop(self):
    if self.process.poll() is None:
      self.process.send_signal(signal.SIGTERM)
      assert self.process.wait(30) == 0, self.log()


def service(*flags, **options):
  return Program(
      SERVICE, '--job_port=0', '--artifact_port=0', '--expansion_port=0', '--serve_http=false', *flags, ports=3,
      **options)


def pool(*flags, **options):
  return Program(POOL, '--port=0', *flags, **options)


@pytest.fixture(name='start')
def _start():
  """Starts programs, and stops them in the end."""
  started = []

  def start(make, *flags, **options):
    started.append(make(*flags, **options))
    return started[-1]

  yield start
  for program in reversed(started):
    if program.process.poll() is None:
      program.process.send_signal(signal.SIGCONT)
    program.stop()


def own_engine(folder):
  """A Docker engine of the tests' own in `folder`: its process, and why none can run (empty where one does)."""
  with open(folder + '/log', 'w', encoding='utf-8') as log:
    process = subprocess.Popen(
        [shutil.which('dockerd') or '/usr/sbin/dockerd', '--data-root', folder + '/data', '--exec-root', folder + '/exec',
         '--pidfile', folder + '/pid', '-H', os.environ['DOCKER_HOST']],
        stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)

  def settled():
    return process.poll() is not None or os.path.exists(folder + '/docker.sock') and run(DOCKER, 'info').returncode == 0
  until('the Docker engine', settled)
  if process.poll() is None:
    return process, ''
  with open(folder + '/log', encoding='utf-8') as log:
    return process, 'the Docker engine ended at once: ' + log.read().strip().rpartition('\n')[2]


def unfit():
  """Why the engine cannot hold an image of one file; None where it can."""
  archive = io.BytesIO()
  with tarfile.open(fileobj=archive, mode='w') as tar:
    tar.addfile(tarfile.TarInfo('file'))
  tried = subprocess.run([DOCKER, 'import', '-'], input=archive.getvalue(), capture_output=True, check=False)
  if tried.returncode != 0:
    return 'the Docker engine cannot unpack an image here: ' + tried.stderr.decode(errors='replace').strip()
  run(DOCKER, 'rmi', tried.stdout.decode().strip())
  return None


@pytest.fixture(name='engine', scope='session')
def _engine(tmp_path_factory):
  """A Docker engine with the workers' image; DOCKER_HOST names it. Without one, CI fails."""
  lacking = pytest.fail if os.environ.get('CI') else pytest.skip
  if not DOCKER:
    lacking('Docker is not installed: apt-get install docker.io')
  own, folder = None, None
  try:
    if run(DOCKER, 'info').returncode != 0:
      if os.getuid() != 0 or not os.path.exists(shutil.which('dockerd') or '/usr/sbin/dockerd'):
        lacking('no Docker engine answers at %s, and one is started by root only (apt-get install docker.io)' % (
            os.environ.get('DOCKER_HOST') or 'the default socket'))
      folder = str(tmp_path_factory.mktemp('dockerd'))
      os.environ['DOCKER_HOST'] = 'unix://%s/docker.sock' % folder
      own, why = own_engine(folder)
      if why:
        lacking(why)
    why = unfit()
    if why:
      lacking(why)
    built = run('docker/build.sh', 'cpu', IMAGE, env={'DOCKER': DOCKER})
    assert built.returncode == 0, built.stdout + built.stderr
    print(built.stdout)

    def client(*arguments):
      result = run(DOCKER, *arguments)
      assert result.returncode == 0, result.stderr
      return result.stdout.strip()
    yield client
  finally:
    if own:
      own.terminate()
      own.wait(30)
      os.environ.pop('DOCKER_HOST', None)
      # The engine leaves the namespace of the host's network there.
      subprocess.run(['umount', folder + '/exec/netns/default'], capture_output=True, check=False)
      shutil.rmtree(folder, ignore_errors=True)


def containers(docker):
  return docker('ps', '-aq', '--filter', 'label=purlin.service').split()


@pytest.fixture(name='expected')
def _expected():
  return rows(os.path.join(DATA, 'expected.csv'))


# The environments.


@pytest.mark.modes
@pytest.mark.parametrize('mode', ['run-process', 'run-external'])
def test_same_rows(mode, tmp_path, expected):
  ports = free_ports('JOB_PORT', 'ARTIFACT_PORT', 'EXPANSION_PORT', 'WORKER_POOL_PORT')
  output = tmp_path / 'classes.csv'
  result = run('make', mode, 'OUTPUT=%s' % output, env=ports)
  assert result.returncode == 0, result.stdout + result.stderr
  assert rows(output) == expected


@pytest.mark.parametrize('network', ['host', 'bridge'])
def test_same_rows_in_docker(network, tmp_path, expected, engine):
  ports = free_ports('JOB_PORT', 'ARTIFACT_PORT', 'EXPANSION_PORT')
  folder = tmp_path / 'out'
  folder.mkdir()
  # Another user's folder: nothing in it is root's afterwards.
  owner = 12345 if os.getuid() == 0 else os.getuid()
  os.chown(folder, owner, -1)
  parent = tmp_path
  while os.getuid() == 0 and parent != parent.parent and parent.owner() == 'root' and str(parent) != '/tmp':
    parent.chmod(0o755)
    parent = parent.parent
  result = run('make', 'run-docker', 'OUTPUT=%s/classes.csv' % folder, 'WORKER_IMAGE=' + IMAGE,
               'DOCKER_NETWORK=' + network, env=ports)
  assert result.returncode == 0, result.stdout + result.stderr
  assert rows(folder / 'classes.csv') == expected
  assert [path.stat().st_uid for path in folder.iterdir()] == [owner] * len(list(folder.iterdir()))
  assert '%s (read and write)' % folder in result.stdout + result.stderr
  assert 'examples/image-classification/data/images (read-only)' in result.stdout + result.stderr
  until('the end of the containers', lambda: not containers(engine))


def test_a_missing_image_names_the_command_that_builds_it(tmp_path, start, engine):
  assert engine
  job = start(service).endpoint
  text = said(classify(job, tmp_path / 'o', 'DOCKER', 'no-such-image:1', '--environment_options=docker_pull=never'))
  assert 'no-such-image:1' in text and 'make docker-cpu' in text


def test_no_engine_is_named(tmp_path, start):
  job = start(service, env=dict(os.environ, DOCKER_HOST='unix:///no/such.sock')).endpoint
  text = said(classify(job, tmp_path / 'o', 'DOCKER', 'image:1'))
  assert '/no/such.sock' in text and 'DOCKER_HOST' in text


def test_push_to_a_registry(tmp_path, start, engine):
  """The image that a registry has is the one that was pushed: pulled again, it runs."""
  registry = shutil.which('docker-registry')
  if not registry:
    (pytest.fail if os.environ.get('CI') else pytest.skip)('there is no registry: apt-get install docker-registry')
  port = free_ports('port')['port']
  (tmp_path / 'config.yml').write_text(
      'version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: localhost:%s\n' %
      (tmp_path / 'registry', port))
  log = (tmp_path / 'log').open('w')
  serving = subprocess.Popen([registry, 'serve', str(tmp_path / 'config.yml')], stdout=log, stderr=log)
  # Small: what is tested does not depend on libtorch.
  image, pushed = 'purlin-push-test:1', 'localhost:%s/team/purlin-push-test:1' % port
  try:
    (tmp_path / 'Dockerfile').write_text('FROM scratch\nCOPY boot /boot\nENTRYPOINT ["/boot"]\n')
    shutil.copy(os.path.join(ROOT, 'target', 'release', 'purlin-boot'), tmp_path / 'boot')
    engine('build', '-q', '-t', image, '--build-arg', 'AT=%d' % time.time(), str(tmp_path))
    def answers():
      assert serving.poll() is None, (tmp_path / 'log').read_text()
      with contextlib.suppress(OSError):
        return get('http://localhost:%s/v2/' % port)
      return None
    assert until('the registry', answers) == '{}'
    push = ['make', '--no-print-directory', 'push-docker-cpu', 'CPU_IMAGE=' + image]
    assert 'say where to: REGISTRY=' in said(run(*push, 'REGISTRY='))
    assert 'there is no image no-such:1; run: make docker-cpu' in said(run(*push[:-1], 'CPU_IMAGE=no-such:1', 'REGISTRY=localhost:' + port))
    result = run(*push, 'REGISTRY=localhost:%s/team/' % port)
    assert result.returncode == 0, result.stdout + result.stderr
    assert 'pushed ' + pushed in result.stdout
    assert json.loads(get('http://localhost:%s/v2/team/purlin-push-test/tags/list' % port)) == {
        'name': 'team/purlin-push-test', 'tags': ['1']}
    made = engine('image', 'inspect', '--format', '{{.Id}}', image)
    engine('image', 'rm', image, pushed)
    engine('pull', '-q', pushed)
    assert engine('image', 'inspect', '--format', '{{.Id}}', pushed) == made
    engine('image', 'rm', pushed)
  finally:
    serving.terminate()
    serving.wait(30)
    log.close()


# Workers that outlive their job.


def test_a_worker_is_kept_for_the_next_job(tmp_path, start, expected):
  running, hosts = start(service, '--worker_idle_timeout=10m'), start(pool)
  output = tmp_path / 'o'

  def workers_after(kind, to=output):
    result = classify(running.endpoint, to, kind, hosts.endpoint if kind == 'EXTERNAL' else '')
    assert result.returncode == 0, result.stderr
    assert rows(to) == expected
    to.unlink()
    return harnesses(hosts if kind == 'EXTERNAL' else running)

  for kind in ['PROCESS', 'EXTERNAL']:
    first, = workers_after(kind)
    assert workers_after(kind) == [first]
    # Another command line is another pipeline.
    both = workers_after(kind, to=tmp_path / 'other')
    assert len(both) == 2 and first in both
  until('two notes', lambda: running.log().count('of an earlier job') == 2)
  # One that dies while it waits is replaced.
  kill([first])
  gone([first])
  assert first not in workers_after('EXTERNAL')
  ours = harnesses(running) + harnesses(hosts)
  assert len(ours) == 4, ours
  running.stop()
  gone(ours)


def test_kept_workers_end_in_time(tmp_path, start, expected):
  running = start(service, '--worker_idle_timeout=100ms')
  result = classify(running.endpoint, tmp_path / 'o', 'PROCESS', '')
  assert result.returncode == 0, result.stderr
  assert rows(tmp_path / 'o') == expected
  until('the end of the worker', lambda: not below(running.process.pid))
  until('the reason', lambda: 'no job has had' in running.log())


def harnesses(program):
  """The harnesses that a program runs, without their supervisors."""
  return sorted(pid for pid, command in below(program.process.pid).items()
                if ('--id=' in command or 'sdk_worker_main' in command) and '--purlin-supervise' not in command)


# A value of the launcher's, a side input and state: nothing of the job before may be seen. The staged package is there.
REMEMBERS = """
import os, sys, apache_beam as b
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.userstate import CombiningValueStateSpec
n = int(os.environ['N'])
class Add(b.DoFn):
  SUM = CombiningValueStateSpec('sum', sum)
  def process(self, pair, total=b.DoFn.StateParam(SUM)):
    import staged_package
    total.add(pair[1] * staged_package.ONE)
    yield total.read()
with b.Pipeline(argv=sys.argv[1:]) as p:
  side = p | 'Side' >> b.Create([n])
  pairs = p | b.Create([('key', n)] * 3) | b.Reshuffle()
  assert_that(pairs | b.ParDo(Add()), equal_to([n, 2 * n, 3 * n]), 'state')
  assert_that(pairs | b.Map(lambda pair, s: (pair[1], s, n), b.pvalue.AsSingleton(side)), equal_to([(n, n, n)] * 3), 'side')
"""


def test_beams_python_workers_are_kept(start, tmp_path):
  """Beam's harness has the second job, and mixes nothing of the two up."""
  wheel = tmp_path / 'staged_package-1-py3-none-any.whl'
  with zipfile.ZipFile(wheel, 'w') as files:
    files.writestr('staged_package.py', 'ONE = 1\n')
    for name, text in {'METADATA': 'Metadata-Version: 2.1\nName: staged-package\nVersion: 1\n',
                       'WHEEL': 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n', 'RECORD': ''}.items():
      files.writestr('staged_package-1.dist-info/' + name, text)
  running = start(service, '--worker_idle_timeout=10m')
  command = json.dumps({'command': BOOT, 'env': {'PURLIN_PYTHON': PYTHON}})
  kept = None
  for n in ['1', '10']:
    result = run(PYTHON, '-c', REMEMBERS, '--runner=PortableRunner', '--job_endpoint=' + running.endpoint,
                 '--environment_type=PROCESS', '--environment_config=' + command, '--extra_package=%s' % wheel,
                 env={'N': n})
    assert result.returncode == 0, result.stdout + result.stderr
    workers = harnesses(running)
    no_tokens()
    assert workers and (kept is None or workers == kept), running.log()
    kept = workers
  running.stop()
  gone(kept)


# Faults. The worker is known to be amid its bundle by the processor time that it has had.


class Long:
  """A pipeline of many images, which takes its workers some seconds."""
  # Times that the shipped images are classified, and the seconds of processor time after which a worker is amid them:
  # it starts in less, and needs several times as much for all.
  TIMES = 500
  AMID = 2

  def __init__(self, folder, expected):
    with open(os.path.join(DATA, 'images.txt'), encoding='utf-8') as f:
      names = f.read().split()
    self.list = folder / 'many.txt'
    self.list.write_text('\n'.join(names * self.TIMES) + '\n')
    self.expected = sorted(expected * self.TIMES)
    self.output = folder / 'out' / 'classes.csv'
    self.output.parent.mkdir()
    self.name = 'job%d' % time.monotonic_ns()

  def launch(self, job, kind, config, *options):
    self.process = subprocess.Popen(
        [CLASSIFY, '--runner=PortableRunner', '--job_endpoint=' + job, '--job_name=' + self.name,
         '--environment_type=' + kind, '--environment_config=' + config, '--input=%s' % self.list,
         '--images_dir=%s/images' % DATA, '--output=%s' % self.output, '--model_name=digits_cnn',
         '--model_state_dict_path=%s/digits_cnn.safetensors' % DATA, '--labels=%s/labels.txt' % DATA, *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

  def workers(self):
    """The job's harnesses, also those in containers, without their supervisors."""
    return [pid for pid, (_, command) in processes().items()
            if '--id=' + self.name in command and '--purlin-supervise' not in command]

  def amid(self):
    """Waits until workers have done a part of their work; gives them."""
    no_tokens()
    def found():
      assert self.process.poll() is None, 'the pipeline ended: ' + self.process.stdout.read()
      workers = self.workers()
      return [pid for pid in workers if seconds_of(pid) > self.AMID] and workers
    return until('a worker that works', found)

  def finish(self):
    """The rows must be exact."""
    output, _ = self.process.communicate(timeout=180)
    assert self.process.returncode == 0, output
    assert rows(self.output) == self.expected
    until('the end of the workers', lambda: not self.workers())
    return output


def seconds_of(pid):
  """Processor time that a process has had."""
  with contextlib.suppress(OSError):
    with open('/proc/%d/stat' % pid, encoding='utf-8', errors='replace') as f:
      fields = f.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
  return 0


@pytest.fixture(name='long')
def _long(tmp_path, expected):
  long = Long(tmp_path, expected)
  yield long
  if getattr(long, 'process', None) and long.process.poll() is None:
    long.process.kill()
    long.process.wait()


def classify(job, output, kind, config, *options):
  return run(
      CLASSIFY, '--runner=PortableRunner', '--job_endpoint=' + job, '--environment_type=' + kind,
      '--environment_config=' + config, '--input=%s/images.txt' % DATA, '--images_dir=%s/images' % DATA,
      '--output=%s' % output, '--model_name=digits_cnn', '--model_state_dict_path=%s/digits_cnn.safetensors' % DATA,
      '--labels=%s/labels.txt' % DATA, *options)


def kill(pids, sent=signal.SIGKILL):
  for pid in pids:
    os.kill(pid, sent)


def gone(pids):
  until('the end of the workers', lambda: not any(alive(pid) for pid in pids))


def test_sigkill_of_a_process_amid_its_bundle(long, start):
  running = start(service)
  long.launch(running.endpoint, 'PROCESS', '')
  kill(long.amid())
  long.finish()
  until('its cause', lambda: 'it was killed' in running.log())
  until('the end of the workers', lambda: not below(running.process.pid))


def test_sigkill_of_a_pools_worker(long, start):
  running, hosts = start(service), start(pool)
  long.launch(running.endpoint, 'EXTERNAL', hosts.endpoint)
  kill(long.amid())
  long.finish()
  until('its cause', lambda: 'it was killed' in running.log())
  until('the end of the workers', lambda: not below(hosts.process.pid))


def test_sigkill_of_one_of_two_pools(long, start):
  running, first, second = start(service), start(pool), start(pool)
  long.launch(running.endpoint, 'EXTERNAL', '%s,%s' % (first.endpoint, second.endpoint))
  long.amid()
  host = first if below(first.process.pid) else second
  workers = list(below(host.process.pid))
  assert workers
  host.process.kill()
  host.process.wait()
  # Nobody else ends them: they, and their supervisors, know by the pool's end.
  gone(workers)
  long.finish()


def test_a_harness_that_hangs(long, start):
  running = start(service, '--worker_hang_timeout=5s')
  long.launch(running.endpoint, 'PROCESS', '')
  hung = long.amid()
  kill(hung, signal.SIGSTOP)
  gone(hung)
  long.finish()
  until('the reason', lambda: re.search('it hangs.* 5 s', running.log()))


def test_a_killed_container(long, start, engine):
  # No silence counts as a loss, and the harness cannot say how it ended: the engine, which is listened to, tells it.
  running = start(service, '--worker_hang_timeout=-1s')
  long.launch(running.endpoint, 'DOCKER', IMAGE)
  long.amid()
  container, = engine('ps', '-q', '--filter', 'label=purlin.service').split()
  engine('kill', container)
  lost = until('the loss to be noticed', lambda: re.search(
      r'^(\S+)Z .*worker lost: its container was killed \(exit status 137\)', running.log(), re.M))
  died = int(engine('events', '--since=1h', '--until=%d' % (time.time() + 1), '--filter=event=die', '--filter=container=' + container,
                    '--format={{.TimeNano}}')) / 1e9
  noticed = datetime.datetime.fromisoformat(lost.group(1) + '+00:00').timestamp()
  # No bound: a machine that does much else may take its time.
  print('the loss was noticed %.3f s after the end of the container' % (noticed - died))
  long.finish()
  until('the end of the containers', lambda: not containers(engine))


def test_a_container_is_kept_for_the_next_job(tmp_path, start, engine, expected):
  running = start(service, '--worker_idle_timeout=10m')

  def container_after():
    result = classify(running.endpoint, tmp_path / 'o', 'DOCKER', IMAGE)
    assert result.returncode == 0, result.stderr
    assert rows(tmp_path / 'o') == expected
    (tmp_path / 'o').unlink()
    container, = engine('ps', '-q', '--filter', 'label=purlin.service').split()
    return container

  first = container_after()
  assert container_after() == first
  until('a note', lambda: running.log().count('of an earlier job') == 1)
  # One that dies while it waits is replaced, whether the service knows of its end when the next job begins or not.
  engine('kill', first)
  second = container_after()
  assert second != first
  until('the end of the first container', lambda: containers(engine) == [second])
  running.stop()
  until('the end of the containers', lambda: not containers(engine))


def test_kept_containers_end_in_time(tmp_path, start, engine, expected):
  running = start(service, '--worker_idle_timeout=100ms')
  result = classify(running.endpoint, tmp_path / 'o', 'DOCKER', IMAGE)
  assert result.returncode == 0, result.stderr
  assert rows(tmp_path / 'o') == expected
  until('the end of the containers', lambda: not containers(engine))
  until('the reason', lambda: 'no job has had' in running.log())


def test_a_container_out_of_memory_is_named(tmp_path, start, engine):
  job = start(service).endpoint
  text = said(classify(job, tmp_path / 'o', 'DOCKER', IMAGE, '--environment_options=docker_memory=24M'))
  assert 'memory' in text and '24 MiB' in text
  until('the end of the containers', lambda: not containers(engine))


def test_what_a_crashed_service_left_is_swept(long, tmp_path, start, engine, expected):
  crashed = start(service)
  long.launch(crashed.endpoint, 'DOCKER', IMAGE)
  long.amid()
  assert containers(engine)
  crashed.process.kill()
  crashed.process.wait()
  long.process.wait(60)
  result = classify(start(service).endpoint, tmp_path / 'o', 'DOCKER', IMAGE)
  assert result.returncode == 0, result.stderr
  assert rows(tmp_path / 'o') == expected
  until('the end of the containers', lambda: not containers(engine))


def harness(folder, body):
  path = folder / 'harness.sh'
  path.write_text('#!/bin/sh\n%s\n' % body)
  path.chmod(0o755)
  return path


def test_a_worker_that_never_connects(tmp_path, start):
  job = start(service, '--worker_connect_timeout=5s').endpoint
  silent = harness(tmp_path, 'echo waiting for the moon >&2; exec sleep 1000')
  text = said(classify(job, tmp_path / 'o', 'PROCESS', str(silent)))
  assert 'did not connect' in text and 'waiting for the moon' in text
  # A pool's worker says it to the runner. (The pool would rather run the job's own program than its command.)
  hosts = start(pool, '--harness_command=%s' % silent)
  with beam_job(job, hosts.endpoint) as failed:
    assert 'did not connect' in failed and 'waiting for the moon' in failed
  until('the end of the workers', lambda: not below(hosts.process.pid))


def test_a_harness_that_dies_in_the_pool(tmp_path, start):
  job = start(service).endpoint
  hosts = start(pool, '--harness_command=%s' % harness(tmp_path, 'sleep 0.4; echo no module named moon; exit 3'))
  with beam_job(job, hosts.endpoint) as failed:
    assert 'exit status 3' in failed and 'no module named moon' in failed


@contextlib.contextmanager
def beam_job(job, address, *options, kind='EXTERNAL'):
  """What a small pipeline of Beam's Python SDK says, with workers of a pool or of another kind."""
  result = run(
      PYTHON, '-c', 'import sys, apache_beam as b\n'
      'with b.Pipeline(argv=sys.argv[1:]) as p: p | b.Create([1, 2]) | b.Map(lambda x: x + 1) | b.Map(print)',
      '--runner=PortableRunner', '--job_endpoint=' + job, '--environment_type=' + kind,
      '--environment_config=' + address, *options)
  yield result.stdout + result.stderr


def test_beams_python_harness_in_the_pool(start):
  job = start(service).endpoint
  hosts = start(pool, '--harness_command=%s --python=%s' % (BOOT, PYTHON))
  with beam_job(job, hosts.endpoint) as text:
    assert 'Traceback' not in text and 'RuntimeError' not in text, text
  until('the end of the workers', lambda: not below(hosts.process.pid))


def test_beams_own_python_is_all_that_a_pool_needs(start, tmp_path):
  job = start(service).endpoint
  # As `pip install apache-beam` leaves it, in a folder with a blank in its name.
  python = tmp_path / 'my venv'
  python.symlink_to(os.path.dirname(os.path.dirname(PYTHON)))
  python = python / 'bin' / 'python'
  hosts = start(pool, '--python=%s' % python)
  with beam_job(job, hosts.endpoint) as text:
    assert 'Traceback' not in text and 'RuntimeError' not in text, text
  until('the end of the workers', lambda: not below(hosts.process.pid))
  # A Python without Beam is named, and what to do.
  bare = start(pool, '--python=%s' % harness(tmp_path, 'echo "No module named apache_beam" >&2; exit 1'))
  with beam_job(job, bare.endpoint) as text:
    assert 'apache_beam' in text and '--python' in text, text


def test_beams_own_python_in_processes(start, tmp_path):
  job = start(service).endpoint
  blank = tmp_path / 'my venv'
  blank.symlink_to(os.path.dirname(os.path.dirname(PYTHON)))
  command = "%s --python='%s'" % (os.path.join(os.path.dirname(POOL), 'purlin-boot'), blank / 'bin' / 'python')
  with beam_job(job, json.dumps({'command': command}), kind='PROCESS') as text:
    assert 'Traceback' not in text and 'RuntimeError' not in text, text


def test_a_start_that_is_killed_is_made_again(start, tmp_path):
  job = start(service).endpoint
  boot = harness(tmp_path, 'mkdir %s 2>/dev/null && kill -9 $$; exec %s --python=%s "$@"' % (tmp_path / 'killed', BOOT, PYTHON))
  with beam_job(job, json.dumps({'command': str(boot)}), kind='PROCESS') as text:
    assert 'try 1 of 4' in text and 'RuntimeError' not in text, text


def test_a_killed_launcher_cancels_its_job(start, tmp_path):
  jobs = start(service)
  script = (
      'import sys, time, apache_beam as b\n'
      'def slow(x):\n'
      '  open(sys.argv[1], "w").close()\n'
      '  time.sleep(1000)\n'
      'with b.Pipeline(argv=sys.argv[2:]) as p: p | b.Create([1]) | b.Map(slow)')
  begun = tmp_path / 'begun'
  with subprocess.Popen(
      [PYTHON, '-c', script, str(begun), '--runner=PortableRunner', '--job_endpoint=' + jobs.endpoint,
       '--environment_type=LOOPBACK'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as launcher:
    try:
      until('the bundle', begun.exists)
    finally:
      launcher.kill()
  until('the end of the job', lambda: re.search(r'Cancelled', jobs.log()))
  assert 'the program that submitted the job is gone' in jobs.log()
  assert 'no worker pool answers' not in jobs.log()


def test_info_logs_of_workers_reach_a_client_that_asks(start):
  job = start(service).endpoint
  hosts = start(pool, '--python=%s' % PYTHON)
  script = (
      'import logging, sys, apache_beam as b\n'
      'logging.getLogger().setLevel(logging.INFO)\n'
      'def say(x):\n'
      '  import logging\n'
      '  logging.info("element %d %s", x, "of the worker")\n'
      'with b.Pipeline(argv=sys.argv[1:]) as p: p | b.Create([7]) | b.Map(say)')
  for options, told in (([], False), (['--default_sdk_harness_log_level=INFO'], True)):
    result = run(
        PYTHON, '-c', script, '--runner=PortableRunner', '--job_endpoint=' + job, '--environment_type=EXTERNAL',
        '--environment_config=' + hosts.endpoint, *options)
    assert result.returncode == 0, result.stderr
    assert ('element 7 of the worker' in result.stderr) == told, result.stderr


def test_sigkill_of_the_pool_leaves_nothing(tmp_path, start):
  # It hides a child in another session, which a signal to its group would miss.
  hidden = tmp_path / 'hidden'
  hosts = start(pool, '--harness_command=%s' % harness(
      tmp_path, 'setsid sleep 1001 & echo $! > %s; exec sleep 1002' % hidden))
  with beam_start(hosts.endpoint):
    until('the harness', lambda: hidden.exists() and hidden.read_text().strip())
    # (`setsid` forks where it leads a group.)
    ours = list(below(hosts.process.pid))
    assert any('sleep 1001' in command for command in below(hosts.process.pid).values())
    hosts.process.kill()
    hosts.process.wait()
    until('their end', lambda: not any(alive(pid) for pid in ours))


@contextlib.contextmanager
def beam_start(address):
  """A worker in the pool, asked for as a runner does."""
  script = (
      'import sys, grpc\n'
      'from apache_beam.portability.api import beam_fn_api_pb2 as m, beam_fn_api_pb2_grpc as g\n'
      'stub = g.BeamFnExternalWorkerPoolStub(grpc.insecure_channel(sys.argv[1]))\n'
      'print(stub.StartWorker(m.StartWorkerRequest(worker_id="w"), timeout=30).error)\n')
  result = run(PYTHON, '-c', script, address)
  assert result.stdout.strip() == '', result.stdout
  yield


def get(url):
  with urllib.request.urlopen(url, timeout=10) as response:
    return response.read().decode()


def test_health_and_metrics_and_the_memory_limit(tmp_path, start):
  # It fills its memory, a quarter of a mebibyte at a time.
  eat = harness(tmp_path, 'exec %s -c "import time\nx = []\nwhile True: x.append(bytearray(1 << 18)); time.sleep(0.001)"' %
                PYTHON)
  hosts = start(pool, '--harness_command=%s' % eat, '--worker_memory=64M', '--worker_cpus=1', '--max_workers=3')
  with beam_start(hosts.endpoint):
    health = json.loads(get('http://%s/health' % hosts.endpoint))
    assert (health['status'], health['max_workers']) == ('ok', 3)
    until('the end of the worker', lambda: 'purlin_pool_workers 0' in get('http://%s/metrics' % hosts.endpoint))
  metrics = get('http://%s/metrics' % hosts.endpoint)
  assert 'purlin_pool_workers_started_total 1' in metrics and 'purlin_pool_workers_died_total 1' in metrics
  until('the reason', lambda: '64 MiB are allowed' in hosts.log())


# Artifacts.


def staged_in(folder):
  """What is kept there; a service has a hidden folder for what it is receiving."""
  return [path for path in folder.iterdir() if not path.name.startswith('.')]


def test_an_artifact_changed_on_disk_is_staged_again(tmp_path, start, expected):
  artifacts, cache = tmp_path / 'artifacts', tmp_path / 'cache'
  job = start(service, '--artifacts_dir=%s' % artifacts, '--clean_artifacts_per_job=false').endpoint
  hosts = start(pool, '--artifacts_dir=%s' % cache)
  for turn in range(2):
    output = tmp_path / str(turn)
    result = classify(job, output, 'EXTERNAL', hosts.endpoint)
    assert result.returncode == 0, result.stderr
    assert rows(output) == expected
    until('the end of the workers', lambda: not below(hosts.process.pid))
    kept, = staged_in(artifacts)
    fetched, = (cache / 'cache').iterdir()
    assert kept.name == fetched.name
    for path in (kept, fetched):
      path.chmod(0o755)
      with open(path, 'r+b') as f:
        f.seek(1000)
        f.write(b'changed')


def test_a_full_disk_is_named(tmp_path, start, expected):
  def limit():
    # A write beyond is an error, as on a full disk.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

  # The pool cannot keep what it fetches.
  roomy = start(service)
  small = start(pool, '--artifacts_dir=%s' % (tmp_path / 'cache'), preexec_fn=limit)
  text = said(classify(roomy.endpoint, tmp_path / 'o', 'EXTERNAL', small.endpoint))
  assert 'cannot write artifact purlin-worker in %s' % (tmp_path / 'cache') in text, text
  assert 'disk full' in text and '--artifacts_dir' in text
  # The service cannot keep what it is sent: the launcher hears it, and not only that a stream has ended.
  folder = tmp_path / 'artifacts'
  full = start(service, '--artifacts_dir=%s' % folder, preexec_fn=limit)
  text = said(classify(full.endpoint, tmp_path / 'o', 'EXTERNAL', small.endpoint))
  assert re.search(r'cannot store artifact \S+ in %s: ' % re.escape(str(folder)), text), text
  assert 'disk full' in text and '--artifacts_dir' in text
  # Nothing is left of either, and both go on with what needs no room.
  assert not staged_in(folder)
  assert not [path for path in (tmp_path / 'cache').rglob('*') if path.is_file() and path.name != 'lock']
  result = classify(full.endpoint, tmp_path / 'o', 'PROCESS', '')
  assert result.returncode == 0, result.stderr
  assert rows(tmp_path / 'o') == expected


def test_many_jobs_leave_nothing(tmp_path, start):
  """50 jobs, a few at a time: no process, file descriptor, port or file is left."""
  if not os.environ.get('LONG_TESTS'):
    pytest.skip('LONG_TESTS=1 runs what takes minutes')
  temporary = tmp_path / 'tmp'
  temporary.mkdir()
  env = dict(os.environ, TMPDIR=str(temporary))
  running, hosts = start(service, env=env), start(pool, env=env)
  one = tmp_path / 'one.txt'
  with open(os.path.join(DATA, 'images.txt'), encoding='utf-8') as f:
    one.write_text(f.readline())

  def state():
    return [len(os.listdir('/proc/%d/fd' % p.process.pid)) for p in (running, hosts)]

  def files():
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(temporary) for name in names)

  def some(jobs, kind):
    for n in jobs:
      output = tmp_path / ('%s-%d' % (kind, n))
      result = run(
          CLASSIFY, '--runner=PortableRunner', '--job_endpoint=' + running.endpoint, '--environment_type=' + kind,
          '--environment_config=' + (hosts.endpoint if kind == 'EXTERNAL' else ''), '--input=%s' % one,
          '--images_dir=%s/images' % DATA, '--output=%s' % output, '--model_name=digits_cnn',
          '--model_state_dict_path=%s/digits_cnn.safetensors' % DATA, '--labels=%s/labels.txt' % DATA, env=env)
      if result.returncode != 0 or len(rows(output)) != 1:
        failed.append(result.stdout + result.stderr)

  failed = []
  some([100], 'EXTERNAL')
  some([100], 'PROCESS')
  assert not failed, failed[0]
  until('the end of the first workers', lambda: not below(running.process.pid) and not below(hosts.process.pid))
  before, files_before = state(), files()
  threads = [threading.Thread(target=some, args=(range(k, 48, 4), kind))
             for k, kind in enumerate(['EXTERNAL', 'PROCESS', 'EXTERNAL', 'PROCESS'])]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not failed, failed[0]
  until('the end of all workers', lambda: not below(running.process.pid) and not below(hosts.process.pid))
  # Connections close a little later than jobs end.
  until('as few descriptors as before', lambda: all(now <= was + 3 for now, was in zip(state(), before)))
  assert files() == files_before


# The reverse: this SDK's pipeline, with our pool, on runners that are not ours.


def other_runner(name, port):
  if name == 'python':
    return [PYTHON, os.path.join(ROOT, 'conformance', 'reference_job_service.py'), '-p', str(port)]
  return [prism_or_skip(), '--job_port=%d' % port, '--serve_http=false', '--log_kind=text']


@pytest.mark.parametrize('name', ['python', 'prism'])
def test_our_pool_on_another_runner(name, tmp_path, start, expected):
  port = int(free_ports('port')['port'])
  with open(tmp_path / 'log', 'w', encoding='utf-8') as log:
    other = subprocess.Popen(
        other_runner(name, port), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
  try:
    def answers():
      with contextlib.suppress(OSError), socket.create_connection(('localhost', port), 1):
        return True
      assert other.poll() is None, (tmp_path / 'log').read_text()
      return False
    until('port %d' % port, answers)
    hosts = start(pool)
    output = tmp_path / 'classes.csv'
    result = classify('localhost:%d' % port, output, 'EXTERNAL', hosts.endpoint)
    assert result.returncode == 0, result.stderr + (tmp_path / 'log').read_text()[-4000:]
    assert rows(output) == expected
  finally:
    os.killpg(other.pid, signal.SIGKILL)
    other.wait()
