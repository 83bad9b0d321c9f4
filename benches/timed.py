"""Runs a Beam program as __main__ and prints how many seconds it took, its imports left out: timed.py PROGRAM ARGUMENT...

PROGRAM is a file's path or a module's name.
"""
import logging
import runpy
import sys
import time

import apache_beam  # pylint: disable=unused-import
# What programs import when they run on a job service, so that the time is of the run alone.
from apache_beam.runners.portability import portable_runner  # pylint: disable=unused-import
from apache_beam.runners.worker import worker_pool_main  # pylint: disable=unused-import
from apache_beam.testing import synthetic_pipeline  # pylint: disable=unused-import
from apache_beam.testing.load_tests import load_test  # pylint: disable=unused-import


def main():
  program = sys.argv[1]
  sys.argv = sys.argv[1:]
  logging.getLogger().setLevel(logging.WARNING)
  begin = time.monotonic()
  if program.endswith('.py'):
    runpy.run_path(program, run_name='__main__')
  else:
    runpy.run_module(program, run_name='__main__', alter_sys=True)
  print('SECONDS %.3f' % (time.monotonic() - begin))


if __name__ == '__main__':
  main()
