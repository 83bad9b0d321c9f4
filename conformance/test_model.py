"""Pipelines of Beam's model that its own suites leave out for job services, through Purlin's.

What Beam's direct_runner.py keeps away from Prism (issue 33623 and its like), drain, and closing panes.
JOB_ENDPOINT names the running service.
"""
import contextlib
import os
import threading
import time

import grpc
import pytest

import apache_beam as beam
from apache_beam import coders
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import (
    beam_fn_api_pb2_grpc, beam_job_api_pb2, beam_job_api_pb2_grpc, beam_runner_api_pb2)
from apache_beam.runners import pipeline_context
from apache_beam.runners.portability import expansion_service
from apache_beam.runners.worker import worker_pool_main
from apache_beam.testing import util
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.test_stream_service import TestStreamServiceController
from apache_beam.transforms import deduplicate, trigger, userstate, window
from apache_beam.transforms.fully_qualified_named_transform import FullyQualifiedNamedTransform
from apache_beam.transforms.periodicsequence import PeriodicImpulse
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils import thread_pool_executor
from apache_beam.utils.timestamp import Duration, Timestamp


def pipeline(*more):
  return beam.Pipeline(options=options(*more))


def options(*more):
  return PipelineOptions([
      '--runner=PortableRunner', '--environment_type=LOOPBACK', '--job_endpoint=' + os.environ['JOB_ENDPOINT'],
      *more])


def check(actual, expected, label='check'):
  # Not imported by name: the guard of beam_pytest_plugin replaces it.
  util.assert_that(actual, util.equal_to(expected), label=label)


class Panes(beam.DoFn):
  """What a pane is, with its elements sorted."""
  def process(self, element, w=beam.DoFn.WindowParam, t=beam.DoFn.TimestampParam, pane=beam.DoFn.PaneInfoParam):
    key, values = element
    timing = {0: 'early', 1: 'on time', 2: 'late', 3: 'unknown'}[int(pane.timing)]
    yield (key, sorted(values), timing, pane.index, pane.is_last)


# Sessions.


def test_sessions_merge_by_key():
  with pipeline() as p:
    sessions = (
        p | beam.Create([('a', 1), ('a', 5), ('a', 30), ('b', 2), ('b', 11), ('b', 21)])
        | beam.MapTuple(lambda k, t: TimestampedValue((k, t), t))
        | beam.WindowInto(window.Sessions(10))
        | beam.GroupByKey()
        | beam.MapTuple(lambda k, ts, w=beam.DoFn.WindowParam: (k, sorted(ts), int(w.start), int(w.end))))
    check(sessions, [('a', [1, 5], 1, 15), ('a', [30], 30, 40), ('b', [2, 11], 2, 21), ('b', [21], 21, 31)])


def test_sessions_are_the_same_after_a_reshuffle():
  with pipeline() as p:
    windows = (
        p | beam.Create([1, 4, 40])
        | beam.Map(lambda t: TimestampedValue(('k', t), t))
        | beam.WindowInto(window.Sessions(10))
        | 'Merge' >> beam.GroupByKey()
        | beam.Reshuffle()
        | beam.MapTuple(lambda k, ts, w=beam.DoFn.WindowParam: (sorted(ts), int(w.start), int(w.end))))
    check(windows, [([1, 4], 1, 14), ([40], 40, 50)])


def test_late_elements_join_sessions():
  stream = (
      TestStream(coder=coders.VarIntCoder()).advance_watermark_to(0)
      .add_elements([TimestampedValue(1, 1), TimestampedValue(19, 19)]).advance_watermark_to(32)
      # Between the two, which are closed but not forgotten.
      .add_elements([TimestampedValue(10, 10)]).advance_watermark_to_infinity())
  with pipeline('--streaming', '--allow_unsafe_triggers') as p:
    panes = (
        p | stream
        | beam.Map(lambda x: ('k', x))
        | beam.WindowInto(
            window.Sessions(10), trigger=trigger.AfterWatermark(late=trigger.AfterCount(1)),
            accumulation_mode=trigger.AccumulationMode.ACCUMULATING, allowed_lateness=100)
        | beam.GroupByKey()
        | beam.MapTuple(lambda k, xs, w=beam.DoFn.WindowParam: (sorted(xs), int(w.start), int(w.end))))
    check(panes, [([1], 1, 11), ([19], 19, 29), ([1, 10, 19], 1, 29)])


# Timers by the clock.


class AfterASecond(beam.DoFn):
  VALUES = userstate.BagStateSpec('values', coders.VarIntCoder())
  CLOCK = userstate.TimerSpec('clock', userstate.TimeDomain.REAL_TIME)

  def process(
      self, element, values=beam.DoFn.StateParam(VALUES), clock=beam.DoFn.TimerParam(CLOCK)):
    values.add(element[1])
    clock.set(Timestamp.now() + Duration(seconds=1))

  @userstate.on_timer(CLOCK)
  def on_clock(self, key=beam.DoFn.KeyParam, values=beam.DoFn.StateParam(VALUES)):
    yield (key, sum(values.read()))


def test_real_time_timers_wait_for_the_clock():
  begin = time.time()
  with pipeline() as p:
    # Of one bundle, so that the second element of a key cannot come after the first one's second.
    sums = p | beam.Create([('a', 1), ('a', 2), ('b', 3)], reshuffle=False) | beam.ParDo(AfterASecond())
    check(sums, [('a', 3), ('b', 3)])
  assert time.time() - begin >= 1


class AtTen(beam.DoFn):
  """Sets a timer for ten seconds after the epoch of the TestStream's clock."""
  CLOCK = userstate.TimerSpec('clock', userstate.TimeDomain.REAL_TIME)
  SEEN = userstate.BagStateSpec('seen', coders.StrUtf8Coder())

  def process(self, element, seen=beam.DoFn.StateParam(SEEN), clock=beam.DoFn.TimerParam(CLOCK)):
    seen.add(element[1])
    clock.set(Timestamp.now() + Duration(seconds=10))

  @userstate.on_timer(CLOCK)
  def on_clock(self, seen=beam.DoFn.StateParam(SEEN)):
    yield sorted(seen.read())
    seen.clear()


def test_a_test_stream_moves_the_clock_of_timers():
  far = 10**6
  stream = (
      TestStream(coder=coders.StrUtf8Coder()).advance_watermark_to(0)
      .add_elements(['a']).advance_processing_time(1).add_elements(['b']).advance_processing_time(far)
      .add_elements(['c']).advance_processing_time(far).advance_watermark_to_infinity())
  begin = time.time()
  with pipeline('--streaming') as p:
    seen = p | stream | beam.Map(lambda x: ('k', x)) | beam.ParDo(AtTen())
    check(seen, [['a', 'b'], ['c']])
  assert time.time() - begin < 60


def test_buffering_is_by_the_clock_of_the_test_stream():
  stream = TestStream(coder=coders.StrUtf8Coder()).advance_watermark_to(0)
  for letters in ['abc', 'def']:
    for letter in letters:
      stream = stream.add_elements([letter])
    stream = stream.advance_processing_time(100)
  with pipeline('--streaming') as p:
    batches = (
        p | stream.advance_watermark_to_infinity() | beam.Map(lambda x: ('k', x))
        | beam.GroupIntoBatches(10, max_buffering_duration_secs=60)
        | beam.MapTuple(lambda k, xs: ''.join(xs)))
    check(batches, ['abc', 'def'])


def test_what_comes_together_late_is_one_pane():
  stream = (
      TestStream(coder=coders.StrUtf8Coder()).advance_watermark_to(0)
      .add_elements([TimestampedValue('b', 1)]).advance_watermark_to(20)
      .add_elements([TimestampedValue(x, 1) for x in 'aacc']).advance_watermark_to_infinity())
  with pipeline('--streaming', '--allow_unsafe_triggers') as p:
    counts = (
        p | stream
        | beam.WindowInto(
            window.FixedWindows(10), trigger=trigger.AfterWatermark(late=trigger.AfterCount(1)),
            accumulation_mode=trigger.AccumulationMode.DISCARDING, allowed_lateness=1000)
        | beam.combiners.Count.PerElement())
    check(counts, [('b', 1), ('a', 2), ('c', 2)])


def test_deduplication_by_processing_time_forgets():
  stream = (
      TestStream(coder=coders.StrUtf8Coder()).advance_watermark_to(0)
      .add_elements(['a', 'b', 'a']).advance_processing_time(10**6)
      .add_elements(['a']).advance_watermark_to_infinity())
  with pipeline('--streaming') as p:
    once = p | stream | deduplicate.Deduplicate(processing_time_duration=60)
    check(once, ['a', 'b', 'a'])


# Triggers that count.


def counting(stream_trigger, mode=trigger.AccumulationMode.DISCARDING, count=5):
  stream = TestStream(coder=coders.VarIntCoder()).advance_watermark_to(0)
  for x in range(count):
    stream = stream.add_elements([TimestampedValue(x, x)])
  stream = stream.advance_watermark_to_infinity()

  def expand(p):
    return (
        p | stream
        | beam.Map(lambda x: ('k', x))
        | beam.WindowInto(window.FixedWindows(100), trigger=stream_trigger, accumulation_mode=mode)
        | beam.GroupByKey()
        | beam.ParDo(Panes()))

  return expand


def test_a_count_trigger_fires_once():
  with pipeline('--streaming', '--allow_unsafe_triggers') as p:
    check(counting(trigger.AfterCount(2))(p), [('k', [0, 1], 'early', 0, True)])


def test_a_repeated_count_trigger_fires_again_and_again():
  with pipeline('--streaming', '--allow_unsafe_triggers') as p:
    # The fifth element is too few, and the window's end is not the trigger's business.
    panes = counting(trigger.Repeatedly(trigger.AfterCount(2)))(p)
    check(panes, [('k', [0, 1], 'early', 0, False), ('k', [2, 3], 'early', 1, False), ('k', [4], 'on time', 2, True)])


def test_early_firings_by_count_accumulate():
  with pipeline('--streaming', '--allow_unsafe_triggers') as p:
    panes = counting(
        trigger.AfterWatermark(early=trigger.AfterCount(2)), trigger.AccumulationMode.ACCUMULATING, count=3)(p)
    check(panes, [('k', [0, 1], 'early', 0, False), ('k', [0, 1, 2], 'on time', 1, True)])


def test_any_of_a_count_and_the_watermark():
  with pipeline('--streaming', '--allow_unsafe_triggers') as p:
    either = trigger.AfterAny(trigger.AfterCount(2), trigger.AfterWatermark())
    check(counting(either)(p), [('k', [0, 1], 'early', 0, True)])


# Combining state.


class Mean(beam.DoFn):
  # Not Beam's MeanCombineFn, which cannot merge the accumulators of a state that is empty.
  COUNT = userstate.CombiningValueStateSpec('count', combine_fn=beam.combiners.CountCombineFn())
  TOTAL = userstate.CombiningValueStateSpec('total', combine_fn=sum)
  DONE = userstate.TimerSpec('done', userstate.TimeDomain.WATERMARK)

  def process(
      self, element, count=beam.DoFn.StateParam(COUNT), total=beam.DoFn.StateParam(TOTAL),
      done=beam.DoFn.TimerParam(DONE), w=beam.DoFn.WindowParam):
    count.add(element[1])
    total.add(element[1])
    done.set(w.end)

  @userstate.on_timer(DONE)
  def on_done(self, key=beam.DoFn.KeyParam, count=beam.DoFn.StateParam(COUNT), total=beam.DoFn.StateParam(TOTAL)):
    yield (key, total.read() / count.read())


def test_combining_state():
  with pipeline() as p:
    means = (
        p | beam.Create([('a', i) for i in range(11)] + [('b', 4)])
        | beam.WindowInto(window.FixedWindows(10)) | beam.ParDo(Mean()))
    check(means, [('a', 5.0), ('b', 4.0)])


# Exceptions that are handled.


def invert(x):
  return 1 / x


def test_handled_exceptions_are_an_output():
  # Not with use_subprocess: it forks a worker that is amid its calls to us, which gRPC for Python may not survive.
  with pipeline() as p:
    good, bad = p | beam.Create([1, 0, 2]) | beam.Map(invert).with_exception_handling()
    check(good, [1.0, 0.5], 'good')
    check(bad | beam.MapTuple(lambda x, error: (x, error[0].__name__)), [(0, 'ZeroDivisionError')], 'bad')


def test_too_many_handled_exceptions_fail_the_job():
  with pytest.raises(Exception, match='exceeded threshold'):
    with pipeline() as p:
      p | beam.Create([0, 0, 1]) | beam.Map(invert).with_exception_handling(threshold=0.5)


# Coders that hide keys.


def test_pairs_of_outputs_without_types_are_flattened_and_grouped():
  """What Partition emits is pickled whole, what GroupByKey reads must be KVs."""
  with pipeline() as p:
    pairs = p | beam.Create([('a', 1), ('b', 2), ('a', 4)]) | beam.Partition(lambda pair, count: pair[1] % count, 2)
    grouped = pairs | beam.Flatten() | beam.GroupByKey() | beam.MapTuple(lambda key, values: (key, sorted(values)))
    check(grouped, [('a', [1, 4]), ('b', [2])])


def test_nothing_is_grouped_with_nothing():
  with pipeline() as p:
    check([] | 'Empty' >> beam.CoGroupByKey(pipeline=p), [])


# TestStream from Python.


def test_a_test_stream_of_several_outputs():
  with pipeline('--streaming') as p:
    stream = p | (
        TestStream().advance_watermark_to(0, tag='main').advance_watermark_to(0, tag='side')
        .add_elements([TimestampedValue(('side', 1), 1)], tag='side')
        .advance_watermark_to(10, tag='side')
        .add_elements([TimestampedValue('x', 2)], tag='main')
        .advance_watermark_to_infinity(tag='main').advance_watermark_to_infinity(tag='side'))
    side = stream['side'] | 'Side' >> beam.WindowInto(window.FixedWindows(10))
    seen = (
        stream['main'] | 'Main' >> beam.WindowInto(window.FixedWindows(10))
        | beam.Map(lambda x, side: (x, list(side)), beam.pvalue.AsList(side)))
    check(seen, [('x', [('side', 1)])])


class Served:
  """What TestStreamServiceController reads the events of a stream from."""
  def __init__(self, stream):
    self.payload = beam_runner_api_pb2.TestStreamPayload.FromString(stream.to_runner_api_parameter(
        pipeline_context.PipelineContext())[1].SerializeToString())

  def read_multiple(self, labels):
    assert labels == [('full', None)], labels
    return iter(self.payload.events)


def test_a_test_stream_whose_events_an_endpoint_serves():
  script = (
      TestStream(coder=coders.StrUtf8Coder()).advance_watermark_to(0)
      .add_elements([TimestampedValue('a', 1), TimestampedValue('b', 2)]).advance_watermark_to(10)
      .advance_processing_time(5).add_elements([TimestampedValue('c', 11)]).advance_watermark_to_infinity())
  server = TestStreamServiceController(Served(script))
  server.start()
  try:
    with pipeline('--streaming') as p:
      sums = (
          p | TestStream(coder=coders.StrUtf8Coder(), endpoint=server.endpoint)
          | beam.Map(lambda x: ('k', x)) | beam.WindowInto(window.FixedWindows(10))
          | beam.GroupByKey() | beam.MapTuple(lambda k, xs: sorted(xs)))
      check(sums, [['a', 'b'], ['c']])
  finally:
    server.stop()


class Number(beam.DoFn):
  """Numbers the elements of a key."""
  COUNT = userstate.CombiningValueStateSpec('count', combine_fn=sum)

  def process(self, element, count=beam.DoFn.StateParam(COUNT)):
    yield (*element, count.read())
    count.add(1)


def test_a_stateful_dofn_behind_a_test_stream():
  """The stream's elements are pickled whole; their keys are needed."""
  with pipeline('--streaming') as p:
    stream = (
        TestStream().advance_watermark_to(0).add_elements([('a', 'x'), ('b', 'y')]).advance_watermark_to(10)
        .add_elements([('a', 'z')]).advance_watermark_to_infinity())
    numbered = p | stream | beam.ParDo(Number())
    check(numbered, [('a', 'x', 0), ('b', 'y', 0), ('a', 'z', 1)])


def test_elements_of_a_test_stream_keep_their_order():
  letters = 'abcdefgh'
  with pipeline('--streaming') as p:
    stream = TestStream().advance_watermark_to(0).add_elements(list(letters)).advance_watermark_to_infinity()
    numbered = p | stream | beam.Map(lambda x: ('k', x)) | beam.ParDo(Number())
    check(numbered, [('k', letter, number) for number, letter in enumerate(letters)])


def test_several_test_streams_share_a_clock():
  """Their steps follow each other by the processing time that they have come to."""
  def stream(first, wait, second):
    return (
        TestStream(coder=coders.StrUtf8Coder()).advance_watermark_to(0).add_elements([first])
        .advance_processing_time(wait).add_elements([second]).advance_watermark_to_infinity())

  with pipeline('--streaming', '--allow_unsafe_triggers') as p:
    both = (p | 'A' >> stream('a1', 10, 'a2'), p | 'B' >> stream('b1', 5, 'b2')) | beam.Flatten()
    panes = (
        both | beam.Map(lambda x: ('k', x))
        | beam.WindowInto(
            window.GlobalWindows(), trigger=trigger.Repeatedly(trigger.AfterCount(1)),
            accumulation_mode=trigger.AccumulationMode.ACCUMULATING)
        | beam.GroupByKey() | beam.MapTuple(lambda k, xs: list(xs)))
    check(panes, [['a1'], ['a1', 'b1'], ['a1', 'b1', 'b2'], ['a1', 'b1', 'b2', 'a2']])


def test_elements_that_are_too_late_are_dropped():
  stream = (
      TestStream(coder=coders.VarIntCoder()).advance_watermark_to(0)
      .add_elements([TimestampedValue(1, 1)]).advance_watermark_to(12)
      .add_elements([TimestampedValue(2, 2)]).advance_watermark_to(20)
      .add_elements([TimestampedValue(3, 3)]).advance_watermark_to_infinity())
  with pipeline('--streaming', '--allow_unsafe_triggers') as p:
    panes = (
        p | stream
        | beam.Map(lambda x: ('k', x))
        | beam.WindowInto(
            window.FixedWindows(10), trigger=trigger.AfterWatermark(late=trigger.AfterCount(1)),
            accumulation_mode=trigger.AccumulationMode.DISCARDING, allowed_lateness=5)
        | beam.GroupByKey()
        | beam.ParDo(Panes()))
    # The last firing of the window has nothing to tell: Python's runners leave it out.
    check(panes, [('k', [1], 'on time', 0, False), ('k', [2], 'late', 1, False)])


# Transforms of an expansion service, in an environment of their own.


@contextlib.contextmanager
def worker_pool():
  server = grpc.server(thread_pool_executor.shared_unbounded_instance())
  port = server.add_insecure_port('localhost:0')
  beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(
      worker_pool_main.BeamFnExternalWorkerPoolServicer(use_process=False), server)
  server.start()
  try:
    yield 'localhost:%d' % port
  finally:
    server.stop(0)


def test_external_transforms():
  with worker_pool() as address, FullyQualifiedNamedTransform.with_filter('*'):
    # Its environment is any of Docker's, as by default, and the pool.
    service = expansion_service.ExpansionServiceServicer(loopback_address=address)
    with pipeline() as p:
      counted = (
          p | beam.Create(['b', 'a', 'b'])
          | beam.ExternalTransform(
              'beam:transforms:python:fully_qualified_named',
              beam.transforms.external.ImplicitSchemaPayloadBuilder(
                  {'constructor': 'apache_beam.transforms.combiners.Count.PerElement'}),
              service)
          | beam.MapTuple(lambda word, count: '%s%d' % (word, count)))
      check(counted, ['a1', 'b2'])


# Combiners with arguments that are side inputs.


class Shifted(beam.CombineFn):
  def create_accumulator(self, by):
    return 0

  def add_input(self, accumulator, element, by):
    return accumulator + element

  def merge_accumulators(self, accumulators, by):
    return sum(accumulators)

  def extract_output(self, accumulator, by):
    return accumulator + by


def test_combiners_with_side_inputs():
  with pipeline() as p:
    by = beam.pvalue.AsSingleton(p | 'By' >> beam.Create([100]))
    total = p | beam.Create([1, 2, 3]) | beam.CombineGlobally(Shifted(), by).without_defaults()
    check(total, [106])


# Closing panes.


@pytest.mark.parametrize('lateness', [0, 30])
def test_a_window_closes_without_an_empty_pane(lateness):
  """Python's SDK asks for empty closing panes in every strategy, and cannot ask for anything else."""
  with pipeline() as p:
    panes = (
        p | beam.Create([TimestampedValue(('k', 1), 1)])
        | beam.Map(lambda x: x)
        | beam.WindowInto(
            window.FixedWindows(10), trigger=trigger.Repeatedly(trigger.AfterWatermark()),
            accumulation_mode=trigger.AccumulationMode.DISCARDING, allowed_lateness=lateness)
        | beam.GroupByKey()
        | beam.MapTuple(lambda k, xs: (k, sorted(xs))))
    check(panes, [('k', [1])])


# Drain.


class Endless(beam.RestrictionProvider):
  def initial_restriction(self, element):
    return OffsetRange(0, 2**40)

  def create_tracker(self, restriction):
    return OffsetRestrictionTracker(restriction)

  def restriction_size(self, element, restriction):
    return 1

  def truncate(self, element, restriction):
    if element == 'dropped':
      return None
    # Two more, so that the end is seen to be the truncated restriction's.
    return OffsetRange(restriction.start, restriction.start + 2)


class Count(beam.DoFn):
  @beam.DoFn.unbounded_per_element()
  def process(
      self, element, tracker=beam.DoFn.RestrictionParam(Endless()),
      estimator=beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider())):
    at = tracker.current_restriction().start
    while tracker.try_claim(at):
      estimator.set_watermark(Timestamp(at))
      yield TimestampedValue((element, at), at)
      at += 1
      if at % 3 == 0:
        tracker.defer_remainder(Duration(seconds=0.05))
        return


class CountOn(beam.DoFn):
  """Leaves its restriction after each number, to go on at once."""
  @beam.DoFn.unbounded_per_element()
  def process(self, element, tracker=beam.DoFn.RestrictionParam(Endless())):
    at = tracker.current_restriction().start
    if tracker.try_claim(at):
      yield element, at
      tracker.defer_remainder()


class CountWithoutPause(beam.DoFn):
  """Never leaves its restriction of its own accord."""
  @beam.DoFn.unbounded_per_element()
  def process(self, element, tracker=beam.DoFn.RestrictionParam(Endless())):
    at = tracker.current_restriction().start
    while tracker.try_claim(at):
      yield element, at
      at += 1
      time.sleep(0.01)


def drain(result):
  with grpc.insecure_channel(os.environ['JOB_ENDPOINT']) as channel:
    stub = beam_job_api_pb2_grpc.JobServiceStub(channel)
    stub.Drain(beam_job_api_pb2.DrainJobRequest(job_id=result._job_id))
  # The SDK takes every end but DONE for a failure.
  with pytest.raises(RuntimeError, match='in state DRAINED'):
    result.wait_until_finish()


class Record(beam.DoFn):
  """Writes what it gets to a file: the test reads it after the drain."""
  def __init__(self, path):
    self.path = path

  def process(self, element):
    with open(self.path, 'a', encoding='utf-8') as out:
      out.write(repr(element) + '\n')


def test_a_drain_truncates_endless_sources(tmp_path):
  path, sums = str(tmp_path / 'elements'), str(tmp_path / 'sums')
  p = pipeline('--streaming')
  numbers = p | beam.Create(['kept', 'dropped']) | beam.ParDo(Count())
  numbers | beam.ParDo(Record(path))
  # What was read is not lost: the drain closes the window.
  numbers | beam.WindowInto(window.FixedWindows(10**7)) | beam.GroupByKey() | beam.MapTuple(lambda k, xs: (k, sorted(xs))) | 'Sums' >> beam.ParDo(Record(sums))
  result = p.run()
  deadline = time.time() + 270
  while (not os.path.exists(path) or sum(1 for _ in open(path, encoding='utf-8')) < 20) and time.time() < deadline:
    time.sleep(0.1)
  assert result.state == 'RUNNING'
  drain(result)
  read = {}
  with open(path, encoding='utf-8') as lines:
    for line in lines:
      element, at = eval(line)
      read.setdefault(element, []).append(at)
  # Nothing is missing, nothing was read twice.
  for element in ('kept', 'dropped'):
    assert sorted(read[element]) == list(range(len(read[element])))
  with open(sums, encoding='utf-8') as lines:
    grouped = dict(eval(line) for line in lines)
  assert grouped == {element: sorted(at) for element, at in read.items()}


@pytest.mark.parametrize('source', [CountOn, CountWithoutPause])
def test_endless_restrictions_all_have_their_turn(source, tmp_path):
  path = str(tmp_path / 'elements')
  p = pipeline('--streaming')
  names = [f'source {n:02}' for n in range(12)]
  p | beam.Create(names) | beam.ParDo(source()) | beam.Reshuffle() | beam.ParDo(Record(path))
  result = p.run()
  seen = set()
  deadline = time.time() + 120
  while len(seen) < len(names) and time.time() < deadline:
    time.sleep(0.1)
    if os.path.exists(path):
      with open(path, encoding='utf-8') as lines:
        # The last line may not be whole yet.
        seen = {eval(line)[0] for line in lines if line.endswith('\n')}
  drain(result)
  assert sorted(seen) == names


class Beat(beam.DoFn):
  """Tells each key once, by a timer that sets itself again for ever."""
  TOLD = userstate.CombiningValueStateSpec('told', combine_fn=sum)
  BEAT = userstate.TimerSpec('beat', userstate.TimeDomain.REAL_TIME)

  def process(self, element, beat=beam.DoFn.TimerParam(BEAT)):
    beat.set(Timestamp.now() + Duration(seconds=3600))

  @userstate.on_timer(BEAT)
  def on_beat(
      self, key=beam.DoFn.KeyParam, told=beam.DoFn.StateParam(TOLD), beat=beam.DoFn.TimerParam(BEAT)):
    beat.set(Timestamp.now() + Duration(seconds=3600))
    if not told.read():
      told.add(1)
      yield key


def test_a_drain_does_not_wait_for_timers_by_the_clock(tmp_path):
  path, told = str(tmp_path / 'elements'), str(tmp_path / 'told')
  p = pipeline('--streaming')
  numbers = p | beam.Create(['kept']) | beam.ParDo(Count())
  numbers | beam.ParDo(Record(path))
  numbers | beam.MapTuple(lambda k, at: ('ab'[at % 2], at)) | beam.ParDo(Beat()) | 'Told' >> beam.ParDo(Record(told))
  result = p.run()
  deadline = time.time() + 270
  while not os.path.exists(path) and time.time() < deadline:
    time.sleep(0.1)
  drain(result)
  with open(told, encoding='utf-8') as lines:
    assert sorted(eval(line) for line in lines) == ['a', 'b']


class Tick(beam.DoFn):
  """A timer in event time that sets itself again until the end of time."""
  TICK = userstate.TimerSpec('tick', userstate.TimeDomain.WATERMARK)

  def process(self, element, t=beam.DoFn.TimestampParam, tick=beam.DoFn.TimerParam(TICK)):
    tick.set(t + 1)

  @userstate.on_timer(TICK)
  def on_tick(self, t=beam.DoFn.TimestampParam, tick=beam.DoFn.TimerParam(TICK)):
    tick.set(t + 1)


class NewTags(beam.DoFn):
  """Timers that each set others, for ever."""
  CLOCK = userstate.TimerSpec('clock', userstate.TimeDomain.REAL_TIME)

  def process(self, element, clock=beam.DoFn.TimerParam(CLOCK)):
    clock.set(Timestamp(2**40), dynamic_timer_tag='')

  @userstate.on_timer(CLOCK)
  def on_clock(self, tag=beam.DoFn.DynamicTimerTagParam, clock=beam.DoFn.TimerParam(CLOCK)):
    for digit in '0123456789':
      clock.set(Timestamp(2**40), dynamic_timer_tag=tag + digit)


def test_a_drain_ends_loops_of_timers(tmp_path):
  path = str(tmp_path / 'elements')
  p = pipeline('--streaming')
  numbers = p | beam.Create(['kept']) | beam.ParDo(Count())
  numbers | beam.ParDo(Record(path))
  numbers | beam.ParDo(Tick())
  numbers | beam.ParDo(NewTags())
  result = p.run()
  deadline = time.time() + 270
  while not os.path.exists(path) and time.time() < deadline:
    time.sleep(0.1)
  drain(result)


def test_a_bounded_job_drains_to_its_end():
  """What is bounded is read to its end."""
  p = pipeline()
  p | beam.Create(range(3)) | beam.Map(lambda x: time.sleep(1) or x)
  result = p.run()
  drain(result)


# State and timers that Beam's suites do not reach.


class ManyTags(beam.DoFn):
  """Each element has a timer of its own; the first that fires clears the second and sets one before the third."""
  TIMER = userstate.TimerSpec('timer', userstate.TimeDomain.WATERMARK)

  def process(self, element, timer=beam.DoFn.TimerParam(TIMER)):
    timer.set(Timestamp(10 * element[1]), dynamic_timer_tag=str(element[1]))

  @userstate.on_timer(TIMER)
  def on_timer(
      self, tag=beam.DoFn.DynamicTimerTagParam, at=beam.DoFn.TimestampParam, timer=beam.DoFn.TimerParam(TIMER)):
    if tag == '1':
      timer.clear(dynamic_timer_tag='2')
      timer.set(Timestamp(25), dynamic_timer_tag='between')
    yield tag


class InOrder(beam.DoFn):
  """The elements of a key in the order in which they come."""
  SEEN = userstate.BagStateSpec('seen', coders.StrUtf8Coder())

  def process(self, element, seen=beam.DoFn.StateParam(SEEN)):
    seen.add(element[1])
    tags = list(seen.read())
    if len(tags) == 20:
      yield tags


def test_a_timer_that_fires_changes_those_after_it():
  with pipeline() as p:
    tags = (
        p | beam.Create([('k', n) for n in range(1, 21)])
        | beam.ParDo(ManyTags())
        | beam.Map(lambda tag: ('k', tag))
        | beam.ParDo(InOrder()))
    check(tags, [['1', 'between'] + [str(n) for n in range(3, 21)]])


class Ordered(beam.DoFn):
  LIST = userstate.OrderedListStateSpec('list', coders.StrUtf8Coder())
  DONE = userstate.TimerSpec('done', userstate.TimeDomain.WATERMARK)

  def process(
      self, element, events=beam.DoFn.StateParam(LIST), done=beam.DoFn.TimerParam(DONE), w=beam.DoFn.WindowParam):
    _, (at, value) = element
    events.add((Timestamp(at), value))
    done.set(w.end)

  @userstate.on_timer(DONE)
  def on_done(self, events=beam.DoFn.StateParam(LIST)):
    yield [value for _, value in events.read()]
    yield [value for _, value in events.read_range(Timestamp(2), Timestamp(5))]
    events.clear_range(Timestamp(0), Timestamp(4))
    yield [(int(at), value) for at, value in events.read()]


def test_ordered_list_state():
  with pipeline() as p:
    read = (
        p | beam.Create([('k', (5, 'e')), ('k', (1, 'a')), ('k', (4, 'd')), ('k', (2, 'b'))])
        | beam.WindowInto(window.FixedWindows(10)) | beam.ParDo(Ordered()))
    check(read, [['a', 'b', 'd', 'e'], ['b', 'd'], [(4, 'd'), (5, 'e')]])


class Loop(beam.DoFn):
  """A timer that sets itself again, and tells how often state has seen it."""
  TIMES = userstate.CombiningValueStateSpec('times', combine_fn=sum)
  TICK = userstate.TimerSpec('tick', userstate.TimeDomain.WATERMARK)

  def process(self, element, t=beam.DoFn.TimestampParam, tick=beam.DoFn.TimerParam(TICK)):
    tick.set(t + 1)

  @userstate.on_timer(TICK)
  def on_tick(
      self, key=beam.DoFn.KeyParam, t=beam.DoFn.TimestampParam, times=beam.DoFn.StateParam(TIMES),
      tick=beam.DoFn.TimerParam(TICK)):
    times.add(1)
    if times.read() < 5:
      tick.set(t + 1)
    yield (key, times.read(), int(t))


def test_looping_timers():
  with pipeline() as p:
    ticks = (
        p | beam.Create([('a', 0), ('b', 10)]) | beam.MapTuple(lambda k, t: TimestampedValue((k, t), t))
        | beam.WindowInto(window.FixedWindows(100)) | beam.ParDo(Loop()))
    check(ticks, [('a', n, n) for n in range(1, 6)] + [('b', n, 10 + n) for n in range(1, 6)])


def test_batches_of_sharded_keys_do_not_wait_for_ever():
  with pipeline('--streaming') as p:
    batches = (
        p | beam.Create([('k', i) for i in range(5)])
        | beam.GroupIntoBatches.WithShardedKey(2, max_buffering_duration_secs=1)
        | beam.FlatMapTuple(lambda key, values: [len(values) <= 2] + list(values)))
    check(batches | beam.Filter(lambda x: x is not True and x is not False), range(5), 'values')
    check(batches | beam.Filter(lambda x: x is False), [], 'sizes')


# Sources in real time, and splits of what is slow.


def test_a_periodic_impulse_follows_the_clock():
  begin = time.time()
  with pipeline('--streaming') as p:
    first = time.time()
    counts = (
        p | PeriodicImpulse(first, first + 4, fire_interval=1, apply_windowing=True)
        | beam.Map(lambda _: ('k', 1)) | beam.CombinePerKey(sum))
    check(counts, [('k', 1)] * 4)
  assert time.time() - begin >= 3


class Finite(Endless):
  def initial_restriction(self, element):
    return OffsetRange(0, element)

  def restriction_size(self, element, restriction):
    return restriction.size()


class Slow(beam.DoFn):
  """Stands still amid its restriction until the runner has taken some of it away."""
  CALLS = beam.metrics.Metrics.counter('model', 'calls')

  def process(self, element, tracker=beam.DoFn.RestrictionParam(Finite())):
    self.CALLS.inc()
    restriction = tracker.current_restriction()
    at = restriction.start
    deadline = time.time() + 270
    while tracker.try_claim(at):
      yield at
      at += 1
      while restriction.size() == element and tracker.current_restriction() == restriction and time.time() < deadline:
        time.sleep(0.05)


def test_what_is_slow_is_split():
  p = pipeline()
  check(p | beam.Create([100]) | beam.ParDo(Slow()), range(100))
  result = p.run()
  result.wait_until_finish()
  calls, = result.metrics().query(beam.metrics.MetricsFilter().with_name('calls'))['counters']
  assert calls.committed > 1


# Attempts.


class FailsOnce(beam.DoFn):
  SEEN = beam.metrics.Metrics.counter('model', 'seen')

  def __init__(self, path):
    self.path = path

  def process(self, element):
    self.SEEN.inc()
    if element == 2 and not os.path.exists(self.path):
      open(self.path, 'w', encoding='utf-8').close()
      raise ValueError('once')
    yield element


def test_a_failed_attempt_is_not_in_committed_metrics(tmp_path):
  p = pipeline('--max_attempts=4')
  check(p | beam.Create([1, 2, 3], reshuffle=False) | beam.ParDo(FailsOnce(str(tmp_path / 'failed'))), [1, 2, 3])
  result = p.run()
  result.wait_until_finish()
  seen, = result.metrics().query(beam.metrics.MetricsFilter().with_name('seen'))['counters']
  assert seen.committed == 3
  # The SDK tells the metrics of a failed attempt only where it was asked in time.
  assert seen.attempted >= 3


class Fails(beam.DoFn):
  """Counts its calls in a file."""
  def __init__(self, path):
    self.path = path

  def process(self, element):
    with open(self.path, 'a', encoding='utf-8') as calls:
      calls.write('x')
    raise ValueError(f'no number for {element}')


@pytest.mark.parametrize('more, attempts', [
    ([], 1), (['--max_attempts=2'], 2), (['--max_bundle_attempts=3'], 3), (['--experiments=max_attempts=2'], 2)])
def test_a_failing_dofn_is_told_once_and_last(tmp_path, more, attempts):
  calls = tmp_path / 'calls'
  p = pipeline(*more)
  p | beam.Create([2]) | 'Number' >> beam.ParDo(Fails(str(calls)))
  result = p.run()
  with pytest.raises(Exception) as failure:
    result.wait_until_finish()
  assert calls.read_text(encoding='utf-8') == 'x' * attempts
  text = str(failure.value).strip()
  assert text.splitlines()[-1] == "ValueError: no number for 2 [while running 'Number']"
  assert (f'a bundle failed {attempts} times' in text) == (attempts > 1)
  messages = [m.message_response for m in result._messages if m.HasField('message_response')]
  told = [m for m in messages if m.importance >= beam_job_api_pb2.JobMessage.JOB_MESSAGE_BASIC]
  assert [m.importance for m in told if 'no number for 2' in m.message_text] == [
      beam_job_api_pb2.JobMessage.JOB_MESSAGE_ERROR]
  assert sum('is tried again' in m.message_text for m in told) == (attempts > 1)


# Side inputs that change, and side inputs that are large.


def test_a_triggered_side_input_is_read_as_it_is_by_then():
  with pipeline('--streaming', '--allow_unsafe_triggers') as p:
    stream = p | (
        TestStream().advance_watermark_to(0, tag='main').advance_watermark_to(0, tag='side')
        .add_elements([TimestampedValue(1, 0)], tag='side')
        .add_elements([TimestampedValue('x', 0)], tag='main')
        .add_elements([TimestampedValue(2, 0)], tag='side')
        .add_elements([TimestampedValue('y', 0)], tag='main')
        .advance_watermark_to_infinity(tag='main').advance_watermark_to_infinity(tag='side'))
    side = stream['side'] | beam.WindowInto(
        window.GlobalWindows(), trigger=trigger.Repeatedly(trigger.AfterCount(1)),
        accumulation_mode=trigger.AccumulationMode.ACCUMULATING) | beam.CombineGlobally(sum).without_defaults()
    # A function that does not ask for its window gets what the SDK read of a global side input first, for ever.
    seen = stream['main'] | beam.Map(
        lambda x, side, w=beam.DoFn.WindowParam: (x, sorted(side)), beam.pvalue.AsList(side))
    check(seen, [('x', [1]), ('y', [3])])


@pytest.mark.parametrize('mode', [trigger.AccumulationMode.ACCUMULATING, trigger.AccumulationMode.DISCARDING])
def test_the_latest_firing_of_a_side_input_replaces_those_before(mode):
  with pipeline('--streaming', '--allow_unsafe_triggers') as p:
    stream = p | (
        TestStream().advance_watermark_to(0, tag='main').advance_watermark_to(0, tag='side')
        .add_elements([TimestampedValue(('a', 1), 0)], tag='side')
        .add_elements([TimestampedValue(('b', 2), 0)], tag='side')
        .add_elements([TimestampedValue('x', 0)], tag='main')
        .add_elements([TimestampedValue(('a', 5), 0)], tag='side')
        .add_elements([TimestampedValue('y', 0)], tag='main')
        .advance_watermark_to_infinity(tag='main').advance_watermark_to_infinity(tag='side'))
    side = (
        stream['side'] | beam.Map(lambda kv: kv).with_output_types(tuple[str, int])
        | beam.WindowInto(
            window.GlobalWindows(), trigger=trigger.Repeatedly(trigger.AfterCount(1)), accumulation_mode=mode))
    largest = side | beam.Values() | beam.CombineGlobally(max).without_defaults()
    by_key = side | beam.CombinePerKey(max)
    # A function that does not ask for its window gets what the SDK read of a global side input first, for ever.
    seen = stream['main'] | beam.Map(
        lambda x, largest, pairs, multimap, w=beam.DoFn.WindowParam:
        (x, largest, sorted(pairs), list(multimap['a']), list(multimap['b'])),
        beam.pvalue.AsSingleton(largest), beam.pvalue.AsList(by_key), beam.pvalue.AsMultiMap(by_key))
    check(seen, [('x', 2, [('a', 1), ('b', 2)], [1], [2]), ('y', 5, [('a', 5), ('b', 2)], [5], [2])])


def test_elements_between_sliding_windows_pass_no_reshuffle():
  with pipeline() as p:
    kept = (
        p | beam.Create(range(30)) | beam.Map(lambda t: TimestampedValue(t, t))
        | beam.WindowInto(window.SlidingWindows(3, 10)) | beam.Reshuffle() | beam.Map(lambda t: t))
    check(kept, [t for t in range(30) if t % 10 < 3])


def test_a_side_input_in_sliding_windows_is_read_in_the_earliest():
  with pipeline() as p:
    side = (
        p | 'Side' >> beam.Create([1, 6]) | 'SideTimes' >> beam.Map(lambda t: TimestampedValue(t, t))
        | 'SideWindows' >> beam.WindowInto(window.SlidingWindows(10, 5)))
    seen = (
        p | 'Main' >> beam.Create([2]) | 'MainTimes' >> beam.Map(lambda t: TimestampedValue(t, t))
        | 'MainWindows' >> beam.WindowInto(window.FixedWindows(4))
        | beam.Map(lambda t, side: (t, sorted(side)), beam.pvalue.AsList(side)))
    check(seen, [(2, [1])])


def test_a_late_but_allowed_side_input_is_waited_for():
  with pipeline('--streaming', '--allow_unsafe_triggers') as p:
    stream = p | (
        TestStream().advance_watermark_to(0, tag='main').advance_watermark_to(0, tag='side')
        .add_elements([TimestampedValue('x', 1)], tag='main').advance_watermark_to(20, tag='side')
        .add_elements([TimestampedValue('late', 1)], tag='side')
        .advance_watermark_to_infinity(tag='main').advance_watermark_to_infinity(tag='side'))
    side = stream['side'] | 'Side' >> beam.WindowInto(
        window.FixedWindows(10), trigger=trigger.AfterWatermark(late=trigger.AfterCount(1)),
        accumulation_mode=trigger.AccumulationMode.DISCARDING, allowed_lateness=30)
    seen = (
        stream['main'] | 'Main' >> beam.WindowInto(window.FixedWindows(10))
        | beam.Map(lambda x, side: (x, list(side)), beam.pvalue.AsList(side)))
    check(seen, [('x', ['late'])])


def test_a_side_input_larger_than_a_message():
  with pipeline() as p:
    large = p | 'Large' >> beam.Create(range(40)) | beam.Map(lambda i: bytes([i]) * (1 << 20))
    total = p | beam.Create([0]) | beam.Map(lambda _, parts: sum(map(len, parts)), beam.pvalue.AsIter(large))
    check(total, [40 << 20])


# Environments that differ in their resource hints.


def test_resource_hints_do_not_keep_transforms_apart_from_their_data():
  with pipeline() as p:
    counts = (
        p | beam.Create(['a', 'b', 'a'])
        | beam.Map(lambda x: (x, 1)).with_resource_hints(min_ram='1GB')
        | beam.CombinePerKey(sum).with_resource_hints(min_ram='2GB')
        | beam.MapTuple(lambda k, n: k * n).with_resource_hints(min_ram='3GB'))
    check(counts, ['aa', 'b'])


def test_few_elements_come_in_one_bundle(tmp_path):
  with pipeline() as p:
    numbers = p | beam.Create(range(35))
    batches = numbers | beam.BatchElements(min_batch_size=10, max_batch_size=10) | 'Sizes' >> beam.Map(len)
    check(batches, [10, 10, 10, 5])
    _ = numbers | 'Lines' >> beam.Map(str) | beam.io.WriteToText(str(tmp_path / 'numbers'))
  assert [path.name for path in tmp_path.iterdir()] == ['numbers-00000-of-00001']


class Crowd(beam.DoFn):
  """Elements that each wait for the others: they end only where they are processed at the same time."""
  met = threading.Barrier(2)

  def process(self, element):
    Crowd.met.wait(60)
    yield element


def test_slow_elements_of_one_bundle_are_shared_out():
  with pipeline() as p:
    # In threads of this process, which share the barrier.
    check(p | beam.Create(['a', 'b']) | beam.ParDo(Crowd()), ['a', 'b'])
