#!/usr/bin/env python3
"""Runs many small jobs, one after another, on one job service, and prints what the service takes as it goes on.

    benches/small_jobs.py                   1,000 jobs, each with a worker of its own in a pool of Beam's
    benches/small_jobs.py --jobs 200 --workerless

Run it with a Python that has apache-beam (third_party/venv/bin/python). A job is a Create of ten numbers, a Map and a
GroupByKey; with --workerless an Impulse, which the service does alone. A row tells, after so many jobs: resident memory
of the service (MiB), its threads, its open files, and the jobs of a second so far. Two hundred ended jobs are
remembered, so the memory of the first rows may grow a little. The last line compares the end with the row after 200 jobs;
exits with 1 if a job fails, or if memory grew by more than 50 MiB, or threads or files by more than 10. JOB_SERVICE names
the binary, if it is not the release build. The log goes to target/bench-logs.
"""
import argparse
import os
import sys
import time

import grpc
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.worker import worker_pool_main
from google.protobuf import struct_pb2

import job_service

GROWTH_MIB = 50
GROWTH_COUNT = 10
SECONDS = 60


def pipeline(pool):
  """A small pipeline, whose workers come from the pool at this address."""
  options = PipelineOptions(['--environment_type=EXTERNAL', '--environment_config=' + (pool or 'localhost:1')])
  p = beam.Pipeline(options=options, runner='PortableRunner')
  if pool:
    _ = (p | beam.Create(range(10), reshuffle=False) | beam.Map(lambda n: (n % 3, n)) | beam.GroupByKey())
  else:
    _ = p | beam.Impulse()
  environment = PortableRunner._create_environment(options)
  return p.to_runner_api(default_environment=environment)


def run(stub, proto):
  """Runs a job to its end; returns its last state."""
  prepared = stub.Prepare(beam_job_api_pb2.PrepareJobRequest(
      job_name='small', pipeline=proto, pipeline_options=struct_pb2.Struct()), timeout=SECONDS)
  job = stub.Run(beam_job_api_pb2.RunJobRequest(preparation_id=prepared.preparation_id), timeout=SECONDS).job_id
  last = None
  for event in stub.GetMessageStream(beam_job_api_pb2.JobMessagesRequest(job_id=job), timeout=SECONDS):
    if event.HasField('state_response'):
      last = event.state_response.state
  return last


def figures(pid):
  """Resident MiB, threads and open files of a process."""
  with open('/proc/%d/status' % pid) as status:
    lines = dict(line.split(':', 1) for line in status)
  return (int(lines['VmRSS'].split()[0]) / 1024, int(lines['Threads']), len(os.listdir('/proc/%d/fd' % pid)))


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--jobs', type=int, default=1000)
  parser.add_argument('--workerless', action='store_true', help='jobs that the service does alone')
  args = parser.parse_args()
  os.makedirs(job_service.LOGS, exist_ok=True)
  server, pool = None, None
  if not args.workerless:
    pool, server = worker_pool_main.BeamFnExternalWorkerPoolServicer.start(use_process=False)
  try:
    proto = pipeline(pool)
    with job_service.Service('purlin', os.path.join(job_service.LOGS, 'small-jobs.service.log')) as service:
      print('%6s %9s %8s %6s %8s' % ('jobs', 'MiB', 'threads', 'files', 'jobs/s'))
      begin, base, now = time.monotonic(), None, None
      with grpc.insecure_channel('localhost:%d' % service.port) as channel:
        stub = beam_job_api_pb2_grpc.JobServiceStub(channel)
        for n in range(1, args.jobs + 1):
          state = run(stub, proto)
          if state != beam_job_api_pb2.JobState.DONE:
            sys.exit('job %d ended as %s' % (n, beam_job_api_pb2.JobState.Enum.Name(state or 0)))
          if n in (1, 10, 50) or n % 100 == 0 or n == args.jobs:
            now = figures(service.process.pid)
            print('%6d %9.1f %8d %6d %8.1f' % (n, *now, n / (time.monotonic() - begin)), flush=True)
            if n <= 200:
              base = now
      grown = [end - start for end, start in zip(now, base)]
      print('since %d jobs: %+.1f MiB, %+d threads, %+d files' % (min(200, args.jobs), *grown))
      return int(grown[0] > GROWTH_MIB or max(grown[1:]) > GROWTH_COUNT)
  finally:
    if server:
      server.stop(0)


if __name__ == '__main__':
  code = main()
  sys.stdout.flush()
  # The workers' threads of this process are not awaited.
  os._exit(code)
