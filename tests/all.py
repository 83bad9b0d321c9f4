#!/usr/bin/env python3
"""Everything that must pass. `make test` runs this.

    tests/all.py             all steps
    tests/all.py fmt clippy  some of them

Two lanes of steps run side by side, as neither keeps all cores busy: one builds and tests in the development profile, the other
builds the release binaries and uses them. Each line says which step it is of; the last line counts the tests of all steps.
"""
import concurrent.futures
import os
import re
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, 'third_party', 'venv', 'bin', 'python')

# All that is built only when asked for: what tests build is built with it, once.
WORKSPACE = ['--workspace', '--features', 'purlin/avro,purlin/parquet,purlin/object-store,purlin-job-service/object-store']
PYTEST = [VENV, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-rfEs', 'tests']

STEPS = {
    'fmt': ['cargo', 'fmt', '--all', '--check'],
    'clippy': ['cargo', 'clippy', '-q', *WORKSPACE, '--all-targets', '--', '-D', 'warnings'],
    'unit': ['cargo', 'test', *WORKSPACE, '--no-fail-fast'],
    'build': ['make', '--no-print-directory', 'build'],
    'conformance': ['python3', 'conformance/run.py'],
    'end-to-end': [*PYTEST, '-m', 'not docker'],
    'docker': ['tests/namespaces.py', *PYTEST, '-m', 'docker'],
}
LANES = [['fmt', 'clippy', 'unit', 'docker', 'end-to-end'], ['build', 'conformance']]
# The release binaries.
NEED_BUILD = ('docker', 'end-to-end')
built = threading.Event()
# Libraries that spread one test's work over all cores only slow down tests that run side by side.
ENV = dict(os.environ, OMP_NUM_THREADS='1', PYTHONUNBUFFERED='1')


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
  """A line on each failure: what cargo, pytest, conformance/run.py and the compiler print of it."""
  patterns = r'test (.* \.\.\. FAILED)$|(?:FAILED|ERROR) (.*)|  (\S+ \S+ \([\d.]+ s\): .*)|(error.*)|(SKIPPED .*)'
  found = (re.match(patterns, line) for line in output.splitlines())
  return [next(filter(None, match.groups()))[:500] for match in found if match]


def step(name):
  def say(text):
    print('%-11s | %s' % (name, text), flush=True)

  if name in NEED_BUILD:
    built.wait()
  say(' '.join(STEPS[name]).replace(ROOT + '/', ''))
  begin = time.time()
  process = subprocess.Popen(
      STEPS[name], cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
  output = []
  for line in process.stdout:
    output.append(line)
    # Cargo names every test; those that pass are only counted.
    if not re.match(r'test .* \.\.\. (ok|ignored)$|running \d+ tests?$|\s*$|\s*Doc-tests|\s*Running |\s*Compiling ', line):
      say(line.rstrip('\n'))
  passed, failed, skipped = count(''.join(output))
  if process.wait() != 0 and failed == 0:
    failed = 1
  if name in ('fmt', 'clippy', 'build') and process.returncode == 0:
    passed = 1
  if name == 'build':
    built.set()
  say('%s, %.0f s' % ('failed' if failed else 'passed', time.time() - begin))
  return (passed, failed, skipped), failures(''.join(output))


def main():
  names = sys.argv[1:] or list(STEPS)
  unknown = [name for name in names if name not in STEPS]
  if unknown:
    sys.exit('no step %s; there are %s' % (', '.join(unknown), ', '.join(STEPS)))
  if 'build' not in names:
    built.set()
  lanes = [[name for name in lane if name in names] for lane in LANES]
  with concurrent.futures.ThreadPoolExecutor(len(lanes)) as pool:
    done = pool.map(lambda lane: {name: step(name) for name in lane}, lanes)
    results = {name: result for lane in done for name, result in lane.items()}
  counts = {name: numbers for name, (numbers, _) in results.items()}
  # Last, where it is found: nobody reads the thousand lines before.
  for name, (_, lines) in results.items():
    for line in lines:
      print('%-12s %s' % (name, line))
  for name, (passed, failed, skipped) in counts.items():
    print('%-12s %4d passed %4d failed %4d skipped' % (name, passed, failed, skipped))
  passed, failed, skipped = (sum(column) for column in zip(*counts.values()))
  print('%d passed, %d failed, %d skipped' % (passed, failed, skipped))
  return 1 if failed else 0


if __name__ == '__main__':
  sys.exit(main())
