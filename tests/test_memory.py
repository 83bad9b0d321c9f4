"""What the job service holds when jobs are over: the release binary, jobs of Beam's Python SDK, and memory as Linux tells it.

Needs `make services` first; tests/all.py does that. The pipelines run in another process, for the memory of this one is its
children's at first.
"""
import os
import subprocess
import sys
import textwrap
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from test_workers import PYTHON, service, until  # pylint: disable=wrong-import-position

# What may stay of all jobs together.
MIB = 50


@pytest.fixture(name='start')
def _start():
  started = []

  def start(*flags, **options):
    started.append(service(*flags, **options))
    return started[-1]

  yield start
  for program in started:
    program.process.kill()
    program.process.wait()


def resident(program):
  """Resident memory in MiB."""
  with open('/proc/%d/status' % program.process.pid, encoding='utf-8') as f:
    lines = dict(line.split(':', 1) for line in f)
  return int(lines['VmRSS'].split()[0]) / 1024


def given_back(program, before):
  until('at most %d MiB more than %.0f' % (MIB, before), lambda: resident(program) <= before + MIB, 20)


def python(program, endpoint, *arguments):
  return subprocess.run([PYTHON, '-c', textwrap.dedent(program), endpoint, *arguments], capture_output=True, text=True,
                        timeout=120, check=False)


# 100 elements of 1 MiB as a side input, and grouped. With FAILS the last transform fails when all of it is there.
LARGE = """
    import os, sys, apache_beam as b
    endpoint, fails = sys.argv[1:]
    def check(_, large):
        assert sum(map(len, large)) == 100 << 20
        assert not fails, 'it is to fail'
    def grouped(pair):
        assert sum(map(len, pair[1])) == 100 << 20
    with b.Pipeline(argv=['--runner=PortableRunner', '--job_endpoint=' + endpoint, '--environment_type=LOOPBACK']) as p:
        large = p | b.Create(range(100)) | b.Map(lambda n: os.urandom(1 << 20))
        _ = p | 'One' >> b.Create([0]) | b.Map(check, b.pvalue.AsIter(large))
        _ = large | b.Map(lambda e: (0, e)) | b.GroupByKey() | 'Grouped' >> b.Map(grouped)
"""


def test_what_jobs_held_is_given_back_when_they_end(start):
  """Large side inputs and groups, of jobs that are done and of jobs that fail with all of it in the queues."""
  running = start()
  before, most = resident(running), 0
  for fails in ['', 'fails']:
    job = subprocess.Popen([PYTHON, '-c', textwrap.dedent(LARGE), running.endpoint, fails], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True)
    while job.poll() is None:
      most = max(most, resident(running))
      time.sleep(0.01)
    said = job.stdout.read()
    assert ('it is to fail' in said if fails else job.returncode == 0), said
    given_back(running, before)
  # Else it would show nothing.
  assert most > before + 2 * MIB


# 300 jobs with options of 1 MB. Every tenth stages a file of 1 MB, and every other tenth half of one.
PREPARES = """
    import hashlib, queue, sys, grpc
    from apache_beam.portability.api import beam_artifact_api_pb2 as artifacts, beam_artifact_api_pb2_grpc as artifacts_grpc
    from apache_beam.portability.api import beam_job_api_pb2 as jobs, beam_job_api_pb2_grpc as jobs_grpc
    from apache_beam.portability.api import beam_runner_api_pb2 as proto
    from google.protobuf import struct_pb2
    import apache_beam as b

    p = b.Pipeline()
    _ = p | b.Create([1]) | b.Map(print)
    made = p.to_runner_api()

    def pipeline(content):
        file = proto.ArtifactFilePayload(path='/nowhere', sha256=hashlib.sha256(content).hexdigest())
        role = proto.ArtifactStagingToRolePayload(staged_name='file')
        for environment in made.components.environments.values():
            del environment.dependencies[:]
            environment.dependencies.add(type_urn='beam:artifact:type:file:v1', type_payload=file.SerializeToString(),
                                         role_urn='beam:artifact:role:staging_to:v1', role_payload=role.SerializeToString())
        return made

    def stage(stub, token, content, whole):
        answers = queue.Queue()
        answers.put(artifacts.ArtifactResponseWrapper(staging_token=token))
        calls.append(stub.ReverseArtifactRetrievalService(iter(answers.get, None)))
        for request in calls[-1]:
            if request.HasField('resolve_artifact'):
                answers.put(artifacts.ArtifactResponseWrapper(
                    resolve_artifact_response=artifacts.ResolveArtifactsResponse(
                        replacements=request.resolve_artifact.artifacts)))
            elif whole:
                answers.put(artifacts.ArtifactResponseWrapper(
                    get_artifact_response=artifacts.GetArtifactResponse(data=content)))
                answers.put(artifacts.ArtifactResponseWrapper(
                    get_artifact_response=artifacts.GetArtifactResponse(), is_last=True))
                answers.put(None)
            else:
                answers.put(artifacts.ArtifactResponseWrapper(
                    get_artifact_response=artifacts.GetArtifactResponse(data=content[:len(content) // 2])))
                # The call stays open, and nothing more comes.
                return

    channel = grpc.insecure_channel(sys.argv[1])
    stub = jobs_grpc.JobServiceStub(channel)
    options = struct_pb2.Struct()
    options.update({'beam:option:much:v1': 'x' * 1000000})
    prepared, calls = [], []
    for n in range(300):
        content = n.to_bytes(4, 'big') * 250000
        try:
            job = stub.Prepare(jobs.PrepareJobRequest(job_name='never', pipeline=pipeline(content), pipeline_options=options))
        except grpc.RpcError as error:
            # There is room for 256 MiB of them.
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
            continue
        prepared.append(job.preparation_id)
        if n % 5 == 0:
            staging = artifacts_grpc.ArtifactStagingServiceStub(grpc.insecure_channel(job.artifact_staging_endpoint.url))
            stage(staging, job.staging_session_token, content, n % 10 == 0)
    assert len(prepared) > 200, len(prepared)
    print('prepared', flush=True)
    sys.stdin.read()
"""


def test_prepared_jobs_that_never_run_are_given_back_with_their_files(start, tmp_path):
  running = start('--prepared_job_timeout=15s', env=dict(os.environ, TMPDIR=str(tmp_path)))
  before = resident(running)
  client = subprocess.Popen([PYTHON, '-c', textwrap.dedent(PREPARES), running.endpoint], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)
  # It stays, so that nothing goes because of its end.
  assert client.stdout.readline() == 'prepared\n'
  folder, = tmp_path.glob('purlin-artifacts-*/files')
  held, files = resident(running), len(list(folder.iterdir()))
  assert held > before + 4 * MIB and files > 40, (held, files)
  given_back(running, before)
  until('the end of the files', lambda: not list(folder.iterdir()))
  client.communicate()
