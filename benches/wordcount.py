"""Counts words: wordcount.py WORDS [pipeline options]

The words are made in the workers, from numbers, so that nothing is read: five to a line, most of them rare. The count
of distinct words is checked. For benches/job_service.py, which starts it on job services.
"""
import sys

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

WORDS_A_LINE = 5
LINES_A_BLOCK = 1000


def block(start):
  """The lines of a block: words of 7, 101, 1009 and of all lines, and one word that each line has."""
  for i in range(start * LINES_A_BLOCK, (start + 1) * LINES_A_BLOCK):
    yield 'w%d w%d w%d w%d common' % (i % 7, i % 101, i % 1009, i)


def check(found, expected):
  if found != expected:
    raise ValueError('%d distinct words were counted, not %d' % (found, expected))


def main(arguments):
  lines = int(arguments[0]) // WORDS_A_LINE
  if lines < 1009 or lines % LINES_A_BLOCK:
    sys.exit('WORDS must be a multiple of %d, from 10000 on' % (WORDS_A_LINE * LINES_A_BLOCK))
  with beam.Pipeline(options=PipelineOptions(arguments[1:])) as p:
    _ = (
        p
        | beam.Create(range(lines // LINES_A_BLOCK))
        | beam.Reshuffle()
        | 'Lines' >> beam.FlatMap(block)
        | 'Split' >> beam.FlatMap(str.split)
        | 'Pair' >> beam.Map(lambda word: (word, 1))
        | beam.GroupByKey()
        | 'Sum' >> beam.Map(lambda counted: (counted[0], sum(counted[1])))
        | 'Distinct' >> beam.combiners.Count.Globally()
        # The numbers of lines are words too, and 'common'.
        | 'Check' >> beam.Map(check, lines + 1))


if __name__ == '__main__':
  main(sys.argv[1:])
