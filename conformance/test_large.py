"""One element of LARGE_MIB mebibytes (300 by default, gRPC passes up to 1945) through the service: from a worker and back.

Run by run.py, which sets JOB_ENDPOINT. Worker and service each hold it several times over.
"""
import os
import unittest

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to

SIZE = int(os.environ.get('LARGE_MIB', '300')) << 20


def pipeline():
  return beam.Pipeline(options=PipelineOptions([
      '--runner=PortableRunner', '--environment_type=LOOPBACK', '--job_endpoint=' + os.environ['JOB_ENDPOINT']]))


def ends(value):
  return len(value), value[:1], value[-1:]


class LargeTest(unittest.TestCase):
  def test_an_element(self):
    with pipeline() as p:
      seen = (
          p | beam.Create([SIZE]) | beam.Map(lambda size: b'<' + bytes(size - 2) + b'>') | beam.Reshuffle()
          | beam.Map(ends))
      assert_that(seen, equal_to([(SIZE, b'<', b'>')]))

  def test_a_value_of_a_side_input(self):
    with pipeline() as p:
      large = p | 'Large' >> beam.Create([SIZE]) | beam.Map(lambda size: b'<' + bytes(size - 2) + b'>')
      seen = p | beam.Create([0]) | beam.Map(lambda _, value: ends(value), beam.pvalue.AsSingleton(large))
      assert_that(seen, equal_to([(SIZE, b'<', b'>')]))


if __name__ == '__main__':
  unittest.main()
