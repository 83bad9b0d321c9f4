#!/usr/bin/env python3
"""A Flink cluster to try jobs on that does not share this machine's network: `make create-flink-cluster`.

    setup/flink_cluster.py create --provider=local --flink=FOLDER --pool=PROGRAM
    setup/flink_cluster.py create --provider=dataproc|kubernetes [--confirm]
    setup/flink_cluster.py master [--given=HOST:PORT]
    setup/flink_cluster.py remove [--confirm]

local: a JobManager and two TaskManagers, each in a network namespace of its own, and a purlin-worker-pool on
port 5000 beside each TaskManager: what a cluster of three machines looks like to jobs. Needs root. Logs are in out/flink-cluster.
dataproc: the gcloud commands for a cluster of Google's, which are run with --confirm only.
kubernetes: writes out/flink-cluster/flink.yaml, for Flink's operator.
master: prints the address of the REST API of the cluster that was created. remove: ends exactly what create started.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(ROOT, 'out', 'flink-cluster')
RECORD = os.path.join(FOLDER, 'cluster.json')
LINK = 'purlin-flink'
NETWORK = '10.213.77'
REST_PORT = 8081
# Name of a machine and the last number of its address.
JOB_MANAGER = ('jm', 10)
TASK_MANAGERS = [('tm1', 11), ('tm2', 12)]


def fail(text):
  sys.exit('flink_cluster: ' + text)


def memory():
  """What Beam's runner needs of a TaskManager."""
  with open(os.path.join(ROOT, 'setup', 'flink-memory.conf'), encoding='utf-8') as f:
    return dict(line.strip().split(': ') for line in f if not line.startswith('#'))


def load():
  try:
    with open(RECORD, encoding='utf-8') as f:
      return json.load(f)
  except FileNotFoundError:
    return None


def save(record):
  os.makedirs(FOLDER, exist_ok=True)
  with open(RECORD + '.new', 'w', encoding='utf-8') as f:
    json.dump(record, f, indent=2)
  os.replace(RECORD + '.new', RECORD)


def ip(*words):
  done = subprocess.run(['ip', *words], capture_output=True, text=True, check=False)
  if done.returncode != 0:
    raise OSError('ip %s: %s' % (' '.join(words), done.stderr.strip()))


def started_at(pid):
  """When a process was started, in the kernel's ticks: with the pid, its identity. None: there is none."""
  try:
    with open('/proc/%d/stat' % pid, encoding='utf-8') as f:
      fields = f.read().rsplit(')', 1)[1].split()
      return None if fields[0] == 'Z' else fields[19]
  except (FileNotFoundError, ProcessLookupError):
    return None


class Local:
  """The cluster in network namespaces."""
  def __init__(self, record):
    self.record = record

  def create(self, flink, pool):
    if os.geteuid() != 0 or not shutil.which('ip'):
      fail('the local cluster needs root and the command ip (apt-get install iproute2), for network namespaces')
    for path in (os.path.join(flink, 'bin', 'jobmanager.sh'), pool):
      if not os.path.exists(path):
        fail('%s is missing; run `make setup-flink services`' % path)
    self.record.update(provider='local', namespaces=[], processes=[], master='%s.%d:%d' % (NETWORK, JOB_MANAGER[1], REST_PORT))
    save(self.record)
    try:
      self._network()
      self._processes(os.path.abspath(flink), os.path.abspath(pool))
      self._wait()
    except BaseException:
      self.remove()
      raise

  def _network(self):
    """A bridge in the JobManager's namespace joins all: in this machine's own a firewall, such as Docker's, could be in the way."""
    for name, number in [JOB_MANAGER, *TASK_MANAGERS]:
      namespace = '%s-%s' % (LINK, name)
      ip('netns', 'add', namespace)
      self.record['namespaces'].append(namespace)
      save(self.record)
      ip('-n', namespace, 'link', 'set', 'lo', 'up')
      if name == JOB_MANAGER[0]:
        hub = namespace
        ip('-n', hub, 'link', 'add', 'eth0', 'type', 'bridge')
      else:
        ip('-n', hub, 'link', 'add', name, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace)
        self._join(hub, name)
      ip('-n', namespace, 'addr', 'add', '%s.%d/24' % (NETWORK, number), 'dev', 'eth0')
      ip('-n', namespace, 'link', 'set', 'eth0', 'up')
    # It goes with the namespace that the other end is in.
    ip('link', 'add', LINK, 'type', 'veth', 'peer', 'name', 'host', 'netns', hub)
    self._join(hub, 'host')
    ip('addr', 'add', NETWORK + '.1/24', 'dev', LINK)
    ip('link', 'set', LINK, 'up')

  def _join(self, hub, device):
    ip('-n', hub, 'link', 'set', device, 'master', 'eth0')
    ip('-n', hub, 'link', 'set', device, 'up')

  def _processes(self, flink, pool):
    master = '%s.%d' % (NETWORK, JOB_MANAGER[1])
    settings = dict(
        memory(), **{
            'taskmanager.numberOfTaskSlots': '2',
            'jobmanager.rpc.address': master, 'rest.address': master, 'rest.bind-address': '0.0.0.0', 'rest.port': str(REST_PORT),
            'jobmanager.bind-host': '0.0.0.0', 'taskmanager.bind-host': '0.0.0.0', 'parallelism.default': '2',
            # Tasks on all machines, where there is room.
            'cluster.evenly-spread-out-slots': 'true',
        })
    self._start(JOB_MANAGER[0], 'jobmanager', [os.path.join(flink, 'bin', 'jobmanager.sh'), 'start-foreground'], settings)
    for name, number in TASK_MANAGERS:
      own = dict(settings, **{'taskmanager.host': '%s.%d' % (NETWORK, number), 'taskmanager.resource-id': name})
      self._start(name, 'taskmanager', [os.path.join(flink, 'bin', 'taskmanager.sh'), 'start-foreground'], own)
      self._start(name, 'pool', [pool, '--port=5000'], {})

  def _start(self, name, role, command, settings):
    data = os.path.join(FOLDER, name)
    os.makedirs(data, exist_ok=True)
    if settings:
      settings = dict(settings, **{'io.tmp.dirs': data, 'web.tmpdir': data})
    command = command + [word for key, value in settings.items() for word in ('-D', '%s=%s' % (key, value))]
    with open(os.path.join(FOLDER, '%s-%s.log' % (role, name)), 'w', encoding='utf-8') as log:
      process = subprocess.Popen(  # pylint: disable=consider-using-with
          ['ip', 'netns', 'exec', '%s-%s' % (LINK, name), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
          start_new_session=True, env=dict(os.environ, FLINK_LOG_DIR=data, TMPDIR=data))
    self.record['processes'].append({'pid': process.pid, 'started': started_at(process.pid), 'what': '%s of %s' % (role, name)})
    save(self.record)

  def _wait(self):
    url = 'http://%s/v1/overview' % self.record['master']
    deadline = time.time() + 120
    while True:
      try:
        with urllib.request.urlopen(url, timeout=5) as answer:
          if json.load(answer)['taskmanagers'] == len(TASK_MANAGERS):
            return
      except (OSError, ValueError):
        pass
      for process in self.record['processes']:
        if started_at(process['pid']) != process['started']:
          fail('the %s ended; the logs are in %s' % (process['what'], FOLDER))
      if time.time() > deadline:
        fail('the cluster is not ready after two minutes; the logs are in %s' % FOLDER)
      time.sleep(0.3)

  def remove(self):
    running = [p for p in self.record.get('processes', []) if started_at(p['pid']) == p['started']]
    for number in (signal.SIGTERM, signal.SIGKILL):
      for process in running:
        try:
          os.killpg(process['pid'], number)
        except ProcessLookupError:
          pass
      deadline = time.time() + 10
      while running and time.time() < deadline:
        running = [p for p in running if started_at(p['pid']) == p['started']]
        time.sleep(0.1)
    for namespace in self.record.get('namespaces', []):
      subprocess.run(['ip', 'netns', 'del', namespace], check=False)
    for name, _ in [JOB_MANAGER, *TASK_MANAGERS]:
      shutil.rmtree(os.path.join(FOLDER, name), ignore_errors=True)
    os.remove(RECORD)


def setting(name, default=''):
  return os.environ.get(name, '').strip() or default


class Dataproc:
  """Google's: a cluster with Flink and Docker, and the worker image on each machine."""
  name = 'purlin-flink'

  def __init__(self, record):
    self.record = record

  def commands(self):
    project, region = setting('GCP_PROJECT', 'YOUR_PROJECT'), setting('GCP_REGION', 'us-central1')
    image = setting('WORKER_IMAGE', 'purlin-worker-cpu:latest')
    place = ['--project=' + project, '--region=' + region]
    return [
        ['gcloud', 'dataproc', 'clusters', 'create', self.name, *place, '--optional-components=FLINK,DOCKER', '--num-workers=2',
         '--properties=^;^' + ';'.join('flink:%s=%s' % setting for setting in memory().items())],
        ['gcloud', 'compute', 'ssh', self.name + '-w-0', '--project=' + project, '--command', 'sudo docker pull ' + image],
        ['gcloud', 'compute', 'ssh', self.name + '-w-1', '--project=' + project, '--command', 'sudo docker pull ' + image],
        ['gcloud', 'compute', 'ssh', self.name + '-m', '--project=' + project, '--command',
         '. /usr/bin/flink-yarn-daemon; yarn application -list'],
    ]

  def create(self, confirm):
    if confirm and setting('GCP_PROJECT') == '':
      fail('GCP_PROJECT is empty: name your project in .env or on the command line')
    print('The commands for a cluster on Dataproc%s:' % ('' if confirm else ' (CONFIRM=1 runs them)'))
    for command in self.commands():
      print('  ' + ' '.join(command))
      if confirm:
        subprocess.run(command, check=True)
    print('The address of Flink is in the list of applications (Tracking-URL). To reach it from here:\n'
          '  gcloud compute ssh %s-m -- -L 8081:HOST:PORT\n'
          'and then: make run-portable-flink-cluster FLINK_MASTER=localhost:8081' % self.name)
    if confirm:
      self.record.update(provider='dataproc', master=None)
      save(self.record)

  def remove(self, confirm):
    command = ['gcloud', 'dataproc', 'clusters', 'delete', self.name, '--quiet', '--project=' + setting('GCP_PROJECT', 'YOUR_PROJECT'),
               '--region=' + setting('GCP_REGION', 'us-central1')]
    print('  ' + ' '.join(command))
    if not confirm:
      fail('CONFIRM=1 runs this command')
    subprocess.run(command, check=True)
    os.remove(RECORD)


KUBERNETES = """\
# A Flink session cluster for Flink's operator (flink.apache.org/v1beta1), with a worker pool beside each TaskManager.
#   kubectl apply -f flink.yaml
#   kubectl port-forward service/purlin-flink-rest 8081
#   make run-portable-flink-cluster FLINK_MASTER=localhost:8081
#   kubectl delete -f flink.yaml
apiVersion: flink.apache.org/v1beta1
kind: FlinkDeployment
metadata:
  name: purlin-flink
spec:
  image: flink:1.19
  flinkVersion: v1_19
  serviceAccount: flink
  flinkConfiguration:
    taskmanager.numberOfTaskSlots: "2"
{memory}
  jobManager:
    replicas: 1
    resource:
      cpu: 1
      memory: 2048m
  taskManager:
    replicas: 2
    resource:
      cpu: 2
      memory: {size}
    podTemplate:
      spec:
        containers:
          - name: flink-main-container
          - name: worker-pool
            image: {image}
            command: ["/opt/purlin/worker-pool"]
            ports:
              - containerPort: 5000
"""


def kubernetes():
  os.makedirs(FOLDER, exist_ok=True)
  path = os.path.join(FOLDER, 'flink.yaml')
  settings = memory()
  # The operator makes this setting of the memory that the machine is given.
  size = settings.pop('taskmanager.memory.process.size')
  lines = ['    %s: "%s"' % one for one in settings.items()]
  with open(path, 'w', encoding='utf-8') as f:
    f.write(KUBERNETES.format(image=setting('WORKER_IMAGE', 'purlin-worker-cpu:latest'), size=size, memory='\n'.join(lines)))
  print('%s is written; its first lines say what to run' % os.path.relpath(path))


def create(args):
  record = load()
  if args.provider == 'kubernetes':
    return kubernetes()
  if record:
    fail('there is a cluster already (%s); `make remove-flink-cluster` ends it' % record['provider'])
  if args.provider == 'dataproc':
    return Dataproc({}).create(args.confirm)
  record = {}
  Local(record).create(args.flink, args.pool)
  print('Flink listens on %s, with a worker pool beside each of its %d TaskManagers; logs are in %s' % (
      record['master'], len(TASK_MANAGERS), os.path.relpath(FOLDER)))
  return None


def master(args):
  record = load()
  address = args.given or (record or {}).get('master')
  if not address:
    fail('no cluster is known: `make create-flink-cluster` starts one on this machine, and FLINK_MASTER=HOST:PORT names yours')
  print(address)


def remove(args):
  record = load()
  if not record:
    fail('there is no cluster that create-flink-cluster started')
  if record['provider'] == 'dataproc':
    Dataproc(record).remove(args.confirm)
  else:
    Local(record).remove()
  print('the cluster is removed')


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('action', choices=['create', 'master', 'remove'])
  parser.add_argument('--provider', choices=['local', 'dataproc', 'kubernetes'], default='local')
  parser.add_argument('--flink', default='third_party/flink/dist')
  parser.add_argument('--pool', default='target/release/purlin-worker-pool')
  parser.add_argument('--given', default='')
  parser.add_argument('--confirm', action='store_true')
  args = parser.parse_args()
  {'create': create, 'master': master, 'remove': remove}[args.action](args)


if __name__ == '__main__':
  main()
