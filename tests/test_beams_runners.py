"""What the Rust suite lists as impossible on Beam's Python job service and on Prism (`not_on_beam_python` and
`not_on_prism` in sdk/tests/validates_runner) is so for Python pipelines, too: each reason by the smallest one that fails
alike. Where Python's SDK has no word for a feature, the word is put into the pipeline's proto, as other SDKs write it.
"""
import os
import signal
import socket
import subprocess
import sys

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
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms import trigger, userstate, window

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from prism import prism_or_skip  # pylint: disable=wrong-import-position

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PYTHON = os.path.join(ROOT, 'third_party', 'venv', 'bin', 'python')


class Service:
  """A job service of Beam's, started by a command that is given the port."""
  def __init__(self, command, listens):
    with socket.create_server(('localhost', 0)) as taken:
      port = taken.getsockname()[1]
    self.process = subprocess.Popen(
        command(port), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
    next(line for line in self.process.stdout if listens in line)
    # What else it says is not looked at; a full pipe would stop it.
    subprocess.Popen(['cat'], stdin=self.process.stdout, stdout=subprocess.DEVNULL)
    self.address = 'localhost:%d' % port

  def stop(self):
    self.process.send_signal(signal.SIGTERM)
    self.process.wait(20)


def living(request, services, *what):
  """The last of the services, or a new one where that has crashed."""
  if not services or services[-1].process.poll() is not None:
    services.append(Service(*what))
    request.session.addfinalizer(services[-1].stop)
  return services[-1]


@pytest.fixture(name='service')
def _service(request, services=[]):
  """Beam's Python job service. Its gRPC is known to take down the whole of Python."""
  reference = os.path.join(ROOT, 'conformance', 'reference_job_service.py')
  return living(request, services, lambda port: [PYTHON, reference, '-p', str(port)], 'Listening for beam jobs')


@pytest.fixture(name='prism')
def _prism(request, services=[]):
  """Prism. What it cannot do takes down the whole of it at times."""
  program = prism_or_skip()
  return living(
      request, services,
      lambda port: [program, '--job_port=%d' % port, '--serve_http=false', '--log_kind=text'], 'Serving JobManagement')


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


@pytest.mark.parametrize('runner', ['service', 'prism'])
def test_a_pipeline_without_such_things_runs(request, runner):
  """Shows that the others fail for what they have."""
  pipeline, _ = one()
  assert run(request.getfixturevalue(runner), pipeline) == 'DONE'


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
  timers_in_order, output_timestamps_hold, triggered_side_inputs."""
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


@pytest.mark.parametrize('runner, message', [('service', 'test:coder:shift:v1'), ('prism', 'makeWindowCoders, unknown urn')])
def test_windows_of_the_users_own(request, runner, message):
  """windows_of_the_users_own_type_group, side_inputs_in_windows_of_the_users_own, state_by_windows_of_the_users_own."""
  pipeline, pairs = one()
  _ = pairs | beam.WindowInto(Shifts()) | beam.GroupByKey()
  with pytest.raises(Exception, match=message):
    run(request.getfixturevalue(runner), pipeline)


class MySessions(window.Sessions):
  """Sessions under a name that the runner does not know."""
  def to_runner_api_parameter(self, context):
    return 'test:window_fn:sessions:v1', None


@pytest.mark.parametrize('runner, message', [
    ('service', 'Unsupported merging strategy: %d' % beam_runner_api_pb2.MergeStatus.ALREADY_MERGED),
    ('prism', 'unsupported feature "WindowingStrategy.MergeStatus" set with value ALREADY_MERGED')])
def test_merged_windows(request, runner, message):
  """windows_of_the_users_own_type_merge: what comes out of a grouping in windows that merged."""
  pipeline, pairs = one()
  _ = pairs | beam.WindowInto(MySessions(10)) | beam.GroupByKey() | beam.Map(lambda pair: pair)

  def merged(proto):
    for windowing in proto.components.windowing_strategies.values():
      if windowing.window_fn.urn == 'test:window_fn:sessions:v1':
        windowing.merge_status = beam_runner_api_pb2.MergeStatus.ALREADY_MERGED

  with pytest.raises(Exception, match=message):
    run(request.getfixturevalue(runner), pipeline, merged)


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


def test_entries_of_maps_on_prism(prism):
  """map_state, multimap_state: the keys alone are given."""
  pipeline, pairs = one()
  _ = pairs | beam.ParDo(MapKeys('entries'))
  with pytest.raises(Exception):
    run(prism, pipeline)
  assert prism.process.wait(60), 'it panics'


def test_stable_input_on_prism(prism):
  """stable_input."""
  urn = common_urns.requirements.REQUIRES_STABLE_INPUT.urn
  pipeline, _ = one()
  with pytest.raises(Exception, match="doesn't support the following required features: " + urn):
    run(prism, pipeline, lambda proto: proto.requirements.append(urn))


class Finalized(beam.DoFn):
  def __init__(self, path):
    self.path = path

  def process(self, element, finalizer=beam.DoFn.BundleFinalizerParam):
    finalizer.register(lambda: open(self.path, 'w', encoding='utf-8').close())


@pytest.mark.parametrize('fused', [False, True])
def test_finalizers_on_prism(prism, tmp_path, fused):
  """finalizers_are_called_after_the_commit: they are where the transform comes first in its stage only."""
  path = tmp_path / 'finalized'
  pipeline = beam.Pipeline(options=PipelineOptions([]))
  elements = pipeline | beam.Impulse()
  if fused:
    elements |= beam.Map(lambda element: element)
  _ = elements | beam.ParDo(Finalized(str(path)))
  assert run(prism, pipeline) == 'DONE'
  assert path.exists() == (not fused)


class Expired(beam.DoFn):
  """Sums the values of a key and window when that expires, of which Python's SDK has no word: a timer's family is it."""
  BAG = userstate.BagStateSpec('bag', coders.VarIntCoder())
  TIMER = userstate.TimerSpec('expire', userstate.TimeDomain.WATERMARK)

  def process(self, element, bag=beam.DoFn.StateParam(BAG)):
    bag.add(element[1])

  @userstate.on_timer(TIMER)
  def expire(self, bag=beam.DoFn.StateParam(BAG)):
    yield sum(bag.read())


def test_expiration_on_prism(prism):
  """window_expiration: of two windows of a key that expire at once, one is forgotten."""
  pipeline = beam.Pipeline(options=PipelineOptions([]))
  sums = (
      pipeline | beam.Create([('k', 1), ('k', 11)]) | beam.Map(lambda pair: window.TimestampedValue(pair, pair[1]))
      | beam.WindowInto(window.FixedWindows(10)) | beam.ParDo(Expired()))
  assert_that(sums | 'Global' >> beam.WindowInto(window.GlobalWindows()), equal_to([1, 11]))

  def expiring(proto):
    proto.requirements.append(common_urns.requirements.REQUIRES_ON_WINDOW_EXPIRATION.urn)
    for transform in proto.components.transforms.values():
      if transform.spec.urn == common_urns.primitives.PAR_DO.urn:
        payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
        for family in payload.timer_family_specs:
          payload.on_window_expiration_timer_family_spec = family
          transform.spec.payload = payload.SerializeToString()

  with pytest.raises(Exception, match='Failed assert'):
    run(prism, pipeline, expiring)


def test_panes_on_prism(prism):
  """early_and_late_panes: more panes come than the trigger asks for."""
  pipeline = beam.Pipeline(options=PipelineOptions(['--streaming']))
  numbers = test_stream.TestStream().add_elements(
      [window.TimestampedValue(('k', n), n) for n in (1, 2, 3)]).advance_watermark_to(10).add_elements(
          [window.TimestampedValue(('k', 4), 4)]).advance_watermark_to_infinity()
  panes = (
      pipeline | numbers
      | beam.WindowInto(
          window.FixedWindows(10),
          trigger=trigger.AfterWatermark(early=trigger.AfterCount(2), late=trigger.AfterCount(1)),
          accumulation_mode=trigger.AccumulationMode.ACCUMULATING, allowed_lateness=60)
      | beam.GroupByKey() | beam.Map(lambda pair: sum(pair[1])))
  assert_that(panes | 'Global' >> beam.WindowInto(window.GlobalWindows()), equal_to([3, 6, 10]))
  with pytest.raises(Exception, match='Failed assert'):
    run(prism, pipeline)


def test_triggered_side_inputs_on_prism(prism):
  """triggered_side_inputs: they are refused."""
  pipeline = beam.Pipeline(options=PipelineOptions(['--streaming']))
  numbers = pipeline | test_stream.TestStream().add_elements([1, 2]).advance_watermark_to_infinity()
  windowed = numbers | beam.WindowInto(
      window.GlobalWindows(), trigger=trigger.Repeatedly(trigger.AfterCount(1)),
      accumulation_mode=trigger.AccumulationMode.DISCARDING)
  _ = numbers | 'Read' >> beam.Map(lambda n, side: n, beam.pvalue.AsList(windowed))
  with pytest.raises(Exception, match='Unbounded GlobalWindow Triggered SideInput'):
    run(prism, pipeline)


@pytest.mark.parametrize('runner', ['service', 'prism'])
def test_drain(request, runner):
  """drain."""
  with grpc.insecure_channel(request.getfixturevalue(runner).address) as channel:
    stub = beam_job_api_pb2_grpc.JobServiceStub(channel)
    with pytest.raises(grpc.RpcError) as raised:
      stub.Drain(beam_job_api_pb2.DrainJobRequest(job_id='any'))
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
