#!/usr/bin/env python3
"""Measures jobs on one Flink cluster: the Rust SDK by our job service beside Beam's Python SDK.

    benches/flink.py                    both, three turns
    benches/flink.py words --turns 5    word count of five million words: Rust beside Python, both by our service
    benches/flink.py start              the smallest job, Python by our service beside Python by Beam's own FlinkRunner

Run it with a Python that has apache-beam (third_party/venv/bin/python), after `make setup-flink services` and `cargo build --release -p
purlin --example count_words`. One TaskManager; workers are LOOPBACK; each takes its turn, after one that is not counted.

  words   the wall of a program, from its start to its end, and what of it was the job's, by Flink. Both programs make the same words
          and sum them per key; Beam's Python SDK lifts combiners before it submits, as Rust's does. Once of as many distinct words
          as a text has, once with every fifth word distinct: then Flink's own shuffle, which is the same for both, counts for more.
  start   from Run to Flink's state RUNNING, and to the end, of a pipeline of one element. FlinkRunner sends Beam's runner along in an
          `uber jar`; our service does not, as the cluster is on its machine and reads its files.

Prints medians. Exits with 1 if a run fails, not if it is slow.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, HERE)
from job_service import free_port  # pylint: disable=wrong-import-position

JAR = os.path.join(ROOT, 'third_party', 'flink', 'job-server.jar')
SERVICE = os.path.join(ROOT, 'target', 'release', 'purlin-job-service')
RUST = os.path.join(ROOT, 'target', 'release', 'examples', 'count_words')
WORDS, WORDS_A_LINE, LINES_A_BLOCK = 5_000_000, 5, 1000
# Of a text of that length, and as many as there are lines.
DISTINCT = {'as a text has': 100_000, 'every fifth': WORDS // WORDS_A_LINE}


class Program:
  """A server, which has started when it says so."""
  def __init__(self, command, log):
    with open(log, 'w', encoding='utf-8') as out:
      self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=out, text=True)
    if not any('listens' in line for line in self.process.stdout):
      sys.exit('%s ended; see %s' % (command[0], log))
    subprocess.Popen(['cat'], stdin=self.process.stdout, stdout=subprocess.DEVNULL)

  def stop(self):
    self.process.terminate()
    self.process.wait()


class Cluster:
  """Flink, and our service in front of it."""
  def __init__(self, folder):
    rest, job = free_port(), free_port()
    self.rest, self.job = 'localhost:%d' % rest, 'localhost:%d' % job
    self.programs = [Program(['tests/flink-cluster.sh', 'third_party/flink/dist', str(rest), folder], os.path.join(folder, 'cluster'))]
    self.programs.append(Program(
        [SERVICE, '--job_port=%d' % job, '--artifact_port=0', '--expansion_port=0', '--serve_http=false', '--flink_master=' + self.rest,
         '--flink_job_server_jar=' + JAR], os.path.join(folder, 'service')))

  def get(self, path):
    with urllib.request.urlopen('http://%s/v1/%s' % (self.rest, path)) as answer:
      return json.load(answer)

  def newest(self):
    """Flink's word on the job that came last."""
    return max(self.get('jobs/overview')['jobs'], key=lambda job: job['start-time'])

  def stop(self):
    for program in reversed(self.programs):
      program.stop()


def check(found, expected):
  assert found == expected, '%d distinct words were counted, not %d' % (found, expected)


def count(arguments):
  """The program in Python: what sdk/examples/count_words.rs does."""
  import apache_beam as beam
  from apache_beam.options.pipeline_options import PipelineOptions
  parser = argparse.ArgumentParser()
  parser.add_argument('--distinct', type=int)
  args, arguments = parser.parse_known_args(arguments)
  distinct, lines = args.distinct, WORDS // WORDS_A_LINE

  def block(start):
    return ['w%d w%d w%d w%d common' % (i % 7, i % 101, i % 1009, i % distinct)
            for i in range(start * LINES_A_BLOCK, (start + 1) * LINES_A_BLOCK)]

  with beam.Pipeline(options=PipelineOptions(arguments)) as p:
    _ = (
        p
        | beam.Create(range(lines // LINES_A_BLOCK))
        | beam.Reshuffle()
        | 'Lines' >> beam.FlatMap(block)
        | 'Split' >> beam.FlatMap(str.split)
        | 'Pair' >> beam.Map(lambda word: (word, 1))
        | beam.CombinePerKey(sum)
        | 'Distinct' >> beam.combiners.Count.Globally()
        | 'Check' >> beam.Map(check, min(lines, distinct) + 1))


def smallest(arguments):
  """Runs a pipeline of one element, and prints the milliseconds since 1970 before Run."""
  import apache_beam as beam
  from apache_beam.options.pipeline_options import PipelineOptions
  # What is imported when a pipeline runs, so that the time is of the run alone.
  from apache_beam.runners.portability import flink_runner, portable_runner  # pylint: disable=unused-import
  from apache_beam.runners.worker import worker_pool_main  # pylint: disable=unused-import
  p = beam.Pipeline(options=PipelineOptions(arguments))
  _ = p | beam.Impulse() | beam.Map(lambda x: x)
  begin = time.time()
  result = p.run()
  result.wait_until_finish()
  print('TIMES %d %d' % (1000 * begin, 1000 * time.time()), flush=True)


def ran(command):
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
  if done.returncode != 0:
    sys.exit('%s failed:\n%s' % (' '.join(command), done.stderr[-3000:]))
  return done.stdout


def words(cluster, turns):
  for what, distinct in DISTINCT.items():
    words_of(cluster, turns, what, distinct)


def words_of(cluster, turns, what, distinct):
  on_ours = ['--runner=PortableRunner', '--job_endpoint=' + cluster.job, '--environment_type=LOOPBACK']
  programs = {
      'Rust': [RUST, '--words=%d' % WORDS, '--distinct=%d' % distinct, *on_ours],
      'Python': [sys.executable, os.path.abspath(__file__), '--run=count', '--distinct=%d' % distinct, *on_ours],
  }
  walls, jobs = {name: [] for name in programs}, {name: [] for name in programs}
  for turn in range(-1, turns):
    for name, command in programs.items():
      begin = time.monotonic()
      ran(command)
      wall = time.monotonic() - begin
      time.sleep(1)
      if turn >= 0:
        walls[name].append(wall)
        jobs[name].append(cluster.newest()['duration'] / 1000)
  print('\nword count of %d words, %d of them distinct (%s), %d turns' % (WORDS, distinct, what, turns))
  for name in programs:
    print('  %-7s wall %6.2f s (%.2f to %.2f), job %6.2f s' % (
        name, statistics.median(walls[name]), min(walls[name]), max(walls[name]), statistics.median(jobs[name])))
  for what, of in (('wall', walls), ('job', jobs)):
    ratio = statistics.median(of['Python']) / statistics.median(of['Rust'])
    print('  Python / Rust, %-5s %.1f (at least 4: %s)' % (what, ratio, 'met' if ratio >= 4 else 'MISSED'))


def start(cluster, turns):
  ways = {
      'our service': ['--runner=PortableRunner', '--job_endpoint=' + cluster.job],
      'FlinkRunner, uber jar': ['--runner=FlinkRunner', '--flink_master=' + cluster.rest, '--flink_job_server_jar=' + JAR,
                                '--flink_submit_uber_jar'],
  }
  to_running, to_end = {name: [] for name in ways}, {name: [] for name in ways}
  for turn in range(-1, turns):
    for name, options in ways.items():
      said = ran([sys.executable, os.path.abspath(__file__), '--run=smallest', '--environment_type=LOOPBACK', *options])
      begin, end = map(int, re.search(r'TIMES (\d+) (\d+)', said).groups())
      time.sleep(1)
      running = cluster.get('jobs/' + cluster.newest()['jid'])['timestamps']['RUNNING']
      if turn >= 0:
        to_running[name].append((running - begin) / 1000)
        to_end[name].append((end - begin) / 1000)
  print('\nthe smallest job, %d turns' % turns)
  for name in ways:
    print('  %-22s to RUNNING %5.2f s, to its end %5.2f s (%.2f to %.2f)' % (
        name, statistics.median(to_running[name]), statistics.median(to_end[name]), min(to_end[name]), max(to_end[name])))


def main():
  parser = argparse.ArgumentParser(description=re.split('\n\n', __doc__)[0])
  parser.add_argument('what', nargs='*', metavar='WHAT', help='words, start; default: both')
  parser.add_argument('--turns', type=int, default=3, help='runs of each that count [3]')
  parser.add_argument('--run', choices=['count', 'smallest'], help=argparse.SUPPRESS)
  args, rest = parser.parse_known_args()
  if args.run:
    return {'count': count, 'smallest': smallest}[args.run](rest)
  ways = {'words': words, 'start': start}
  unknown = rest + [what for what in args.what if what not in ways]
  if unknown:
    parser.error('there are words and start, not %s' % unknown[0])
  for path, how in ((JAR, 'make setup-flink'), (SERVICE, 'make services'), (RUST, 'cargo build --release -p purlin --example count_words')):
    if not os.path.exists(path):
      sys.exit('%s is missing: run %s' % (path, how))
  folder = tempfile.mkdtemp(prefix='flink-bench-')
  cluster = Cluster(folder)
  try:
    for what in args.what or ways:
      ways[what](cluster, args.turns)
  finally:
    cluster.stop()
  print('logs are in ' + folder)
  return 0


if __name__ == '__main__':
  sys.exit(main())
