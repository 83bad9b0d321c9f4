"""Times a pipeline of one element, from the call of Run to the terminal state: one_element.py ENDPOINT [RUNS]

The worker is Beam's, in this process. Prints a line for each run, in milliseconds: the whole; what remains without the
time from the request for a worker to the worker's readiness for its control stream; and how much of that the worker
spent in bundles.
"""
import logging
import sys
import threading
import time

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_fn_api_pb2_grpc
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.portability.api import beam_job_api_pb2_grpc
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.worker import sdk_worker
from apache_beam.runners.worker import worker_pool_main
from apache_beam.transforms import environments
from apache_beam.utils import thread_pool_executor

State = beam_job_api_pb2.JobState
TERMINAL = {State.DONE, State.FAILED, State.CANCELLED, State.UPDATED, State.DRAINED}


class Stamps:
  """When what happened in the worker, by the monotonic clock."""
  def __init__(self):
    self.asked = self.ready = None
    self.bundles = 0.0
    self.lock = threading.Lock()


stamps = Stamps()


class Pool(worker_pool_main.BeamFnExternalWorkerPoolServicer):
  def StartWorker(self, request, context):
    stamps.asked = stamps.asked or time.monotonic()
    return super().StartWorker(request, context)


def watch_worker():
  """Takes stamps in Beam's worker."""
  run, process = sdk_worker.SdkHarness.run, sdk_worker.SdkWorker.process_bundle

  def stamped_run(self):
    stamps.ready = stamps.ready or time.monotonic()
    run(self)

  def timed_process(self, *arguments):
    begin = time.monotonic()
    try:
      return process(self, *arguments)
    finally:
      with stamps.lock:
        stamps.bundles += time.monotonic() - begin

  sdk_worker.SdkHarness.run, sdk_worker.SdkWorker.process_bundle = stamped_run, timed_process


def main():
  global stamps
  logging.getLogger().setLevel(logging.WARNING)
  endpoint, runs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
  watch_worker()
  server = grpc.server(thread_pool_executor.shared_unbounded_instance())
  beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(Pool(), server)
  pool = 'localhost:%d' % server.add_insecure_port('localhost:0')
  server.start()
  channel = grpc.insecure_channel(endpoint)
  grpc.channel_ready_future(channel).result(30)
  jobs = beam_job_api_pb2_grpc.JobServiceStub(channel)
  options = PipelineOptions(
      ['--runner=PortableRunner', '--environment_type=EXTERNAL', '--environment_config=' + pool])
  for _ in range(runs):
    p = beam.Pipeline(options=options)
    _ = p | beam.Impulse() | beam.Map(lambda element: element)
    proto = p.to_runner_api(default_environment=environments.ExternalEnvironment(pool))
    handle = JobServiceHandle(jobs, options)
    prepared = handle.prepare(proto)
    handle.stage(proto, prepared.artifact_staging_endpoint.url, prepared.staging_session_token)
    stamps = Stamps()
    begin = time.monotonic()
    job = jobs.Run(beam_job_api_pb2.RunJobRequest(preparation_id=prepared.preparation_id)).job_id
    for event in jobs.GetStateStream(beam_job_api_pb2.GetJobStateRequest(job_id=job)):
      if event.state in TERMINAL:
        break
    whole = time.monotonic() - begin
    if event.state != State.DONE:
      sys.exit('the pipeline ended %s' % State.Enum.Name(event.state))
    starting = stamps.ready - stamps.asked
    print('MILLISECONDS whole %.1f connected %.1f bundles %.1f' % (
        whole * 1e3, (whole - starting) * 1e3, stamps.bundles * 1e3), flush=True)


if __name__ == '__main__':
  main()
