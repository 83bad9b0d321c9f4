"""Models behind real servers: MLServer and BentoML of PyPI, asked by the program ml/remote/examples/ask.rs; and TLS with a token.

The two servers are installed into virtual environments of their own, which takes minutes: LONG_TESTS=1 does so, below the folder that
REMOTE_SERVERS names, or third_party/servers.
"""
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import example_programs  # pylint: disable=wrong-import-position

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SERVERS = os.environ.get('REMOTE_SERVERS', os.path.join(ROOT, 'third_party', 'servers'))
LONG = pytest.mark.skipif(not os.environ.get('LONG_TESTS'), reason='LONG_TESTS=1 installs and runs MLServer and BentoML')
VERSIONS = {'mlserver': '1.7.1', 'bentoml': '1.4.40'}

MLSERVER_MODEL = '''
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceResponse


class Sums(MLModel):
  async def load(self):
    return True

  async def predict(self, payload):
    rows = self.decode(payload.inputs[0], default_codec=NumpyCodec)
    if (rows < 0).any():
      raise InferenceError('negative numbers are not summed')
    sums = rows.sum(axis=1, keepdims=True)
    return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[NumpyCodec.encode_output('y', sums)])
'''
MODEL_SETTINGS = {
    'name': 'sum', 'implementation': 'models.Sums', 'parameters': {'version': 'v1'},
    'inputs': [{'name': 'x', 'datatype': 'FP64', 'shape': [-1, 4]}], 'outputs': [{'name': 'y', 'datatype': 'FP64', 'shape': [-1, 1]}]}
BENTO_SERVICE = '''
import bentoml


@bentoml.service(traffic={"timeout": 30})
class Sums:
  @bentoml.api(batchable=True)
  def predict(self, rows: list[list[float]]) -> list[float]:
    if any(value < 0 for row in rows for value in row):
      raise bentoml.exceptions.InvalidArgument("negative numbers are not summed")
    return [sum(row) for row in rows]
'''


@pytest.fixture(name='ask', scope='session')
def _ask():
  """Runs the example on rows: {number: answer}, {number: error}, and how long it took. PURLIN_ASK names one that is built already."""
  program = example_programs.built('ask', env='PURLIN_ASK')

  def ask(rows, *arguments, env=None):
    lines = '\n'.join(' '.join(map(repr, row)) for row in rows)
    done = subprocess.run([program, *arguments], input=lines, capture_output=True, text=True, check=False, timeout=300,
                          env=dict(os.environ, **(env or {})))
    if done.returncode != 0:
      return done.stderr
    answers, failures, seconds = {}, {}, None
    for line in done.stdout.splitlines():
      word, rest = line.split(' ', 1)
      if word == 'seconds':
        seconds = float(rest)
      elif rest.startswith('failed: '):
        failures[int(word)] = rest
      else:
        assert int(word) not in answers
        answers[int(word)] = json.loads(rest)
    return answers, failures, seconds

  return ask


def installed(package):
  """The folder of the programs of a virtual environment with this package."""
  folder = os.path.join(SERVERS, package)
  programs = os.path.join(folder, 'bin')
  done = os.path.join(folder, 'installed-' + VERSIONS[package])
  if not os.path.exists(done):
    subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
    wanted = '%s==%s' % (package, VERSIONS[package])
    pip = subprocess.run([os.path.join(programs, 'pip'), 'install', '-q', wanted], capture_output=True, text=True, check=False)
    if pip.returncode != 0:
      (pytest.fail if os.environ.get('CI') else pytest.skip)('%s cannot be installed: %s' % (wanted, pip.stderr[-500:]))
    with open(done, 'w', encoding='utf-8'):
      pass
  return programs


def free_port():
  with socket.create_server(('127.0.0.1', 0)) as free:
    return free.getsockname()[1]


def serve(command, folder, url, env=None):
  """Runs a server until it answers at the URL."""
  with open(os.path.join(folder, 'log'), 'w', encoding='utf-8') as log:
    server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=dict(os.environ, **(env or {})))
  deadline = time.monotonic() + 120
  while True:
    try:
      with urllib.request.urlopen(url, timeout=5):
        return server
    except OSError:
      if server.poll() is not None or time.monotonic() > deadline:
        server.kill()
        with open(os.path.join(folder, 'log'), encoding='utf-8') as log:
          pytest.fail('%s does not serve: %s' % (command[0], log.read()[-2000:]))
      time.sleep(0.2)


def stop(server):
  server.terminate()
  try:
    server.wait(30)
  except subprocess.TimeoutExpired:
    server.kill()


@pytest.fixture(name='mlserver', scope='session')
def _mlserver(tmp_path_factory):
  """The URLs of its HTTP and its gRPC port."""
  programs = installed('mlserver')
  folder = tmp_path_factory.mktemp('mlserver')
  http, grpc = free_port(), free_port()
  settings = {'http_port': http, 'grpc_port': grpc, 'metrics_port': free_port(), 'parallel_workers': 0, 'debug': False, 'host': '127.0.0.1'}
  (folder / 'models.py').write_text(MLSERVER_MODEL)
  (folder / 'model-settings.json').write_text(json.dumps(MODEL_SETTINGS))
  (folder / 'settings.json').write_text(json.dumps(settings))
  url = 'http://127.0.0.1:%d'
  server = serve([os.path.join(programs, 'mlserver'), 'start', '.'], str(folder), url % http + '/v2/models/sum/ready')
  yield {'kserve': url % http, 'kserve-grpc': url % grpc}
  stop(server)


@pytest.fixture(name='bento', scope='session')
def _bento(tmp_path_factory):
  programs = installed('bentoml')
  folder = tmp_path_factory.mktemp('bento')
  (folder / 'service.py').write_text(BENTO_SERVICE)
  url = 'http://127.0.0.1:%d' % free_port()
  command = [os.path.join(programs, 'bentoml'), 'serve', 'service:Sums', '--host', '127.0.0.1', '--port', url.rpartition(':')[2]]
  env = {'BENTOML_HOME': str(folder / 'home'), 'BENTOML_DO_NOT_TRACK': '1'}
  server = serve(command, str(folder), url + '/readyz', env)
  yield url
  stop(server)


ROWS = [[float(n), 0.1 * n, 1 / 3, 1e-9 * n] for n in range(5000)]


def check_sums(found, name):
  answers, failures, seconds = found
  assert failures == {}
  assert sorted(answers) == list(range(len(ROWS)))
  for number, row in enumerate(ROWS):
    answer = answers[number]
    assert abs((answer[0] if isinstance(answer, list) else answer) - sum(row)) <= 1e-12 * sum(row)
  print('%s: %d rows in %.2f s, %.0f rows a second' % (name, len(ROWS), seconds, len(ROWS) / seconds))


@LONG
@pytest.mark.parametrize('protocol', ['kserve', 'kserve-grpc'])
def test_mlserver(ask, mlserver, protocol):
  url = mlserver[protocol]
  check_sums(ask(ROWS, protocol, url, 'sum', '--rows=100'), 'MLServer, ' + protocol)
  check_sums(ask(ROWS, protocol, url, 'sum', '--rows=1'), 'MLServer, %s, one row a request' % protocol)


@LONG
@pytest.mark.parametrize('protocol', ['kserve', 'kserve-grpc'])
def test_a_row_that_mlserver_cannot_take(ask, mlserver, protocol):
  rows = [[1.0, 2.0, 3.0, float(n)] for n in range(100)]
  rows[37] = [-1.0, 0.0, 0.0, 0.0]
  rows[61] = [1.0, 2.0]
  answers, failures, _ = ask(rows, protocol, mlserver[protocol], 'sum')
  assert len(answers) == 98 and answers[99] == [105.0]
  assert sorted(failures) == [37, 61]
  assert 'negative numbers are not summed' in failures[37]
  assert 'the row has the shape [2], but the model\'s input is x (FP64 [-1, 4])' in failures[61]


@LONG
@pytest.mark.parametrize('protocol', ['kserve', 'kserve-grpc'])
def test_a_model_that_mlserver_has_not(ask, mlserver, protocol):
  error = ask([[1.0] * 4], protocol, mlserver[protocol], 'product')
  assert 'cannot load the model product at ' + mlserver[protocol] in error
  assert re.search('product.* not found', error), error
  error = ask([[1.0] * 4], protocol, mlserver[protocol], 'sum', '--input=z')
  assert 'it has no input z: it takes x (FP64 [-1, 4])' in error


@LONG
def test_bentoml(ask, bento):
  check_sums(ask(ROWS, 'bento', bento, 'predict', '--rows=100'), 'BentoML')
  check_sums(ask(ROWS, 'bento', bento, 'predict', '--rows=1'), 'BentoML, one row a request')
  rows = [[1.0, float(n)] for n in range(100)]
  rows[37] = [-1.0]
  answers, failures, _ = ask(rows, 'bento', bento, 'predict')
  assert len(answers) == 99 and list(failures) == [37]
  assert 'negative numbers are not summed' in failures[37]
  assert 'has no API classify: it has predict' in ask(rows, 'bento', bento, 'classify')


class Sums(BaseHTTPRequestHandler):
  """KServe's protocol for those who know the token."""
  def _answer(self, status, answer):
    body = json.dumps(answer).encode()
    self.send_response(status)
    self.send_header('Content-Length', str(len(body)))
    self.end_headers()
    self.wfile.write(body)

  def _may(self):
    if self.headers.get('Authorization') == 'Bearer open-sesame':
      return True
    self._answer(401, {'error': '%s is not known here' % self.headers.get('Authorization')})
    return False

  def do_GET(self):  # pylint: disable=invalid-name
    if self._may():
      self._answer(200, MODEL_SETTINGS)

  def do_POST(self):  # pylint: disable=invalid-name
    asked = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
    if self._may():
      data = asked['inputs'][0]['data']
      sums = [sum(data[at:at + 4]) for at in range(0, len(data), 4)]
      self._answer(200, {'outputs': [{'name': 'y', 'datatype': 'FP64', 'shape': [len(sums)], 'data': sums}]})

  def log_message(self, *_):  # pylint: disable=arguments-differ
    pass


@pytest.fixture(name='secure', scope='session')
def _secure(tmp_path_factory):
  """A server with a certificate of its own: its URL, and the certificate."""
  if shutil.which('openssl') is None:
    (pytest.fail if os.environ.get('CI') else pytest.skip)('openssl is not installed')
  folder = tmp_path_factory.mktemp('tls')
  certificate, key = str(folder / 'certificate.pem'), str(folder / 'key.pem')
  subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', certificate, '-days', '2',
                  '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-addext', 'basicConstraints=critical,CA:FALSE'], check=True, capture_output=True)
  server = ThreadingHTTPServer(('127.0.0.1', 0), Sums)
  context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  context.load_cert_chain(certificate, key)
  server.socket = context.wrap_socket(server.socket, server_side=True)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  yield 'https://localhost:%d' % server.server_address[1], certificate
  server.shutdown()


def test_tls_and_a_token(ask, secure):
  url, certificate = secure
  trusts = ('--certificates=' + certificate, '--token=SUMS_TOKEN')
  check_sums(ask(ROWS, 'kserve', url, 'sum', *trusts, env={'SUMS_TOKEN': 'open-sesame'}), 'TLS')
  error = ask([[1.0] * 4], 'kserve', url, 'sum', *trusts, env={'SUMS_TOKEN': 'open-barley'})
  assert re.search(r'401 Unauthorized: .*Bearer \.\.\. is not known here', error) and 'barley' not in error, error
  error = ask([[1.0] * 4], 'kserve', url, 'sum', *trusts)
  assert 'the environment variable SUMS_TOKEN is not set' in error


def test_a_certificate_that_is_not_trusted(ask, secure):
  error = ask([[1.0] * 4], 'kserve', secure[0], 'sum', '--token=SUMS_TOKEN', env={'SUMS_TOKEN': 'open-sesame'})
  assert 'certificate' in error and secure[0] in error, error
