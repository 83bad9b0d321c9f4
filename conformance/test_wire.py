"""What passes between runner and SDK beside elements: pages of large iterables, metrics, samples, status, clocks.

Run by run.py, which sets JOB_ENDPOINT and WEB_ENDPOINT.
"""
import json
import os
import sys
import threading
import time
import unittest
import urllib.error
import urllib.request
from concurrent import futures

import grpc

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_interactive_api_pb2_grpc
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.portability.api import beam_job_api_pb2_grpc
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to
from apache_beam.transforms import window
from apache_beam.utils.timestamp import MAX_TIMESTAMP

ENDPOINT = os.environ['JOB_ENDPOINT']
WEB = os.environ['WEB_ENDPOINT']
BOOT = os.path.join(os.path.dirname(os.environ['JOB_SERVICE']), 'purlin-boot')


def options(*more, process=False):
  flags = ['--runner=PortableRunner', '--job_endpoint=' + ENDPOINT, *more]
  if process:
    config = {'command': BOOT, 'env': {'PURLIN_PYTHON': sys.executable}}
    flags += ['--environment_type=PROCESS', '--environment_config=' + json.dumps(config)]
  else:
    flags += ['--environment_type=LOOPBACK']
  return PipelineOptions(flags)


def get(path):
  with urllib.request.urlopen('http://%s%s' % (WEB, path), timeout=150) as answer:
    return json.load(answer)


def wait_for(what, seconds=270):
  """The first answer that is not empty."""
  end = time.time() + seconds
  while time.time() < end:
    found = what()
    if found:
      return found
    time.sleep(0.1)
  raise AssertionError('nothing came within %d s' % seconds)


def stub():
  return beam_job_api_pb2_grpc.JobServiceStub(grpc.insecure_channel(ENDPOINT))


def infos(job):
  results = stub().GetJobMetrics(beam_job_api_pb2.GetJobMetricsRequest(job_id=job)).metrics
  return list(results.attempted), list(results.committed)


def of(metrics, urn):
  return [info for info in metrics if info.urn == urn]


def varints(payload):
  numbers, value, shift = [], 0, 0
  for byte in payload:
    value |= (byte & 0x7f) << shift
    shift += 7
    if byte < 0x80:
      numbers.append(value)
      value = shift = 0
  return numbers


class Iterate(beam.DoFn):
  def process(self, element):
    key, values = element
    first = sum(len(value) for value in values)
    second = sum(1 for value in values)
    yield key, type(values).__name__ == 'list', first, second


def Gate(path):
  """Holds its bundle until a file is gone. Made here, so that it is pickled whole: workers do not import this file."""
  class Hold(beam.DoFn):
    def process(self, element):
      Metrics.counter('gate', 'passed').inc()
      yield element
      while element == 0 and os.path.exists(path):
        time.sleep(0.05)

  return Hold()


class WireTest(unittest.TestCase):
  def gate(self):
    path = os.path.join(os.environ.get('TMPDIR', '/tmp'), 'gate-%s-%d' % (self.id(), os.getpid()))
    with open(path, 'w'):
      pass
    self.addCleanup(lambda: os.path.exists(path) and os.remove(path))
    return path

  def test_large_groups_come_in_pages(self):
    many = 60000
    with beam.Pipeline(options=options('--state_backed_iterable_bytes=100000')) as p:
      out = (
          p | beam.Create([0]) | beam.FlatMap(lambda _: range(many))
          | beam.Map(lambda n: ('few' if n < 3 else 'many', b'x' * 100)) | beam.GroupByKey()
          | beam.ParDo(Iterate()))
      # A list holds all of it; the other kind fetches as it goes, and again when it is read again.
      assert_that(out, equal_to([('few', True, 300, 3), ('many', False, (many - 3) * 100, many - 3)]))

  def test_groups_below_the_default_come_whole(self):
    with beam.Pipeline(options=options()) as p:
      out = (
          p | beam.Create([0]) | beam.FlatMap(lambda _: range(1000)) | beam.Map(lambda n: (1, b'x' * 100))
          | beam.GroupByKey() | beam.ParDo(Iterate()))
      assert_that(out, equal_to([(1, True, 100000, 1000)]))

  def test_a_page_that_is_kept_too_long_is_an_error(self):
    class Keep(beam.DoFn):
      def process(self, element):
        # Workers of LOOPBACK environments share this process.
        sys.kept_values = element[1]
        yield 1

    class Read(beam.DoFn):
      def process(self, _):
        yield sum(1 for _ in sys.kept_values)

    with self.assertRaisesRegex(Exception, 'until the bundle ends'):
      with beam.Pipeline(options=options('--state_backed_iterable_bytes=1000')) as p:
        _ = (
            p | beam.Create([0]) | beam.FlatMap(lambda _: [(1, b'x' * 100)] * 1000) | beam.GroupByKey()
            | beam.ParDo(Keep()) | beam.Reshuffle() | beam.ParDo(Read()))

  def test_large_elements(self):
    size = 48 << 20
    with beam.Pipeline(options=options()) as p:
      out = (
          p | beam.Create([1, 2]) | beam.Map(lambda n: (n, bytes(size))) | beam.GroupByKey()
          | beam.MapTuple(lambda n, values: (n, sum(len(value) for value in values))))
      assert_that(out, equal_to([(1, size), (2, size)]))

  def check_metrics(self, process):
    p = beam.Pipeline(options=options(process=process))
    _ = (
        p | beam.Create(range(500)) | 'Slow' >> beam.Map(lambda n: time.sleep(0.002) or (n % 5, 'x' * 10))
        | beam.GroupByKey() | 'Use' >> beam.Map(lambda group: group[0]))
    result = p.run()
    result.wait_until_finish()
    attempted, committed = infos(result._job_id)
    for metrics in (attempted, committed):
      counts = {info.labels['PCOLLECTION']: varints(info.payload)[0]
                for info in of(metrics, 'beam:metric:element_count:v1')}
      self.assertIn(500, counts.values())
      self.assertIn(5, counts.values())
      sizes = [varints(info.payload) for info in of(metrics, 'beam:metric:sampled_byte_size:v1')]
      self.assertTrue(any(count > 0 and total >= count for count, total, _, _ in sizes), sizes)
      times = {info.labels['PTRANSFORM']: varints(info.payload)[0]
               for info in of(metrics, 'beam:metric:pardo_execution_time:process_bundle_msecs:v1')}
      slow = [millis for name, millis in times.items() if 'Slow' in name]
      # A second of sleep; the SDK samples where it is, when it comes to it.
      self.assertTrue(slow and sum(slow) > 100, times)

  def test_metrics_in_full(self):
    self.check_metrics(process=False)

  def test_metrics_by_short_ids(self):
    self.check_metrics(process=True)

  def check_progress(self, process):
    gate = self.gate()
    p = beam.Pipeline(options=options(process=process))
    _ = p | beam.Create(range(1, 20)) | beam.Reshuffle() | beam.ParDo(Gate(gate))
    _ = p | 'One' >> beam.Create([0]) | 'Hold' >> beam.ParDo(Gate(gate))
    result = p.run()

    def passed():
      attempted, committed = infos(result._job_id)
      count = lambda metrics: sum(
          varints(info.payload)[0] for info in of(metrics, 'beam:metric:user:sum_int64:v1')
          if info.labels['NAME'] == 'passed')
      return count(attempted) > count(committed) and (count(attempted), count(committed))

    wait_for(passed)
    os.remove(gate)
    result.wait_until_finish()
    query = result.metrics().query()['counters']
    self.assertEqual(sum(counter.committed for counter in query if counter.key.metric.name == 'passed'), 20)

  def test_a_long_bundle_tells_its_progress(self):
    self.check_progress(process=False)

  def test_a_long_bundle_tells_its_progress_by_short_ids(self):
    self.check_progress(process=True)

  def test_workers_tell_how_they_are(self):
    gate = self.gate()
    p = beam.Pipeline(options=options(process=True))
    _ = p | beam.Create([0]) | 'Hold' >> beam.ParDo(Gate(gate))
    result = p.run()

    def told():
      workers = get('/jobs/%s/workers' % result._job_id)
      # The line that it stands at.
      return [worker for worker in workers if 'time.sleep(0.05)' in (worker['status'] or '')]

    [worker] = wait_for(told)
    self.assertIn('THREAD DUMP', worker['status'].upper())
    self.assertIsNone(worker['error'])
    request = urllib.request.Request('http://%s/jobs/%s/workers' % (WEB, result._job_id), method='POST')
    with self.assertRaises(urllib.error.HTTPError) as refused:
      urllib.request.urlopen(request, timeout=150)
    self.assertEqual(refused.exception.code, 405)
    os.remove(gate)
    result.wait_until_finish()
    self.assertEqual(get('/jobs/%s/workers' % result._job_id), [])

  def test_samples_are_shown_beside_their_pcollections(self):
    gate = self.gate()
    p = beam.Pipeline(options=options('--experiments=enable_data_sampling', process=True))
    _ = (
        p | beam.Create([0]) | 'Text' >> beam.Map(lambda n: 'sample-%d' % n) | 'Back' >> beam.Map(lambda text: int(text[-1]))
        | 'Hold' >> beam.ParDo(Gate(gate)))
    result = p.run()

    def sampled():
      collections = get('/jobs/' + result._job_id)['pcollections'].values()
      return any('sample-' in sample['element'] for collection in collections for sample in collection['samples'])

    # The SDK takes them by its own clock.
    wait_for(sampled)
    os.remove(gate)
    result.wait_until_finish()
    self.assertTrue(sampled(), 'they went with the worker')
    with urllib.request.urlopen('http://%s/job/%s' % (WEB, result._job_id), timeout=150) as page:
      self.assertIn('sample-', page.read().decode())

  def test_a_test_stream_by_endpoint(self):
    class Events(beam_interactive_api_pb2_grpc.TestStreamServiceServicer):
      def Events(self, request, _):
        event = beam_runner_api_pb2.TestStreamPayload.Event
        coder = beam.coders.FastPrimitivesCoder()
        for start in (0, 10):
          yield event(element_event=event.AddElements(elements=[
              beam_runner_api_pb2.TestStreamPayload.TimestampedElement(
                  encoded_element=coder.encode('e%d' % at), timestamp=at * 1000)
              for at in (start, start + 5)]))
          yield event(watermark_event=event.AdvanceWatermark(new_watermark=(start + 10) * 1000))
        yield event(watermark_event=event.AdvanceWatermark(new_watermark=MAX_TIMESTAMP.micros // 1000))

    server = grpc.server(futures.ThreadPoolExecutor(2))
    port = server.add_insecure_port('localhost:0')
    beam_interactive_api_pb2_grpc.add_TestStreamServiceServicer_to_server(Events(), server)
    server.start()
    self.addCleanup(server.stop, 0)
    with beam.Pipeline(options=options('--streaming')) as p:
      out = (
          p | TestStream(endpoint='localhost:%d' % port)
          | beam.WindowInto(window.FixedWindows(10)) | beam.Map(lambda text: (1, text)) | beam.GroupByKey()
          | beam.MapTuple(lambda _, texts: sorted(texts)))
      assert_that(out, equal_to([['e0', 'e5'], ['e10', 'e15']]))

  def test_the_state_of_a_job_that_does_not_run_is_refused(self):
    request = beam_job_api_pb2.PrepareJobRequest(job_name='prepared', pipeline=beam.Pipeline().to_runner_api())
    prepared = stub().Prepare(request)
    with self.assertRaises(grpc.RpcError) as refused:
      list(stub().GetStateStream(beam_job_api_pb2.GetJobStateRequest(job_id=prepared.preparation_id), timeout=150))
    self.assertEqual(refused.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)

  def test_a_long_job_lets_a_short_one_pass(self):
    """A job of many elements, with its shuffles, runs; short ones come and go meanwhile."""
    gate = self.gate()

    class Endless(beam.DoFn):
      def process(self, _):
        number = 0
        while os.path.exists(gate):
          number += 1
          yield number % 1000, b'x' * 100

    p = beam.Pipeline(options=options(process=True))
    _ = p | beam.Create([0, 1]) | beam.Reshuffle() | beam.ParDo(Endless()) | beam.GroupByKey() | beam.Map(len)
    long = p.run()
    self.addCleanup(long.cancel)
    wait_for(lambda: of(infos(long._job_id)[0], 'beam:metric:element_count:v1'))
    for _ in range(3):
      with beam.Pipeline(options=options()) as short:
        assert_that(short | beam.Create([3, 1]) | beam.Map(lambda n: n + 1), equal_to([4, 2]))
    # They did not wait for it: it lasts as long as the gate is there.
    self.assertEqual(get('/jobs/' + long._job_id)['state'], 'RUNNING')
    os.remove(gate)


if __name__ == '__main__':
  unittest.main()
