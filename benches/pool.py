"""A worker pool whose processes run already: pool.py PROCESSES

Beam's own pool starts a process when a runner asks for a worker, and its imports alone take seconds. Here each process
is a Beam pool of its own that keeps workers in threads; the pool in front hands requests to them in turn. Prints
`POOL <address>` when all are up, and ends with its standard input.
"""
import subprocess
import sys
import threading

import grpc
from apache_beam.portability.api import beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
from apache_beam.utils import thread_pool_executor


class InTurn(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
  """Hands each worker to the next pool."""
  def __init__(self, addresses):
    self.pools = [
        beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(grpc.insecure_channel(address))
        for address in addresses]
    self.lock = threading.Lock()
    self.started = {}

  def StartWorker(self, request, context):
    with self.lock:
      pool = self.pools[len(self.started) % len(self.pools)]
      self.started[request.worker_id] = pool
    return pool.StartWorker(request)

  def StopWorker(self, request, context):
    return self.started.get(request.worker_id, self.pools[0]).StopWorker(request)


def serve_one():
  """A process of the pool."""
  from apache_beam.testing import synthetic_pipeline  # pylint: disable=unused-import
  address, _ = BeamFnExternalWorkerPoolServicer.start()
  print('POOL', address, flush=True)
  sys.stdin.read()


def serve(count):
  processes = [
      subprocess.Popen(
          [sys.executable, __file__, 'one'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
      for _ in range(count)]
  addresses = [process.stdout.readline().split()[1] for process in processes]
  server = grpc.server(thread_pool_executor.shared_unbounded_instance())
  beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(InTurn(addresses), server)
  port = server.add_insecure_port('localhost:0')
  server.start()
  print('POOL localhost:%d' % port, flush=True)
  sys.stdin.read()
  for process in processes:
    process.kill()
    process.wait()


if __name__ == '__main__':
  if sys.argv[1] == 'one':
    serve_one()
  else:
    serve(int(sys.argv[1]))
