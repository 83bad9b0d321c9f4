"""What the Rust suite lists as impossible on Beam's Python job service (`not_on_beam_python` in sdk/tests/validates_runner)
is so for Python pipelines, too: each reason by the smallest one that fails alike. Where Python's SDK has no word for a
feature, the word is put into the pipeline's proto, as other SDKs write it.
"""
import os
import signal
import socket
import subprocess

import grpc
import pytest

import apache_beam as beam
from apache_beam import coders
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import (
    beam_fn_api_pb2, beam_job_api_pb2, beam_job_api_pb2_grpc, beam_runner_api_pb2)
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.testing import test_stream
from apache_beam.transforms import userstate, window

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PYTHON = os.path.join(ROOT, 'third_party', 'venv', 'bin', 'python')


class Service:
  """Beam's Python job service."""
  def __init__(self):
    with socket.create_server(('localhost', 0)) as taken:
      port = taken.getsockname()[1]
    self.process = subprocess.Popen(
        [PYTHON, os.path.join(ROOT, 'conformance', 'reference_job_service.py'), '-p', str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
    next(line for line in self.process.stdout if 'Listening for beam jobs' in line)
    # What else it says is not looked at; a full pipe would stop it.
    subprocess.Popen(['cat'], stdin=self.process.stdout, stdout=subprocess.DEVNULL)
    self.address = 'localhost:%d' % port

  def stop(self):
    self.process.send_signal(signal.SIGTERM)
    self.process.wait(20)


@pytest.fixture(name='service')
def _service(request, services=[]):
  """The service, a new one where the one before has crashed: its gRPC is known to take down the whole of Python."""
  if not services or services[-1].process.poll() is not None:
    services.append(Service())
    request.session.addfinalizer(services[-1].stop)
  return services[-1]


def run(service, pipeline, change=lambda proto: None):
  """Runs a pipeline there, its proto changed. Gives the state it ended in; raises what failed."""
  options = PipelineOptions(
      ['--runner=PortableRunner', '--environment_type=LOOPBACK', '--job_endpoint=' + service.address])
  environment = PortableRunner._create_environment(options)
  proto = pipeline.to_runner_api(default_environment=environment)
  change(proto)
  return PortableRunner().run_portable_pipeline(proto, options).wait_until_finish()


def one():
  pipeline = beam.Pipeline(options=PipelineOptions([]))
  return pipeline, pipeline | beam.Create([('k', 1)])


def test_a_pipeline_without_such_things_runs(service):
  """Shows that the others fail for what they have."""
  pipeline, _ = one()
  assert run(service, pipeline) == 'DONE'


@pytest.mark.parametrize('requirement', [
    'REQUIRES_ON_WINDOW_EXPIRATION', 'REQUIRES_TIME_SORTED_INPUT', 'REQUIRES_STABLE_INPUT'])
def test_requirements(service, requirement):
  """window_expiration, time_sorted_input, stable_input."""
  urn = getattr(common_urns.requirements, requirement).urn
  pipeline, _ = one()
  with pytest.raises(Exception, match='Unable to run pipeline with requirement: ' + urn):
    run(service, pipeline, lambda proto: proto.requirements.append(urn))


def test_test_stream(service):
  """late_elements, early_and_late_panes, assertions_by_pane, assertions_by_only_pane, processing_time, two_stages,
  timers_in_order, output_timestamps_hold."""
  pipeline = beam.Pipeline(options=PipelineOptions(['--streaming']))
  _ = pipeline | test_stream.TestStream().add_elements([1]).advance_watermark_to_infinity()
  with pytest.raises(Exception, match=common_urns.primitives.TEST_STREAM.urn):
    run(service, pipeline)


class ShiftCoder(coders.coders.FastCoder):
  """Of windows, under a name that this program alone knows."""
  def _create_impl(self):
    return coders.IntervalWindowCoder().get_impl()

  def is_deterministic(self):
    return True

  def to_runner_api_parameter(self, context):
    return 'test:coder:shift:v1', None, []


class Shifts(window.NonMergingWindowFn):
  def assign(self, context):
    return [window.IntervalWindow(0, 10)]

  def get_window_coder(self):
    return ShiftCoder()


def test_windows_of_the_users_own(service):
  """windows_of_the_users_own_type_group, side_inputs_in_windows_of_the_users_own, state_by_windows_of_the_users_own."""
  pipeline, pairs = one()
  _ = pairs | beam.WindowInto(Shifts()) | beam.GroupByKey()
  with pytest.raises(Exception, match='test:coder:shift:v1'):
    run(service, pipeline)


class MySessions(window.Sessions):
  """Sessions under a name that the runner does not know."""
  def to_runner_api_parameter(self, context):
    return 'test:window_fn:sessions:v1', None


def test_merged_windows(service):
  """windows_of_the_users_own_type_merge: what comes out of a grouping in windows that merged."""
  pipeline, pairs = one()
  _ = pairs | beam.WindowInto(MySessions(10)) | beam.GroupByKey() | beam.Map(lambda pair: pair)

  def merged(proto):
    for windowing in proto.components.windowing_strategies.values():
      if windowing.window_fn.urn == 'test:window_fn:sessions:v1':
        windowing.merge_status = beam_runner_api_pb2.MergeStatus.ALREADY_MERGED

  message = 'Unsupported merging strategy: %d' % beam_runner_api_pb2.MergeStatus.ALREADY_MERGED
  with pytest.raises(Exception, match=message):
    run(service, pipeline, merged)


class MapKeys(beam.DoFn):
  """Asks for the keys or the entries of a map, of which Python's SDK has no states."""
  BAG = userstate.BagStateSpec('bag', coders.VarIntCoder())

  def __init__(self, what):
    self.what = what

  def process(self, element, bag=beam.DoFn.StateParam(BAG)):
    place = bag._state_key.bag_user_state
    kind = {
        'keys': beam_fn_api_pb2.StateKey.MultimapKeysUserState,
        'entries': beam_fn_api_pb2.StateKey.MultimapEntriesUserState,
    }[self.what](
        transform_id=place.transform_id, user_state_id=place.user_state_id, window=place.window, key=place.key)
    key = beam_fn_api_pb2.StateKey(**{'multimap_%s_user_state' % self.what: kind})
    yield list(bag._state_handler.blocking_get(key, coders.VarIntCoder().get_impl()))


@pytest.mark.parametrize('what', ['keys', 'entries'])
def test_keys_and_entries_of_maps(service, what):
  """map_state, multimap_state."""
  pipeline, pairs = one()
  _ = pairs | beam.ParDo(MapKeys(what))
  with pytest.raises(Exception, match='Unknown state type: multimap_%s_user_state' % what):
    run(service, pipeline)


def test_drain(service):
  """drain."""
  with grpc.insecure_channel(service.address) as channel:
    stub = beam_job_api_pb2_grpc.JobServiceStub(channel)
    with pytest.raises(grpc.RpcError) as raised:
      stub.Drain(beam_job_api_pb2.DrainJobRequest(job_id='any'))
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
