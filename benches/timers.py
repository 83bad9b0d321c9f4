"""Fires timers of one key, each of a tag and a time of its own: timers.py TIMERS [pipeline options]

How many fired is checked. For benches/job_service.py, which starts it on job services.
"""
import sys

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import userstate
from apache_beam.utils.timestamp import Timestamp


class Tags(beam.DoFn):
  TIMER = userstate.TimerSpec('timer', userstate.TimeDomain.WATERMARK)

  def process(self, element, timer=beam.DoFn.TimerParam(TIMER)):
    timer.set(Timestamp(element[1] + 1), dynamic_timer_tag=str(element[1]))

  @userstate.on_timer(TIMER)
  def fire(self, tag=beam.DoFn.DynamicTimerTagParam):
    yield tag


def check(found, expected):
  if found != expected:
    raise ValueError('%d timers fired, not %d' % (found, expected))


def main(arguments):
  count = int(arguments[0])
  with beam.Pipeline(options=PipelineOptions(arguments[1:])) as p:
    _ = (
        p
        | beam.Create(range(count))
        | 'Pair' >> beam.Map(lambda n: ('key', n))
        | beam.ParDo(Tags())
        | 'Count' >> beam.combiners.Count.Globally()
        | 'Check' >> beam.Map(check, count))


if __name__ == '__main__':
  main(sys.argv[1:])
