#!/usr/bin/env python3
"""How long workers take to be there: benches/workers.py [ROUNDS]

Each round launches the image classification (two images) on a job service that runs already, in every environment, and
reads the service's log: `worker` is from the start of the worker to its connection, `job` is the whole launch. The first
launch on a pool fetches the staged program, later ones find it in the pool's cache. `warm jobs` are launches on a service
that keeps its workers (--worker_idle_timeout), the first one left out. DOCKER needs an engine and `make docker-cpu`
(WORKER_IMAGE names another image). Prints medians in milliseconds.
"""
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(ROOT, 'target', 'release')
DATA = os.path.join(ROOT, 'examples', 'image-classification', 'data')
IMAGE = os.environ.get('WORKER_IMAGE', 'purlin-worker-cpu:latest')


class Program:
  """A service on free ports; its log is in a file."""
  def __init__(self, folder, name, *flags, ports=1):
    self.log = os.path.join(folder, '%s-%d.log' % (name, len(os.listdir(folder))))
    with open(self.log, 'w', encoding='utf-8') as log:
      self.process = subprocess.Popen(
          [os.path.join(BIN, name), *flags], stdout=subprocess.PIPE, stderr=log, text=True)
    lines = [self.process.stdout.readline() for _ in range(ports)]
    self.endpoint = re.search(r'(\S+:\d+)\s*$', lines[0]).group(1)

  def stop(self):
    self.process.terminate()
    self.process.wait()


def milliseconds(log, after):
  """Between a worker's start and its connection, of the log's part after an offset."""
  with open(log, encoding='utf-8') as f:
    f.seek(after)
    found = re.findall(r'worker_ready_ms=(\d+)', f.read())
  return [int(ms) for ms in found]


def launch(service, kind, config, images, output):
  """How long a launch takes, in milliseconds."""
  begin = time.monotonic()
  subprocess.run(
      [os.path.join(BIN, 'image-classification'), '--runner=PortableRunner', '--job_endpoint=' + service.endpoint,
       '--environment_type=' + kind, '--environment_config=' + config, '--input=' + images,
       '--images_dir=%s/images' % DATA, '--output=' + output, '--model_name=digits_cnn',
       '--model_state_dict_path=%s/digits_cnn.safetensors' % DATA, '--labels=%s/labels.txt' % DATA],
      check=True, capture_output=True)
  return (time.monotonic() - begin) * 1000


def main():
  rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
  with tempfile.TemporaryDirectory() as folder:
    # Containers may read it too.
    os.chmod(folder, 0o755)
    images = os.path.join(folder, 'images.txt')
    with open(os.path.join(DATA, 'images.txt'), encoding='utf-8') as f, open(images, 'w', encoding='utf-8') as out:
      out.write(f.readline() + f.readline())
    flags = ['--job_port=0', '--serve_http=false', '--log_level=info', '--clean_artifacts_per_job=false']
    service = Program(folder, 'purlin-job-service', *flags, ports=3)
    keeping = Program(folder, 'purlin-job-service', *flags, '--worker_idle_timeout=10m', ports=3)
    pool = Program(folder, 'purlin-worker-pool', '--port=0')
    has_docker = subprocess.run(
        ['docker', 'image', 'inspect', IMAGE], capture_output=True, check=False).returncode == 0
    kinds = [('LOOPBACK', ''), ('PROCESS', ''), ('EXTERNAL', pool.endpoint)] + [('DOCKER', IMAGE)] * has_docker
    print('%-10s' % '' + ' %14s' * 5 % ('first worker', 'later workers', 'first job', 'later jobs', 'warm jobs'))
    for kind, config in kinds:
      workers, jobs = [], []
      for n in range(rounds + 1):
        offset = os.path.getsize(service.log)
        jobs.append(launch(service, kind, config, images, '%s/out-%s-%d' % (folder, kind, n)))
        workers.append(max(milliseconds(service.log, offset)))
      row = [workers[0], statistics.median(workers[1:]), jobs[0], statistics.median(jobs[1:])]
      # Workers in the launcher end with it. Others are kept for a launch with the same options.
      if kind != 'LOOPBACK':
        warm = [launch(keeping, kind, config, images, '%s/warm-%s' % (folder, kind)) for _ in range(rounds + 1)]
        row.append(statistics.median(warm[1:]))
      print('%-10s' % kind + ' %11d ms' * len(row) % tuple(row), flush=True)
    for program in (service, keeping, pool):
      program.stop()


if __name__ == '__main__':
  main()
