"""What the Rust suite lists as impossible on Flink (`not_on_flink` and `not_on_flink_streaming` in
sdk/tests/validates_runner) is so for Python pipelines, too, on Beam's own job server: reasons by the smallest one that fails
alike.
"""
import os
import shutil

import pytest

import apache_beam as beam
from apache_beam import coders
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.transforms import userstate

from test_beams_runners import ROOT, Shifts, living, one

JAR = os.path.join(ROOT, 'third_party', 'flink', 'job-server.jar')


@pytest.fixture(name='flink')
def _flink(request, services=[]):
  """Beam's job server, with a Flink in it."""
  if not os.environ.get('LONG_TESTS'):
    pytest.skip('LONG_TESTS=1 runs what takes minutes')
  if not (shutil.which('java') and os.path.exists(JAR)):
    pytest.skip('Java or third_party/flink/job-server.jar is missing: make setup-flink')
  log = os.path.join(ROOT, 'out', 'flink-of-python.log')
  command = [os.path.join(ROOT, 'tests', 'flink-job-server.sh'), JAR, log, '--flink-master=[local]', '--job-host=localhost',
             '--artifact-port=0', '--expansion-port=0']
  return living(request, services, lambda port: [*command, '--job-port=%d' % port], 'JobService started on')


def run(service, pipeline, *flags, change=lambda proto: None):
  """Runs a pipeline there, its proto changed. Gives the state it ended in; raises what failed."""
  options = PipelineOptions(
      ['--runner=PortableRunner', '--environment_type=LOOPBACK', '--job_endpoint=' + service.address, *flags])
  proto = pipeline.to_runner_api(default_environment=PortableRunner._create_environment(options))
  change(proto)
  return PortableRunner().run_portable_pipeline(proto, options).wait_until_finish()


@pytest.mark.parametrize('flags', [(), ('--streaming',)])
def test_a_pipeline_without_such_things_runs(flink, flags):
  """Shows that the others fail for what they have."""
  pipeline, _ = one()
  assert run(flink, pipeline, *flags) == 'DONE'


def test_flatten_of_what_is_made_of_its_other_input(flink):
  """flatten_of_other_producers."""
  pipeline, pairs = one()
  sums = pairs | beam.GroupByKey() | beam.MapTuple(lambda key, values: (key, sum(values)))
  _ = (pairs, sums) | beam.Flatten() | beam.CombinePerKey(sum)
  with pytest.raises(Exception, match='were consumed but never produced'):
    run(flink, pipeline)


@pytest.mark.parametrize('flags', [(), ('--streaming',)])
def test_windows_of_the_users_own(flink, flags):
  """windows_of_the_users_own_type_group and _merge, calendar_windows, state_by_windows_of_the_users_own,
  side_inputs_in_windows_of_the_users_own."""
  pipeline, pairs = one()
  _ = pairs | beam.WindowInto(Shifts()) | beam.GroupByKey()
  with pytest.raises(Exception, match='Unknown or unsupported WindowFn'):
    run(flink, pipeline, *flags)


class Finalized(beam.DoFn):
  def process(self, element, finalizer=beam.DoFn.BundleFinalizerParam):
    finalizer.register(lambda: None)
    yield element


def test_finalizers_in_batch(flink):
  """finalizers_are_called_after_the_commit."""
  pipeline, pairs = one()
  _ = pairs | beam.ParDo(Finalized())
  with pytest.raises(Exception, match="doesn't support bundle finalization in batch"):
    run(flink, pipeline)


class FailsOnce(beam.DoFn):
  def __init__(self, path):
    self.path = path

  def process(self, element):
    if not os.path.exists(self.path):
      with open(self.path, 'w'):
        raise ValueError('the first attempt fails')
    yield element


def test_bundles_are_not_tried_again(flink, tmp_path):
  """stable_input in batch."""
  pipeline, pairs = one()
  _ = pairs | beam.Reshuffle() | beam.ParDo(FailsOnce(str(tmp_path / 'failed')))
  with pytest.raises(Exception, match='the first attempt fails'):
    run(flink, pipeline)


@pytest.mark.parametrize('field, message', [
    ('requires_stable_input', 'No checkpointing configured'), ('requires_time_sorted_input', 'BEAM-8460')])
def test_requirements_in_streaming(flink, field, message):
  """stable_input, time_sorted_input."""
  pipeline, pairs = one()
  _ = pairs | 'Stateful' >> beam.ParDo(Counted())

  def require(proto):
    for transform in proto.components.transforms.values():
      if transform.unique_name == 'Stateful':
        payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
        setattr(payload, field, True)
        transform.spec.payload = payload.SerializeToString()
    proto.requirements.append('beam:requirement:pardo:%s:v1' % field.replace('requires_', ''))

  with pytest.raises(Exception, match=message):
    run(flink, pipeline, '--streaming', change=require)


class Counted(beam.DoFn):
  COUNT = userstate.CombiningValueStateSpec('count', sum)

  def process(self, element, count=beam.DoFn.StateParam(COUNT)):
    count.add(1)
    yield element
