#!/usr/bin/env python3
"""What must pass, in two tiers: `make test` and `make test-all`. A third is for hand.

    tests/all.py first           shows that a checkout works
    tests/all.py second          all the rest, and nothing of the first again
    tests/all.py third           what takes long and few changes touch: ONNX, whose engine is ten minutes of compiling
    tests/all.py unit core       some steps
    tests/all.py --add=FILE ...  counts the tests that FILE says of an earlier call, too; --save=FILE writes such a file

Two lanes of steps run side by side, as none keeps all cores busy. Each line says which step it is of; then come what was skipped, a
table that says where the time went, what failed, and the count of the tests of all steps.

End-to-end tests run beside other work, and a few that fail there run once more, alone. Those that pass then are named, and count as
passed; their first outcome stands in the log.
"""
import argparse
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, 'third_party', 'venv', 'bin', 'python')

# How all that is tested is compiled: third-party crates once, with what is built only when asked for.
COMPILED = ['--release', '--config', 'tests/cargo.toml', '--workspace', '--exclude', 'purlin-onnx', '--exclude',
            'purlin-kafka', '--features',
            'purlin/avro,purlin/parquet,purlin/object-store,purlin-job-service/object-store,purlin-models/object-store,'
            'purlin-torch/text']
# ONNX, which few need, is built by a step of its own: tract is some forty crates.
ONNX = ['--release', '--config', 'tests/cargo.toml', '--package', 'purlin-onnx', '--features', 'purlin-onnx/onnxruntime']
# Kafka, which few need, is built by a step of its own, with the features that the SDK has elsewhere: librdkafka is a minute of C.
KAFKA = ['--release', '--config', 'tests/cargo.toml', '--package', 'purlin-kafka', '--features',
         'purlin/avro,purlin/parquet,purlin/object-store']
PYTEST = [VENV, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-rfEs', 'tests']
# Of Beam's suites: pipelines in batch and streaming, the rules of the model and what goes over the wire.
CORE = ['batch', 'streaming', 'model', 'wire']

STEPS = {
    # The first tier.
    'fmt': ['cargo', 'fmt', '--all', '--check'],
    'circles': ['python3', 'tests/circles.py'],
    'build': ['make', '--no-print-directory', 'build'],
    'build-tests': ['cargo', 'test', '-q', *COMPILED, '--no-run'],
    'unit': ['cargo', 'test', *COMPILED, '--no-fail-fast'],
    'modes': [*PYTEST, '-m', 'modes'],
    'core': ['python3', 'conformance/run.py', *CORE],
    # The second.
    'clippy': ['python3', 'tests/lints.py'],
    'package': ['cargo', 'package', '-q', '--workspace', '--no-verify', '--allow-dirty'],
    'docs': ['python3', 'tests/docs.py'],
    'no-std': ['setup/no_std.sh'],
    'onnx': ['tests/onnx.py'],
    'kafka': ['tests/rare.py', 'kafka'],
    'deny': ['setup/deny.sh', 'check', 'bans', 'licenses', 'sources'],
    'simulation': ['cargo', 'test', *COMPILED, '--no-fail-fast', '--test', 'sim'],
    'fuzz': ['fuzz/run.sh', 'all', '-max_total_time=20'],
    'end-to-end': [*PYTEST, '-m', 'not docker and not modes'],
    'docker': ['tests/namespaces.py', *PYTEST, '-m', 'docker'],
    'suites': ['python3', 'conformance/run.py', '--but=' + ','.join(CORE), 'java', 'all'],
}
# Each tier's lanes. Cargo builds one thing at a time: in a tier, what calls it is in one lane, or waits.
TIERS = {
    'first': [['fmt', 'circles', 'build', 'build-tests', 'unit'], ['core', 'modes']],
    'second': [['clippy', 'docs', 'package', 'no-std', 'kafka', 'simulation', 'fuzz', 'end-to-end'], ['suites', 'deny', 'docker']],
    'third': [['onnx']],
}
# What a step waits for where both are called for: `core` for the programs, and what calls cargo in a second lane, for the builds
# that take long: it would wait for them in the middle of a test.
AFTER = {'core': 'build', 'modes': 'build-tests'}
# Steps that are one check each.
CHECKS = ('fmt', 'circles', 'build', 'build-tests', 'clippy', 'docs', 'package', 'no-std', 'deny', 'fuzz')
# Libraries that spread one test's work over all cores only slow down tests that run side by side.
ENV = dict(os.environ, OMP_NUM_THREADS='1', PYTHONUNBUFFERED='1')
MORE = {
    'simulation': {'SIM_SEEDS': '5000'},
}
# So many tests that failed beside other work run once more, alone; more of them say that something is broken.
MOST_AGAIN = 3
ended = {name: threading.Event() for name in STEPS}


def count(output):
  """(passed, failed, skipped) of what cargo, pytest and our own runners print."""
  passed = failed = skipped = 0
  for line in output.splitlines():
    cargo = re.match(r'test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored', line)
    ours = re.match(r'(\d+) passed, (\d+) failed, (\d+) skipped$', line)
    pytest = re.match(r'(?=.*\bin [\d.]+s)=*\s*(\d+ (passed|failed|skipped|error).*)', line)
    if cargo or ours:
      numbers = (cargo or ours).groups()
      passed, failed, skipped = passed + int(numbers[0]), failed + int(numbers[1]), skipped + int(numbers[2])
    elif pytest:
      for number, what in re.findall(r'(\d+) (passed|failed|skipped|errors?)', pytest.group(1)):
        if what == 'passed':
          passed += int(number)
        elif what == 'skipped':
          skipped += int(number)
        else:
          failed += int(number)
  return passed, failed, skipped


def failures(output):
  """A line on each failure and skip: what cargo, pytest, conformance/run.py and the compiler print of it."""
  patterns = r'test (.* \.\.\. FAILED)$|(?:FAILED|ERROR) (.*)|  (\S+ \S+ \([\d.]+ s\): .*)|(error.*)|(SKIPPED .*)|(skipped: .*)|  (\S+: nothing ran: .*)'
  found = (re.match(patterns, line) for line in output.splitlines())
  return [next(filter(None, match.groups()))[:500] for match in found if match]


def failed_tests(output):
  """The tests that pytest's summary names as failed."""
  found = (re.match(r'(?:FAILED|ERROR) (tests/\S+::.*?)(?: - .*)?$', line) for line in output.splitlines())
  return [match.group(1) for match in found if match]


def parts(output):
  """(name, seconds, tests) of the test programs and suites of a step, as cargo and conformance/run.py tell them."""
  found, name = [], ''
  for line in output.splitlines():
    program = re.match(r'\s+Running .*\((?:\S*/)?(\S+?)(?:-[0-9a-f]{16})?\)', line) or re.match(r'\s+Doc-tests (\S+)', line)
    ended = re.match(r'test result: \w+\. (\d+) passed; (\d+) failed; .*finished in ([\d.]+)s', line)
    suite = re.match(r'(\S+): (\d+) as expected, (\d+) not, \d+ skipped, (\d+) s', line)
    if program:
      name = ('docs of ' if 'Doc-tests' in line else '') + program.group(1)
    elif ended:
      found.append((name, float(ended.group(3)), int(ended.group(1)) + int(ended.group(2))))
    elif suite:
      found.append((suite.group(1), float(suite.group(4)), int(suite.group(2)) + int(suite.group(3))))
  return found


class Step:
  """A step that ran: its counts, what it told of failures, how long it and its parts took."""
  def __init__(self, name):
    self.name = name
    begin = time.time()
    command = STEPS[name]
    output, code = self._run(command)
    passed, failed, skipped = count(output)
    self.failures, self.parts, self.passed_alone = failures(output), parts(output), []
    again = failed_tests(output)
    if again and len(again) == failed and failed <= MOST_AGAIN:
      # As before, but for the tests that it names.
      second, code = self._run([*command[:command.index('tests')], *again])
      self.passed_alone = [test for test in again if test not in failed_tests(second)] if count(second)[0] else []
      passed, failed = passed + len(self.passed_alone), failed - len(self.passed_alone)
      self.failures += failures(second)
    if code != 0 and failed == 0:
      failed = 1
    if name in CHECKS and code == 0:
      passed, skipped = (0, 1) if re.search('^skipped: ', output, re.MULTILINE) else (1, 0)
    self.counts = passed, failed, skipped
    self.seconds = time.time() - begin
    self._say('%s, %.0f s' % ('failed' if failed else 'passed', self.seconds))

  def _run(self, command):
    """What a command prints, and its exit status."""
    self._say(' '.join(command).replace(ROOT + '/', ''))
    process = subprocess.Popen(
        command, cwd=ROOT, env=ENV | MORE.get(self.name, {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors='replace')
    lines = []
    for line in process.stdout:
      lines.append(line)
      # Cargo names every test; those that pass are only counted.
      if not re.match(r'test .* \.\.\. (ok|ignored)$|running \d+ tests?$|\s*$|\s*Doc-tests|\s*Running |\s*Compiling ', line):
        self._say(line.rstrip('\n'))
    return ''.join(lines), process.wait()

  def _say(self, text):
    print('%-11s | %s' % (self.name, text), flush=True)


def run(names):
  """Runs steps in the order of their lanes."""
  def lane_of(lane):
    done = []
    for name in lane:
      if AFTER.get(name) in names:
        ended[AFTER[name]].wait()
      done.append(Step(name))
      ended[name].set()
    return done

  lanes = [[name for name in lane if name in names] for tier in TIERS.values() for lane in tier]
  with concurrent.futures.ThreadPoolExecutor(len(lanes)) as pool:
    return [step for lane in pool.map(lane_of, lanes) for step in lane]


def table(steps):
  """Where the time went: each step, and those of its parts that took longest."""
  rows = []
  for step in steps:
    rows.append((step.name, step.seconds, *step.counts))
    for name, seconds, tests in sorted(step.parts, key=lambda part: -part[1])[:12]:
      if seconds >= 5:
        rows.append(('  ' + name, seconds, tests, '', ''))
  print('%-32s %7s %7s %7s %7s' % ('step', 'seconds', 'passed', 'failed', 'skipped'))
  for name, seconds, *counts in rows:
    print('%-32s %7.0f %7s %7s %7s' % (name, seconds, *counts))


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('names', nargs='+', metavar='STEP', help='first, second, third, or of %s' % ', '.join(STEPS))
  parser.add_argument('--add', metavar='FILE')
  parser.add_argument('--save', metavar='FILE')
  args = parser.parse_args()
  unknown = [name for name in args.names if name not in STEPS | TIERS]
  if unknown:
    parser.error('no step %s' % ', '.join(unknown))
  names = {step for name in args.names for step in (sum(TIERS[name], []) if name in TIERS else [name])}
  begin = time.time()
  steps = run(names)
  told = [(step.name, line) for step in steps for line in step.failures]
  for name, line in told:
    if line.startswith(('SKIPPED', 'skipped')):
      print('%-12s %s' % (name, line))
  table(steps)
  # Last, where it is found: nobody reads the thousand lines before.
  for name, line in told:
    if not line.startswith(('SKIPPED', 'skipped')):
      print('%-12s %s' % (name, line))
  for step in steps:
    for test in step.passed_alone:
      print('%-12s passed when run alone: %s' % (step.name, test))
  print('%.1f minutes' % ((time.time() - begin) / 60))
  counts = [step.counts for step in steps]
  if args.add and os.path.exists(args.add):
    with open(args.add, encoding='utf-8') as f:
      earlier = json.load(f)
    print('before: %d passed, %d failed, %d skipped; both tiers:' % tuple(earlier))
    counts.append(earlier)
  passed, failed, skipped = (sum(column) for column in zip(*counts))
  if args.save:
    with open(args.save, 'w', encoding='utf-8') as f:
      json.dump([passed, failed, skipped], f)
  print('%d passed, %d failed, %d skipped' % (passed, failed, skipped))
  return 1 if failed else 0


if __name__ == '__main__':
  sys.exit(main())
