#!/usr/bin/env python3
"""Measures Purlin's job service beside its peers: Beam's Python job service, and Prism where its binary is found.

    benches/job_service.py                      every load on every service, three times
    benches/job_service.py wordcount --repeat 5
    benches/job_service.py gbk pardo --services purlin python
    benches/job_service.py --list

Run it with a Python that has apache-beam (third_party/venv/bin/python). Prism is taken from the variable PRISM, or as
`prism` on PATH. Each measurement starts its service anew; the services take turns, so that what disturbs the machine
disturbs all. Wall is the client's, in seconds from the program's first line after its imports to its end; CPU seconds
are what the service used since it was ready (user and system, its children included); peak is its largest resident
memory (VmHWM). Tables hold medians. Logs go to target/bench-logs. Exits with 1 if a run fails, not if it is slow.
"""
import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
LOGS = os.path.join(ROOT, 'target', 'bench-logs')
PURLIN = os.environ.get('JOB_SERVICE', os.path.join(ROOT, 'target', 'release', 'purlin-job-service'))
PRISM = os.environ.get('PRISM') or shutil.which('prism')
TICKS = os.sysconf('SC_CLK_TCK')
LIMIT = 600

SERVICES = {
    'purlin': lambda port: [
        PURLIN, '--job_port=%d' % port, '--serve_http=false', '--log_level=warn'],
    'python': lambda port: [
        sys.executable, os.path.join(ROOT, 'conformance', 'reference_job_service.py'), '-p', str(port)],
    'prism': lambda port: [PRISM, '-job_port=%d' % port, '-serve_http=false', '-log_level=warn'],
}

# The limits of purlin's figure, as a share of the peer's.
TARGETS = {('cpu', 'python'): 0.3, ('cpu', 'prism'): 0.5, ('peak', 'python'): 1 / 3, ('peak', 'prism'): 1 / 3}


def load_test(module, options):
  def command(pipeline_options, args):
    source = {'num_records': args.records, 'key_size': 10, 'value_size': 90}
    given = '%s %s --input_options=\'%s\'' % (' '.join(pipeline_options), options, json.dumps(source))
    return ['apache_beam.testing.load_tests.' + module, '--test-pipeline-options=' + given]
  return command


def wordcount(pipeline_options, args):
  return [os.path.join(HERE, 'wordcount.py'), str(args.words), *pipeline_options]


def timers(pipeline_options, args):
  return [os.path.join(HERE, 'timers.py'), str(args.timers), *pipeline_options]


LOADS = {
    'wordcount': wordcount,
    'timers': timers,
    'gbk': load_test('group_by_key_test', '--fanout=1 --iterations=1'),
    'pardo': load_test('pardo_test', '--iterations=5 --number_of_counters=1 --number_of_counter_operations=1'),
}


def free_port():
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    return probe.getsockname()[1]


def family(pid):
  """A process and all below it."""
  found = [pid]
  for one in found:
    try:
      for task in os.listdir('/proc/%d/task' % one):
        with open('/proc/%d/task/%s/children' % (one, task)) as children:
          found.extend(int(child) for child in children.read().split())
    except OSError:
      pass
  return found


def cpu_seconds(pid):
  """User and system time of a process, of its ended children, and of all that live below it."""
  total = 0
  for one in family(pid):
    try:
      with open('/proc/%d/stat' % one) as stat:
        fields = stat.read().rsplit(')', 1)[1].split()
      total += sum(int(ticks) for ticks in fields[13:15]) / TICKS
      # The process's own clock: the ticks in its `stat` are counted by samples, which miss what sleeps and wakes often.
      total += time.clock_gettime(~one << 3 | 2)
    except OSError:
      continue
  return total


def peak_mib(pid):
  total = 0
  for one in family(pid):
    try:
      with open('/proc/%d/status' % one) as status:
        total += int(re.search(r'VmHWM:\s+(\d+) kB', status.read()).group(1))
    except (OSError, AttributeError):
      continue
  return total / 1024


class Service:
  """A job service, started and ready."""
  def __init__(self, name, log):
    self.port = free_port()
    self.log = open(log, 'w')
    self.process = subprocess.Popen(
        SERVICES[name](self.port), stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)
    deadline = time.monotonic() + 60
    while True:
      try:
        socket.create_connection(('localhost', self.port), 1).close()
        break
      except OSError:
        if self.process.poll() is not None or time.monotonic() > deadline:
          self.__exit__()
          sys.exit('%s did not start; see %s' % (name, log))
        time.sleep(0.05)
    time.sleep(0.2)
    self.before = cpu_seconds(self.process.pid)

  def __enter__(self):
    return self

  def figures(self):
    return {'cpu': cpu_seconds(self.process.pid) - self.before, 'peak': peak_mib(self.process.pid)}

  def __exit__(self, *_):
    if self.process.poll() is None:
      self.process.send_signal(signal.SIGTERM)
      try:
        self.process.wait(10)
      except subprocess.TimeoutExpired:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
    self.log.close()


class Pool:
  """Worker processes that run already."""
  def __init__(self, count):
    self.process = subprocess.Popen(
        [sys.executable, os.path.join(HERE, 'pool.py'), str(count)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    line = self.process.stdout.readline()
    if not line.startswith('POOL '):
      sys.exit('the worker pool did not start')
    self.address = line.split()[1]
    self.workers = family(self.process.pid)[1:]
    self.before = [cpu_seconds(worker) for worker in self.workers]

  def cpu(self):
    """What each worker process used since it was ready, in CPU seconds."""
    return [cpu_seconds(worker) - before for worker, before in zip(self.workers, self.before)]

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.process.stdin.close()
    try:
      self.process.wait(10)
    except subprocess.TimeoutExpired:
      self.process.kill()
      self.process.wait()


class RunFailed(Exception):
  pass


def client(command, log):
  """Runs a client; returns its output."""
  with open(log, 'w') as out:
    try:
      code = subprocess.run(
          [sys.executable, *command], stdout=out, stderr=subprocess.STDOUT, timeout=LIMIT, cwd=ROOT).returncode
    except subprocess.TimeoutExpired:
      raise RunFailed('still running after %d s; see %s' % (LIMIT, log)) from None
  if code:
    raise RunFailed('ended with %d; see %s' % (code, log))
  with open(log) as text:
    return text.read()


def measure(service_name, load, args, tag, extra):
  log = os.path.join(LOGS, '%s-%s-%s' % (load, service_name, tag))
  with Service(service_name, log + '.service.log') as service:
    options = ['--runner=PortableRunner', '--job_endpoint=localhost:%d' % service.port, *extra]
    output = client([os.path.join(HERE, 'timed.py'), *LOADS[load](options, args)], log + '.client.log')
    figures = service.figures()
  figures['wall'] = float(re.search(r'^SECONDS (\S+)$', output, re.M).group(1))
  print('  %-10s %-12s %-7s wall %6.2f s   cpu %6.2f s   peak %6.0f MiB' % (
      load, tag, service_name, figures['wall'], figures['cpu'], figures['peak']), flush=True)
  return figures


def median(runs, key):
  return statistics.median(run[key] for run in runs) if runs else float('nan')


def table(load, runs):
  """The medians of a load, and purlin's share of each peer's."""
  print('\n%s' % load)
  print('  %-8s %10s %10s %12s' % ('', 'wall s', 'cpu s', 'peak MiB'))
  middle = {
      name: {key: median(of, key) for key in ('wall', 'cpu', 'peak')} for name, of in runs.items() if of}
  for name, of in middle.items():
    print('  %-8s %10.2f %10.2f %12.0f' % (name, of['wall'], of['cpu'], of['peak']))
  own = middle.get('purlin')
  for name, of in middle.items():
    if name == 'purlin' or not own:
      continue
    shares = []
    for key in ('wall', 'cpu', 'peak'):
      share = own[key] / of[key] if of[key] else float('nan')
      target = TARGETS.get((key, name), 1.0)
      shares.append('%s %.2f (at most %.2f: %s)' % (key, share, target, 'met' if share <= target else 'MISSED'))
    print('  purlin / %-7s %s' % (name, '   '.join(shares)))


def compare(loads, names, args):
  """The loads with LOOPBACK workers; returns the number of failures."""
  failures = 0
  for load in loads:
    runs = {name: [] for name in names}
    for turn in range(args.repeat):
      for name in names:
        try:
          runs[name].append(
              measure(name, load, args, 'turn%d' % (turn + 1), ['--environment_type=LOOPBACK']))
        except RunFailed as failed:
          failures += 1
          print('  %s on %s: %s' % (load, name, failed), flush=True)
    table(load, runs)
  return failures


def workers(args):
  """Word count with one and with two worker processes that run already."""
  walls, busy = {1: [], 2: []}, {}
  for turn in range(args.repeat):
    for count, of in walls.items():
      with Pool(count) as pool:
        extra = ['--environment_type=EXTERNAL', '--environment_config=' + pool.address,
                 '--sdk_worker_parallelism=%d' % count]
        try:
          of.append(measure('purlin', 'wordcount', args, '%dx-turn%d' % (count, turn + 1), extra)['wall'])
          busy.setdefault(count, []).append(pool.cpu())
        except RunFailed as failed:
          print('  wordcount with %d workers: %s' % (count, failed), flush=True)
          return 1
  one, two = statistics.median(walls[1]), statistics.median(walls[2])
  share = two / one
  print('\nworkers: wordcount in %.2f s with one worker process, %.2f s with two: %.2f (at most 0.65: %s)' % (
      one, two, share, 'met' if share <= 0.65 else 'MISSED'))
  # Walls tell of the machine's other work too; these do not.
  for count, runs in busy.items():
    print('  CPU seconds of the worker processes, %d: %s' % (
        count, '; '.join(' + '.join('%.1f' % seconds for seconds in run) for run in runs)))
  return 0


def one_element(args):
  """A pipeline of one element, again and again on the same service."""
  log = os.path.join(LOGS, 'one-element')
  count = max(5, args.repeat)
  with Service('purlin', log + '.service.log') as service:
    try:
      output = client(
          [os.path.join(HERE, 'one_element.py'), 'localhost:%d' % service.port, str(count)], log + '.client.log')
    except RunFailed as failed:
      print('  one element: %s' % failed)
      return 1
  rows = [[float(value) for value in row] for row in re.findall(
      r'^MILLISECONDS whole (\S+) connected (\S+) bundles (\S+)$', output, re.M)]
  whole, connected, bundles = (statistics.median(column) for column in zip(*rows))
  print('\none element, from Run to the terminal state: %.0f ms; without the start of its worker %.0f ms, of which '
        'the worker spent %.0f ms in bundles (at most 50 ms: %s)' % (
            whole, connected, bundles, 'met' if connected <= 50 else 'MISSED'))
  return 0


def main():
  every = [*LOADS, 'workers', 'one-element']
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('what', nargs='*', metavar='LOAD', help='default: all of ' + ', '.join(every))
  parser.add_argument('--repeat', type=int, default=3, help='runs of each load on each service [3]')
  parser.add_argument('--services', nargs='+', choices=list(SERVICES), help='default: those that are found')
  parser.add_argument('--timers', type=int, default=5_000, help='timers of one key that fire [5000]')
  parser.add_argument('--words', type=int, default=5_000_000, help='words that are counted [5000000]')
  parser.add_argument('--records', type=int, default=500_000, help='records of the load tests [500000]')
  parser.add_argument('--list', action='store_true', help='name the loads')
  args = parser.parse_args()
  if args.list:
    print('\n'.join(every))
    return 0
  unknown = [what for what in args.what if what not in every]
  if unknown:
    parser.error('no load %s; there are %s' % (', '.join(unknown), ', '.join(every)))
  if not os.path.exists(PURLIN):
    sys.exit('%s is missing: run cargo build --release -p purlin-job-service' % PURLIN)
  names = args.services or ['purlin', 'python', *(['prism'] if PRISM else [])]
  if 'prism' in names and not PRISM:
    sys.exit('Prism is not found: name its binary in PRISM')
  if not args.services and not PRISM:
    print('Prism is left out: name its binary in PRISM')
  os.makedirs(LOGS, exist_ok=True)
  wanted = args.what or every
  failures = compare([load for load in wanted if load in LOADS], names, args)
  if 'workers' in wanted:
    failures += workers(args)
  if 'one-element' in wanted:
    failures += one_element(args)
  return 1 if failures else 0


if __name__ == '__main__':
  sys.exit(main())
