#!/usr/bin/env python3
"""Runs Beam's own test suites against Purlin's binaries.

    conformance/run.py                    every suite
    conformance/run.py batch transcripts  some of them
    conformance/run.py batch -- -k test_pardo   with arguments for pytest
    conformance/run.py --jobs=1           one suite after the other (by default two at a time)
    conformance/run.py all java --but=batch   every suite that runs by default and one more, but not some
    conformance/run.py --list

A suite passes when exactly the tests that expected_failures.txt lists fail. The job service is started for each suite
on free ports and stopped after it. Logs and JUnit XML go to beam-suite-logs. The last line counts the tests.
"""
import argparse
import concurrent.futures
import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
LOGS = os.path.join(ROOT, 'beam-suite-logs')
PYTHON = os.environ.get('PY', os.path.join(ROOT, 'third_party', 'venv', 'bin', 'python'))
SERVICE = os.environ.get('JOB_SERVICE', os.path.join(ROOT, 'target', 'release', 'purlin-job-service'))
BOOT = os.path.join(os.path.dirname(SERVICE), 'purlin-boot')


class Service:
  """The job service under test, on ports of its own."""
  def __init__(self, name, *flags):
    os.makedirs(LOGS, exist_ok=True)
    self.log = os.path.join(LOGS, name + '.service.log')
    with open(self.log, 'w') as log:
      self.process = subprocess.Popen(
          [SERVICE, '--job_port=0', '--artifact_port=0', '--expansion_port=0', *flags],
          stdout=subprocess.PIPE, stderr=log, text=True)
    self.endpoint = self.web = None
    for line in self.process.stdout:
      found = re.search(r'(\S+:\d+)\s*$', line)
      if found and not self.endpoint and re.search('[Jj]ob', line):
        self.endpoint = found.group(1)
      elif found and 'Web' in line:
        self.web = found.group(1).removeprefix('http://')
        break
    if not self.endpoint:
      sys.exit('the job service did not start; see %s' % self.log)
    # What a suite needs besides; stopped with this.
    self.helpers = []
    # Its stdout must not fill up.
    self.drain = subprocess.Popen(['cat'], stdin=self.process.stdout, stdout=subprocess.DEVNULL)

  def stop(self):
    self.process.send_signal(signal.SIGTERM)
    try:
      code = self.process.wait(60)
    except subprocess.TimeoutExpired:
      self.process.kill()
      code = 'killed after 60 s'
    self.drain.wait(5)
    for helper in self.helpers:
      helper.stop()
    return code


def wheel():
  """The folder of the installed apache_beam."""
  return os.path.dirname(subprocess.check_output(
      [PYTHON, '-c', 'import importlib.util; print(importlib.util.find_spec("apache_beam").origin)'],
      text=True).strip())


def portable(keyword, **env):
  def command(service):
    return [os.path.join(HERE, 'test_job_endpoint.py'), '-k', keyword], dict(
        {'JOB_ENDPOINT': service.endpoint, 'ENVIRONMENT_TYPE': 'LOOPBACK'}, **env)
  return command


class Pool:
  """Beam's own worker pool: a process for each worker, which fetches what was staged as Beam's containers do."""
  def __init__(self, service, suite):
    self.log = os.path.join(LOGS, suite + '.pool.log')
    env = dict(os.environ, PYTHONPATH=HERE, PURLIN_PYTHON=PYTHON)
    with open(self.log, 'w') as log:
      self.process = subprocess.Popen(
          [PYTHON, '-u', '-c',
           'import sys\n'
           'from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer as Pool\n'
           'address, _ = Pool.start(use_process=True, container_executable=sys.argv[1])\n'
           'print(address, flush=True)\n'
           'sys.stdin.read()', BOOT],
          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=env, start_new_session=True)
    service.helpers.append(self)
    self.address = self.process.stdout.readline().strip()
    if not self.address:
      sys.exit('the worker pool did not start; see %s' % self.log)

  def stop(self):
    os.killpg(self.process.pid, signal.SIGKILL)
    self.process.wait()


def external(keyword):
  def command(service):
    pool = Pool(service, 'external')
    return portable(keyword, ENVIRONMENT_TYPE='EXTERNAL', ENVIRONMENT_CONFIG=pool.address)(service)
  return command


def process(keyword):
  """Workers are processes of the job service, which purlin-boot starts; launches stage an artifact too."""
  boot = {'command': BOOT, 'env': {'PURLIN_PYTHON': PYTHON, 'PYTHONPATH': HERE}}
  return portable(keyword, ENVIRONMENT_TYPE='PROCESS', ENVIRONMENT_CONFIG=json.dumps(boot),
                  EXTRA_PIPELINE_OPTIONS='--runner=PortableRunner')


def subprocess_sdk(keyword):
  return portable(keyword, ENVIRONMENT_TYPE='beam:env:harness_subprocess_python:v1',
                  ENVIRONMENT_CONFIG=PYTHON + ' -m apache_beam.runners.worker.sdk_worker_main')


def loopback(service):
  return '--runner=PortableRunner --job_endpoint=%s --environment_type=LOOPBACK' % service.endpoint


REAL_TIME = 'test_run_inference_with_side_inputin_streaming'


def validates_runner(only, *options):
  """All that Beam marks, also what it leaves out for Dataflow (no_sickbay_*). `only` is a pytest -k."""
  def command(service):
    files = subprocess.run(
        ['grep', '-rl', '--include=*_test.py', 'pytest.mark.it_validatesrunner', wheel()],
        capture_output=True, text=True, check=True).stdout.split()
    return ['-m', 'it_validatesrunner', '--rootdir=' + os.path.dirname(wheel()),
            '--test-pipeline-options=' + ' '.join([loopback(service), *options]), *sorted(files), '-k', only], {}
  return command


# Beam's tests besides those of its transforms: those that run pipelines which any runner can run.
SDK_TESTS = [
    'dataframe/schemas_test.py', 'examples/snippets/transforms', 'io/avroio_test.py', 'io/filebasedsource_test.py',
    'io/fileio_test.py', 'io/requestresponse_test.py', 'io/textio_test.py', 'io/unbounded_source_test.py',
    'ml/anomaly/transforms_test.py', 'pipeline_test.py', 'testing/test_stream_test.py',
    'testing/util_test.py', 'typehints/row_type_test.py', 'typehints/typed_pipeline_test.py',
]
# Of the tests of transforms all run but these.
NOT_TRANSFORMS = {
    'async_dofn_test.py': 'runs no pipeline: it looks at queues after sleeps, and fails on a busy machine',
    'core_it_test.py': 'wants the secret manager of Google Cloud',
    'enrichment_it_test.py': 'wants servers that a container engine starts',
    'external_transform_provider_it_test.py': "wants Java's expansion services",
    'managed_delta_it_test.py': "wants Java's expansion services",
    'managed_iceberg_it_test.py': "wants Java's expansion services",
    'periodicsequence_it_test.py': 'runs on Dataflow alone: it skips itself elsewhere',
    'sql_test.py': "wants Java's expansion services",
    'validate_runner_xlang_test.py': "wants Java's expansion services",
}


def sdk(service):
  transforms = os.path.join(wheel(), 'transforms')
  tests = [os.path.join(wheel(), *path.split('/')) for path in SDK_TESTS]
  tests += [os.path.join(transforms, name) for name in sorted(os.listdir(transforms))
            if name.endswith('_test.py') and name not in NOT_TRANSFORMS]
  return ['--rootdir=' + os.path.dirname(wheel()), '--test-pipeline-options=' + loopback(service), *tests], {}


# Beam's tests of RunInference and its engines, and the libraries that each needs; `name<2`: in a version before 2.
INFERENCE_TESTS = {
    'base_test.py': [],
    'utils_test.py': [],
    'sklearn_inference_test.py': ['sklearn'],
    'pytorch_inference_test.py': ['torch'],
    # A model that a newer XGBoost saves has lost the counter that the test put into it.
    'xgboost_inference_test.py': ['xgboost<2', 'datatable'],
    # Ours, as Beam 2.77 skips its own.
    'test_onnx.py': ['onnx', 'onnxruntime'],
}
# Names those of its arguments that are not there.
MISSING = '''
import importlib, importlib.util, sys
for wanted in sys.argv[1:]:
  name, _, before = wanted.partition('<')
  if not importlib.util.find_spec(name) or (
      before and int(importlib.import_module(name).__version__.split('.')[0]) >= int(before)):
    print(wanted)
'''
# Tests that are not for a runner with several slots: names, and why.
ONE_SLOT = {
    'test_run_inference_timeout_does_garbage_collection':
        'its elements last seconds and are shared out, and it waits for the collection of what one slot has used',
}


def inference(service):
  wanted = sorted({library for libraries in INFERENCE_TESTS.values() for library in libraries})
  missing = subprocess.check_output([PYTHON, '-c', MISSING, *wanted], text=True).split()
  tests = []
  for name, libraries in INFERENCE_TESTS.items():
    lacks = [library for library in libraries if library in missing]
    if lacks:
      python = os.path.relpath(PYTHON, ROOT)
      print('skipped: %s of the suite inference: %s lacks %s' % (name, python, ' and '.join(lacks)), flush=True)
    else:
      folder = HERE if name == 'test_onnx.py' else os.path.join(wheel(), 'ml', 'inference')
      tests.append(os.path.join(folder, name))
  return ['--rootdir=' + os.path.dirname(wheel()), '--test-pipeline-options=' + loopback(service), *tests,
          '-k', 'not (%s)' % ' or '.join(ONE_SLOT)], {}


def transcripts(service):
  return ['--rootdir=' + os.path.dirname(wheel()), '--test-pipeline-options=' + loopback(service),
          wheel() + '/transforms/trigger_test.py',
          '-k', 'WeakTestStreamTranscriptTest'], {}


def prism(_):
  return ['--rootdir=' + os.path.dirname(wheel()),
          '--test-pipeline-options=--prism_bin=%s --environment_type=LOOPBACK' % SERVICE,
          wheel() + '/runners/portability/prism_runner_test.py', '-k', 'PrismRunnerTest'], {}


def examples(service):
  return [os.path.join(HERE, 'test_examples.py'), '-o', 'python_functions=test_*'], {'JOB_ENDPOINT': service.endpoint}


def model(service):
  return [os.path.join(HERE, 'test_model.py'), '-o', 'python_functions=test_*'], {
      'JOB_ENDPOINT': service.endpoint}


def wire(service):
  return [os.path.join(HERE, 'test_wire.py'), '-k', 'WireTest'], {
      'JOB_ENDPOINT': service.endpoint, 'WEB_ENDPOINT': service.web, 'JOB_SERVICE': SERVICE}


def go(service):
  return [os.path.join(HERE, 'test_go.py'), '-o', 'python_functions=test_*', '-rs'], {'JOB_ENDPOINT': service.endpoint}


def java(service):
  return [os.path.join(HERE, 'test_java.py'), '-o', 'python_functions=test_*', '-rs'], {
      'JOB_ENDPOINT': service.endpoint, 'JOB_SERVICE': SERVICE}


def large(service):
  return [os.path.join(HERE, 'test_large.py'), '-k', 'LargeTest'], {'JOB_ENDPOINT': service.endpoint}


# In the order in which they run; a prism suite starts its own services.
SUITES = {
    # First, as it is the longest: the SDK is compiled for it.
    'go': (go, True),
    'inference': (inference, True),
    'examples': (examples, True),
    'model': (model, True),
    'batch': (portable('JobEndpointTest'), True),
    'unlifted': (portable('JobEndpointTest', PRE_OPTIMIZE='none'), True),
    'streaming': (portable('JobEndpointStreamingTest'), True),
    # In batch Beam itself skips the test in real time.
    'validatesrunner': (validates_runner('test'), True),
    'validatesrunner-streaming': (validates_runner('not ' + REAL_TIME, '--streaming'), True),
    'transcripts': (transcripts, True),
    'prism': (prism, False),
    'wire': (wire, True),
}

# Only when named.
ON_DEMAND = {
    # Each test starts Python processes, whose imports take seconds.
    'external': (external('JobEndpointTest'), True),
    'process': (process('JobEndpointTest'), True),
    'subprocess': (subprocess_sdk('JobEndpointTest'), True),
    # A quarter of an hour.
    'sdk': (sdk, True),
    # Fetches Beam's Java SDK from Maven Central.
    'java': (java, True),
    # LARGE_MIB=1945, which is all that gRPC passes, wants 18 GiB of memory: 14 for Python, 4 for the service.
    'large': (large, True),
    # Its source lasts 20 minutes, on any runner: it emits by the clock.
    'real-time': (validates_runner(REAL_TIME, '--streaming'), True),
}
TIME_LIMITS = {'real-time': 1500, 'sdk': 2400, 'large': 600, 'java': 600}


def expected(suite):
  with open(os.path.join(HERE, 'expected_failures.txt'), encoding='utf-8') as lines:
    rows = [line.split(None, 2) for line in lines if line.strip() and not line.startswith('#')]
  return {row[1] for row in rows if row[0] == suite}


def results(path):
  """(name, status, seconds, why) of each test of a JUnit file."""
  found = []
  for case in ElementTree.parse(path).getroot().iter('testcase'):
    name = case.get('classname', '').split('.')[-1] + '::' + case.get('name')
    status, why = 'passed', ''
    for tag in ('failure', 'error', 'skipped'):
      node = case.find(tag)
      if node is not None:
        status = 'skipped' if tag == 'skipped' else 'failed'
        why = re.sub(r'\s+', ' ', (node.get('message') or node.text or '').strip())[:300]
        if status == 'failed':
          # The end of the traceback says more than its message where a run cannot be repeated.
          why += ''.join('\n    ' + line for line in (node.text or '').strip().splitlines()[-12:])
        break
    found.append((name, status, float(case.get('time') or 0), why))
  return found


def joined(arguments, extra):
  """Arguments for pytest. Of several -k it would take the last one alone, and run tests of other suites.

  >>> joined(['test_job_endpoint.py', '-k', 'JobEndpointTest'], ['-x', '-k', 'test_pardo or test_read'])
  ['test_job_endpoint.py', '-x', '-k', '(JobEndpointTest) and (test_pardo or test_read)']
  >>> joined(['-k', 'not slow'], ['-kpardo', '-rs'])
  ['-rs', '-k', '(not slow) and (pardo)']
  >>> joined(['test_examples.py'], ['-x'])
  ['test_examples.py', '-x']
  """
  others, keywords = [], []
  words = iter([*arguments, *extra])
  for word in words:
    if word.startswith('-k'):
      keywords.append(word[2:].removeprefix('=') or next(words, ''))
    else:
      others.append(word)
  keywords = ' and '.join('(%s)' % keyword for keyword in keywords if keyword.strip())
  return [*others, '-k', keywords] if keywords else others


def run(suite, extra):
  """Runs a suite; returns (passed, failed, skipped) and prints what it has to say at once, as suites run side by side."""
  said = []
  command, serve = (SUITES | ON_DEMAND)[suite]
  service = Service(suite) if serve else None
  junit = os.path.join(LOGS, suite + '.xml')
  if os.path.exists(junit):
    os.remove(junit)
  os.makedirs(os.path.join(LOGS, 'tmp'), exist_ok=True)
  arguments, env = command(service)
  env = dict(os.environ, PYTHONPATH=HERE, TMPDIR=os.path.join(LOGS, 'tmp'),
             PATH=os.path.dirname(PYTHON) + os.pathsep + os.environ['PATH'], **env)
  limit = int(os.environ.get('SUITE_TIMEOUT', TIME_LIMITS.get(suite, 900)))
  begin = time.time()
  with open(os.path.join(LOGS, suite + '.log'), 'w') as log:
    pytest = subprocess.Popen(
        [PYTHON, '-m', 'pytest', '-c', os.path.join(HERE, 'pytest.ini'), '-q',
         '--timeout=' + os.environ.get('TEST_TIMEOUT', str(TIME_LIMITS.get(suite, 300))), '--junitxml=' + junit,
         *joined(arguments, extra)], cwd=HERE, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
      pytest.wait(limit)
    except subprocess.TimeoutExpired:
      os.killpg(pytest.pid, signal.SIGKILL)
      said.append('%s: cut off after %d s' % (suite, limit))
  code = service.stop() if service else 0
  if not os.path.exists(junit):
    said.append('%s: no result; see %s' % (suite, os.path.join(LOGS, suite + '.log')))
    print('\n'.join(said), flush=True)
    return 0, 1, 0
  rows = results(junit)
  listed = expected(suite)
  passed = failed = skipped = 0
  skips = set()
  for name, status, seconds, why in rows:
    if status == 'skipped':
      skipped += 1
      skips.add(why)
    elif (status == 'failed') == (name in listed):
      passed += 1
    else:
      failed += 1
      said.append('  %s %s (%.1f s): %s' % (
          suite, name, seconds,
          why if status == 'failed' else 'passed, though expected_failures.txt lists it: remove the line'))
  if code != 0:
    failed += 1
    said.append('  %s: the job service ended with %s; see its log' % (suite, code))
  if not rows:
    failed += 1
    said.append('  %s: no test ran' % suite)
  if rows and skipped == len(rows):
    said.append('  %s: nothing ran: %s' % (suite, '; '.join(sorted(skips))))
  said.append('%s: %d as expected, %d not, %d skipped, %.0f s' % (suite, passed, failed, skipped, time.time() - begin))
  print('\n'.join(said), flush=True)
  return passed, failed, skipped


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument(
      'suites', nargs='*', metavar='SUITE',
      help='default: all of %s; there is also %s' % (', '.join(SUITES), ', '.join(ON_DEMAND)))
  parser.add_argument('--jobs', type=int, default=2, metavar='N', help='so many suites at a time (default: %(default)s)')
  parser.add_argument('--but', default='', metavar='SUITE,...', help='not these')
  parser.add_argument('--list', action='store_true', help='name the suites')
  arguments = sys.argv[1:]
  extra = []
  if '--' in arguments:
    at = arguments.index('--')
    arguments, extra = arguments[:at], arguments[at + 1:]
  args = parser.parse_args(arguments)
  if args.list:
    print('\n'.join(SUITES | ON_DEMAND))
    return 0
  but = args.but.split(',') if args.but else []
  names = [name for suite in args.suites or ['all'] for name in (SUITES if suite == 'all' else [suite])]
  unknown = [s for s in names + but if s not in SUITES | ON_DEMAND]
  if unknown:
    parser.error('no suite %s; there are %s' % (', '.join(unknown), ', '.join(SUITES | ON_DEMAND)))
  if not os.path.exists(PYTHON):
    sys.exit('%s is missing: run setup/python.sh' % PYTHON)
  if not os.path.exists(SERVICE):
    sys.exit('%s is missing: run cargo build --release -p purlin-job-service' % SERVICE)
  with concurrent.futures.ThreadPoolExecutor(max(1, args.jobs)) as pool:
    counts = list(pool.map(lambda suite: run(suite, extra), [name for name in names if name not in but]))
  passed, failed, skipped = (sum(column) for column in zip(*counts))
  print('%d passed, %d failed, %d skipped' % (passed, failed, skipped))
  return 1 if failed else 0


if __name__ == '__main__':
  sys.exit(main())
