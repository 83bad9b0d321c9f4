"""Writes the pipeline protos that Beam's Python SDK would submit, for the translation's tests.

Run with the Python that has apache-beam: python make_pipelines.py
"""

import os

import apache_beam as beam
from apache_beam import coders
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability import portable_runner
from apache_beam.testing.test_stream import TestStream
from apache_beam.transforms import environments, trigger, userstate, window
from apache_beam.transforms.window import TimestampedValue
from google.protobuf import wrappers_pb2

HERE = os.path.dirname(os.path.abspath(__file__))


class Words(beam.DoFn):
  def process(self, line):
    yield from line.split()


def wordcount(p):
  (
      p | 'Lines' >> beam.Create(['to be or', 'not to be'])
      | 'Split' >> beam.ParDo(Words())
      | 'PairWithOne' >> beam.Map(lambda word: (word, 1)).with_output_types(tuple[str, int])
      | 'Count' >> beam.CombinePerKey(sum)
      | 'Format' >> beam.MapTuple(lambda word, count: f'{word}: {count}'))


def text_wordcount(p):
  (
      p | 'Read' >> beam.io.ReadFromText('/nowhere/in*.txt', validate=False)
      | 'Split' >> beam.FlatMap(str.split).with_output_types(str)
      | 'PairWithOne' >> beam.Map(lambda word: (word, 1))
      | 'GroupAndSum' >> beam.CombinePerKey(sum)
      | 'Format' >> beam.MapTuple(lambda word, count: f'{word}: {count}')
      | 'Write' >> beam.io.WriteToText('/nowhere/out'))


def side_inputs(p):
  main = p | 'Main' >> beam.Create([1, 2, 3]) | 'Window' >> beam.WindowInto(window.FixedWindows(10))
  side = p | 'Side' >> beam.Create([('a', 1)])
  (
      main | 'Use' >> beam.Map(
          lambda x, one, table, many: (x, one, table, many),
          one=beam.pvalue.AsSingleton(side), table=beam.pvalue.AsDict(side),
          many=beam.pvalue.AsMultiMap(side)))


class Stateful(beam.DoFn):
  BAG = userstate.BagStateSpec('bag', coders.VarIntCoder())
  SUM = userstate.CombiningValueStateSpec('sum', sum)
  TIMER = userstate.TimerSpec('end', userstate.TimeDomain.WATERMARK)
  WALL = userstate.TimerSpec('wall', userstate.TimeDomain.REAL_TIME)

  def process(
      self, element, bag=beam.DoFn.StateParam(BAG), total=beam.DoFn.StateParam(SUM),
      end=beam.DoFn.TimerParam(TIMER), wall=beam.DoFn.TimerParam(WALL)):
    bag.add(1)
    yield element

  @userstate.on_timer(TIMER)
  def on_end(self):
    yield ('end', 1)

  @userstate.on_timer(WALL)
  def on_wall(self):
    yield ('wall', 1)


def stateful(p):
  p | beam.Create([('a', 1)]) | 'Stateful' >> beam.ParDo(Stateful()) | beam.Reshuffle()


class Marker(window.BoundedWindow):
  def __init__(self, n):
    super().__init__(n)
    self.n = n

  def __hash__(self):
    return self.n

  def __eq__(self, other):
    return self.n == other.n


class MarkerCoder(coders.Coder):
  def encode(self, value):
    return b'%d' % value.n

  def decode(self, encoded):
    return Marker(int(encoded))

  def is_deterministic(self):
    return True


class MergingFn(window.WindowFn):
  def assign(self, context):
    return [Marker(int(context.timestamp))]

  def merge(self, context):
    context.merge(context.windows, Marker(100))

  def get_window_coder(self):
    return MarkerCoder()


def custom_windows(p):
  (
      p | beam.Create([1, 2]) | beam.Map(lambda x: TimestampedValue(('k', x), x))
      | beam.WindowInto(MergingFn()) | beam.GroupByKey())


def triggers(p):
  (
      p | beam.Create([('a', 1)])
      | beam.WindowInto(
          window.FixedWindows(60),
          trigger=trigger.AfterWatermark(
              early=trigger.AfterProcessingTime(5), late=trigger.AfterCount(2)),
          accumulation_mode=trigger.AccumulationMode.ACCUMULATING, allowed_lateness=30)
      | beam.GroupByKey())


def test_stream(p):
  (
      p | TestStream(coder=coders.StrUtf8Coder()).advance_watermark_to(0).add_elements(['a', 'b'])
      .advance_processing_time(10).advance_watermark_to_infinity()
      | beam.Map(lambda x: x))


def flatten(p):
  ints = p | 'Ints' >> beam.Create([1]) | 'I' >> beam.Map(lambda x: x).with_output_types(int)
  strings = p | 'Strings' >> beam.Create(['a']) | 'S' >> beam.Map(lambda x: x).with_output_types(str)
  other = p | 'More' >> beam.Create([2]) | 'M' >> beam.Map(lambda x: x).with_output_types(int)
  (ints, strings) | 'Mixed' >> beam.Flatten() | 'MixedUse' >> beam.Map(lambda x: x)
  (ints, other) | 'Same' >> beam.Flatten() | 'SameUse' >> beam.Map(lambda x: x)
  ({'a': ints | 'KI' >> beam.Map(lambda x: (x, x)), 'b': other | 'KO' >> beam.Map(lambda x: (x, x))}) | beam.CoGroupByKey()


def batches(p):
  p | beam.Create([('a', 1)]) | beam.GroupIntoBatches(2)
  p | 'C2' >> beam.Create([('a', 1)]) | beam.GroupIntoBatches.WithShardedKey(2)


class Packable(beam.PTransform):
  def annotations(self):
    return {python_urns.APPLY_COMBINER_PACKING: b''}

  def expand(self, values):
    # pylint: disable=expression-not-assigned
    values | 'Min' >> beam.CombineGlobally(min)
    values | 'Max' >> beam.CombineGlobally(max)


def packed(p):
  p | beam.Create([1, 2]) | Packable()


def write(name, build, optimize):
  options = PipelineOptions(
      ['--experiments=pre_optimize=%s' % optimize, '--environment_type=EXTERNAL',
       '--environment_config=localhost:1'])
  p = beam.Pipeline(runner='PortableRunner', options=options)
  build(p)
  environment = environments.ExternalEnvironment(
      'localhost:1', capabilities=environments.python_sdk_capabilities())
  proto = p.to_runner_api(default_environment=environment)
  proto = portable_runner.PortableRunner._optimize_pipeline(proto, options)
  # Display data and capabilities that name this machine's installation say nothing here.
  for transform in proto.components.transforms.values():
    del transform.display_data[:]
    for key in [k for k in transform.annotations if k != python_urns.APPLY_COMBINER_PACKING]:
      del transform.annotations[key]
  for environment in proto.components.environments.values():
    kept = [c for c in environment.capabilities if not c.startswith('beam:version')]
    del environment.capabilities[:]
    environment.capabilities.extend(sorted(kept))
    del environment.dependencies[:]
  blank_functions(proto.components)
  data = proto.SerializeToString(deterministic=True)
  with open(os.path.join(HERE, f'{name}.pb'), 'wb') as out:
    out.write(data)
  print(name, len(data))


def blank(spec):
  if 'python' in spec.urn or spec.urn.startswith('beam:dofn'):
    spec.payload = b'pickled'


def blank_functions(components):
  """Pickled functions say nothing to a runner, and name the files of the machine that pickled them."""
  for coder in components.coders.values():
    blank(coder.spec)
  for strategy in components.windowing_strategies.values():
    blank(strategy.window_fn)
  for transform in components.transforms.values():
    spec = transform.spec
    if spec.urn == common_urns.primitives.PAR_DO.urn:
      payload = beam_runner_api_pb2.ParDoPayload.FromString(spec.payload)
      blank(payload.do_fn)
      for side_input in payload.side_inputs.values():
        blank(side_input.view_fn)
        blank(side_input.window_mapping_fn)
    elif spec.urn.startswith('beam:transform:combine'):
      payload = beam_runner_api_pb2.CombinePayload.FromString(spec.payload)
      payload.combine_fn.payload = wrappers_pb2.BytesValue(value=b'pickled').SerializeToString()
    elif spec.urn == common_urns.primitives.ASSIGN_WINDOWS.urn:
      payload = beam_runner_api_pb2.WindowingStrategy.FromString(spec.payload)
      blank(payload.window_fn)
    elif 'python' in spec.urn:
      spec.payload = b'pickled'
      continue
    else:
      continue
    spec.payload = payload.SerializeToString(deterministic=True)


def main():
  write('wordcount', wordcount, 'default')
  write('wordcount_plain', wordcount, 'none')
  write('text_wordcount', text_wordcount, 'default')
  for build in (side_inputs, stateful, custom_windows, triggers, test_stream, flatten, batches, packed):
    write(build.__name__, build, 'none')


if __name__ == '__main__':
  main()
