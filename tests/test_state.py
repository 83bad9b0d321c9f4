"""State that is read over HTTP while a job runs: of the example sdk/examples/queryable.rs, embedded and on the job service with LOOPBACK
workers, and of pipelines of Beam's Python SDK, with and without the annotation.

Needs `make build` first; tests/all.py does that.
"""
import json
import os
import re
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from test_workers import PYTHON, SERVICE, Program, until  # pylint: disable=wrong-import-position
import example_programs  # pylint: disable=wrong-import-position


@pytest.fixture(name='program', scope='module')
def _program():
  """The example. PURLIN_QUERYABLE names one that is built already."""
  return example_programs.built('queryable', env='PURLIN_QUERYABLE')


@pytest.fixture(name='service')
def _service():
  service = Program(SERVICE, '--job_port=0', '--artifact_port=0', '--expansion_port=0', '--web_port=0', ports=5)
  yield service
  service.stop()


@pytest.fixture(name='launch')
def _launch():
  """Starts programs that never end, and ends them."""
  started = []

  def launch(*command):
    started.append(subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
    return started[-1]

  yield launch
  for process in started:
    process.kill()
    process.wait()


def get(url):
  """Status and body."""
  try:
    with urllib.request.urlopen(url, timeout=30) as answer:
      return answer.status, answer.read().decode()
  except urllib.error.HTTPError as error:
    return error.code, error.read().decode()


def grows(url):
  """The answer when its count has grown once: it is asked of a job that runs, and what is committed changes."""
  def answer():
    status, body = get(url)
    return json.loads(body) if status == 200 else None
  first = until('state at ' + url, answer)

  def count(found):
    value = found['windows'][0]['value']
    return value if isinstance(value, int) else value[0]
  return until('more at ' + url, lambda: (found := answer()) and count(found) > count(first) and found)


def the_job(service):
  """The URL of the service's only job."""
  jobs = until('the job', lambda: json.loads(get(service.endpoints[4] + '/jobs')[1]))
  return '%s/jobs/%s' % (service.endpoints[4], jobs[0]['id'])


def check(job):
  found = grows(job + '/state/Tally/tally?key=odd')
  (window,) = found.pop('windows')
  assert found == {'transform': 'Tally', 'state': 'tally', 'kind': 'value', 'key': 'odd'}
  count, last = window['value']
  # Consistent: both were written by the same bundle.
  assert window['window'] == 'global' and last == 2 * count - 1
  for path, status, words in [('Tally/tally?key=neither', 404, 'has nothing for key "neither"'),
                              ('Tally/other?key=odd', 404, 'queryable are Tally/tally'),
                              ('Tally/tally', 400, 'add ?key=')]:
    code, body = get(job + '/state/' + path)
    assert code == status and words in body, (code, body)


def test_an_embedded_run(program, launch):
  process = launch(program, '--state_port=0')
  url = re.search(r'(http://\S+?)/state/', process.stderr.readline()).group(1)
  check(url)


def test_a_rust_pipeline_on_the_service(program, service, launch):
  launch(program, '--runner=PortableRunner', '--job_endpoint=' + service.endpoint)
  job = the_job(service)
  check(job)
  code, body = get(job.rpartition('/')[0] + '/none/state/Tally/tally?key=odd')
  assert code == 404, body


def test_an_ended_job(program, service, launch):
  process = launch(program, '--runner=PortableRunner', '--job_endpoint=' + service.endpoint)
  job = the_job(service)
  grows(job + '/state/Tally/tally?key=even')
  process.kill()
  until('the end', lambda: 'has ended' in get(job + '/state/Tally/tally?key=even')[1])
  assert get(job + '/state/Tally/tally?key=even')[0] == 404


PIPELINE = textwrap.dedent('''
    import contextlib, sys, typing
    import apache_beam as beam
    from apache_beam.coders import VarIntCoder
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.transforms.periodicsequence import PeriodicImpulse
    from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

    class Count(beam.DoFn):
      COUNT = ReadModifyWriteStateSpec('count', VarIntCoder())
      def process(self, pair, count=beam.DoFn.StateParam(COUNT)):
        count.write((count.read() or 0) + 1)

    options = PipelineOptions(sys.argv[2:], streaming=True)
    with beam.Pipeline(options=options) as p:
      keyed = (p | PeriodicImpulse(fire_interval=0.05)
               | beam.Map(lambda _: ('k', 1)).with_output_types(typing.Tuple[str, int]))
      annotated = p.transform_annotations(**{'purlin:queryable_state:v1:count': ''}) if sys.argv[1] == 'yes' else contextlib.nullcontext()
      with annotated:
        _ = keyed | 'Count' >> beam.ParDo(Count())
''')


@pytest.mark.parametrize('queryable', ['yes', 'no'])
def test_a_python_pipeline(service, launch, tmp_path, queryable):
  script = tmp_path / 'count.py'
  script.write_text(PIPELINE)
  launch(PYTHON, script, queryable, '--runner=PortableRunner', '--job_endpoint=' + service.endpoint, '--environment_type=LOOPBACK')
  job = the_job(service)
  if queryable == 'yes':
    assert grows(job + '/state/Count/count?key=k')['key'] == 'k'
  else:
    until('the job to run', lambda: json.loads(get(job)[1])['state'] == 'RUNNING')
    code, body = get(job + '/state/Count/count?key=k')
    assert code == 404 and 'the pipeline makes no state queryable' in body
