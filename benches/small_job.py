#!/usr/bin/env python3
"""Measures a small job, Beam's word count of 2,000 lines, on Purlin's job service, in Beam's in-process Python runner,
and on Prism where its binary is found.

    benches/small_job.py                 9 turns of each, as jobs of one Python process and as whole processes
    benches/small_job.py warm --turns 21
    benches/small_job.py whole --runners purlin in-process

Run it with a Python that has apache-beam (third_party/venv/bin/python), after `cargo build --release -p
purlin-job-service`. Prism is taken from the variable PRISM, or as `prism` on PATH. Services run before and between the
jobs; workers are LOOPBACK. The program is apache_beam.examples.wordcount, unmodified, with a file in and files out.

  warm    the wall of a job in a Python process that ran others before: what a runner costs beside the client's own
          start. Each runner has a process of its own; they take turns, job by job.
  whole   the wall of a process, from its start to its end. Its imports take a second or two whatever the runner.

Prints medians, and of each turn Purlin's share of each peer: their median counts, as what else the machine does disturbs
all of a turn alike. CPU is that of the Python process and of the service together. Exits with 1 if a run fails, not if
it is slow.
"""
import argparse
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import job_service

LINES = 2_000
# Purlin's wall as a share of the peer's, at most.
TARGETS = {'in-process': 1.10, 'prism': 0.50}
LIMIT = 120


def text(path):
  """Lines of ten words, of which some are frequent and most rare, as in a text; the same each time."""
  choose = random.Random(1)
  with open(path, 'w') as out:
    for _ in range(LINES):
      print(*('w%d' % int(5000 * choose.random() ** 3) for _ in range(10)), file=out)


def options(runner, services):
  if runner == 'in-process':
    return ['--runner=FnApiRunner']
  # With PortableRunner Beam's client runs `pip freeze` for each job first, whatever the service.
  return ['--runner=PrismRunner', '--environment_type=LOOPBACK',
          '--job_endpoint=localhost:%d' % services[runner].port]


def arguments(runner, services, folder):
  return ['--input=' + os.path.join(folder, 'text'), '--output=' + os.path.join(folder, runner, 'counts'),
          *options(runner, services)]


def check(folder, runner):
  """The words that a job counted, which must be all; clears its output."""
  counted = 0
  for name in os.listdir(os.path.join(folder, runner)):
    path = os.path.join(folder, runner, name)
    with open(path) as lines:
      counted += sum(int(line.rsplit(': ', 1)[1]) for line in lines)
    os.remove(path)
  if counted != 10 * LINES:
    sys.exit('%s counted %d words, not %d' % (runner, counted, 10 * LINES))


def jobs():
  """Runs a job for each line of stdin, and prints its wall in seconds."""
  from apache_beam.examples import wordcount
  print('READY', flush=True)
  for line in sys.stdin:
    begin = time.monotonic()
    wordcount.run(line.split('\t')[:-1], save_main_session=False)
    print('SECONDS %.4f' % (time.monotonic() - begin), flush=True)


class Warm:
  """A Python process that runs jobs."""
  def __init__(self, log):
    self.log = open(log, 'w')
    self.process = subprocess.Popen(
        [sys.executable, __file__, '--jobs'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
    self.expect('READY')

  def expect(self, word):
    for line in self.process.stdout:
      if line.startswith(word):
        return line.split()
    sys.exit('the process of the jobs ended; see ' + self.log.name)

  def job(self, given):
    self.process.stdin.write('\t'.join(given) + '\t\n')
    self.process.stdin.flush()
    return float(self.expect('SECONDS')[1])

  def cpu(self):
    return job_service.cpu_seconds(self.process.pid)

  def stop(self):
    self.process.stdin.close()
    try:
      self.process.wait(20)
    except subprocess.TimeoutExpired:
      self.process.kill()
      self.process.wait()
    self.log.close()


def warm(runners, services, folder, turns):
  processes = {runner: Warm(os.path.join(job_service.LOGS, 'small-%s.log' % runner)) for runner in runners}
  def service_cpu(runner):
    return job_service.cpu_seconds(services[runner].process.pid) if runner in services else 0
  walls, cpus = {runner: [] for runner in runners}, {runner: [] for runner in runners}
  try:
    for turn in range(-2, turns):
      for runner in runners:
        before = processes[runner].cpu() + service_cpu(runner)
        wall = processes[runner].job(arguments(runner, services, folder))
        cpu = processes[runner].cpu() + service_cpu(runner) - before
        check(folder, runner)
        # The first two are not counted.
        if turn >= 0:
          walls[runner].append(wall)
          cpus[runner].append(cpu)
  finally:
    for process in processes.values():
      process.stop()
  return walls, cpus


def whole(runners, services, folder, turns):
  walls = {runner: [] for runner in runners}
  for _ in range(turns):
    for runner in runners:
      begin = time.monotonic()
      log = os.path.join(job_service.LOGS, 'small-whole-%s.log' % runner)
      with open(log, 'w') as out:
        code = subprocess.run(
            [sys.executable, '-m', 'apache_beam.examples.wordcount', *arguments(runner, services, folder)], stdout=out,
            stderr=subprocess.STDOUT, timeout=LIMIT).returncode
      walls[runner].append(time.monotonic() - begin)
      if code:
        sys.exit('%s ended with %d; see %s' % (runner, code, log))
      check(folder, runner)
  return walls, None


def table(title, walls, cpus):
  print('\n' + title)
  for runner, of in walls.items():
    cpu = '   CPU %.3f s' % statistics.median(cpus[runner]) if cpus else ''
    print('  %-11s wall %.3f s (%.3f to %.3f)%s' % (runner, statistics.median(of), min(of), max(of), cpu))
  for peer, most in TARGETS.items():
    if peer in walls and 'purlin' in walls:
      share = statistics.median(own / other for own, other in zip(walls['purlin'], walls[peer]))
      print('  purlin / %-11s wall %.2f (at most %.2f: %s)' % (
          peer, share, most, 'met' if share <= most else 'MISSED'))


def main():
  parser = argparse.ArgumentParser(description=re.split('\n\n', __doc__)[0])
  parser.add_argument('what', nargs='*', metavar='WHAT', help='warm, whole; default: both')
  parser.add_argument('--turns', type=int, default=9, help='jobs of each runner that count [9]')
  parser.add_argument('--runners', nargs='+', choices=['purlin', *TARGETS], help='default: those that are found')
  parser.add_argument('--jobs', action='store_true', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.jobs:
    return jobs()
  ways = {'warm': warm, 'whole': whole}
  unknown = [what for what in args.what if what not in ways]
  if unknown:
    parser.error('there are warm and whole, not %s' % unknown[0])
  runners = args.runners or ['purlin', 'in-process', *(['prism'] if job_service.PRISM else [])]
  if 'purlin' in runners and not os.path.exists(job_service.PURLIN):
    sys.exit('%s is missing: run cargo build --release -p purlin-job-service' % job_service.PURLIN)
  if 'prism' in runners and not job_service.PRISM:
    sys.exit('Prism is not found: name its binary in PRISM')
  os.makedirs(job_service.LOGS, exist_ok=True)
  folder = tempfile.mkdtemp()
  services = {}
  try:
    text(os.path.join(folder, 'text'))
    for runner in runners:
      os.mkdir(os.path.join(folder, runner))
      if runner in job_service.SERVICES:
        services[runner] = job_service.Service(
            runner, os.path.join(job_service.LOGS, 'small-%s.service.log' % runner))
    for what in args.what or ways:
      walls, cpus = ways[what](runners, services, folder, args.turns)
      table('%s, %d turns' % (what, args.turns), walls, cpus)
  finally:
    for service in services.values():
      service.__exit__()
    shutil.rmtree(folder)
  return 0


if __name__ == '__main__':
  sys.exit(main())
