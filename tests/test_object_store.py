"""The example's images in an object store: moto's stand-in for Amazon S3, asked over HTTP by a program that is built for it."""
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from all import COMPILED  # pylint: disable=wrong-import-position,redefined-builtin
from test_end_to_end import DATA, ROOT, rows, run, said  # pylint: disable=wrong-import-position

MOTO = os.path.join(ROOT, 'third_party', 'moto', 'bin', 'moto_server')
# Built as tests are: with object stores.
CLASSIFY = os.path.join(ROOT, 'target', 'tests', 'release', 'image-classification')


@pytest.fixture(name='classify', scope='module')
def _classify():
  built = run('cargo', 'build', '-q', *COMPILED, '--bin', 'image-classification', '--bin', 'image-classifier', timeout=1200)
  assert built.returncode == 0, built.stderr

  def classify(store, *options):
    settings = {'AWS_ACCESS_KEY_ID': 'any', 'AWS_SECRET_ACCESS_KEY': 'any', 'AWS_REGION': 'us-east-1',
                'AWS_ENDPOINT': store, 'AWS_ALLOW_HTTP': 'true'}
    return run(CLASSIFY, '--model_name=digits_cnn', '--model_state_dict_path=%s/digits_cnn.safetensors' % DATA,
               '--labels=%s/labels.txt' % DATA, *options, env=settings)

  return classify


def put(url, data=b''):
  # By itself urllib says that it sends a form, which moto would read as one.
  headers = {'Content-Type': 'application/octet-stream'}
  with urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers, method='PUT'), timeout=60) as answer:
    assert answer.status == 200


@pytest.fixture(name='store', scope='module')
def _store(tmp_path_factory):
  """The address of a store with the shipped images under bucket/photos/, and a list of their URLs."""
  made = run('setup/moto.sh', timeout=600)
  if made.returncode != 0:
    (pytest.fail if os.environ.get('CI') else pytest.skip)('moto cannot be installed: ' + made.stderr)
  with socket.create_server(('localhost', 0)) as free:
    port = free.getsockname()[1]
  store = 'http://localhost:%d' % port
  with open(tmp_path_factory.mktemp('moto') / 'log', 'w', encoding='utf-8') as log:
    server = subprocess.Popen([MOTO, '-H', 'localhost', '-p', str(port)], stdout=log, stderr=log)
  try:
    deadline = time.monotonic() + 60
    while True:
      try:
        socket.create_connection(('localhost', port), timeout=1).close()
        break
      except OSError:
        assert server.poll() is None and time.monotonic() < deadline, 'moto does not serve'
        time.sleep(0.1)
    put(store + '/bucket')
    names = rows(os.path.join(DATA, 'images.txt'))
    for name in names:
      with open(os.path.join(DATA, 'images', name), 'rb') as image:
        put('%s/bucket/photos/%s' % (store, name), image.read())
    put(store + '/bucket/photos/notes.txt', b'no image')
    put(store + '/bucket/list.txt', '\n'.join('s3://bucket/photos/' + name for name in names).encode())
    yield store
  finally:
    server.terminate()
    server.wait(30)


@pytest.fixture(name='expected')
def _expected():
  return sorted('s3://bucket/photos/' + row for row in rows(os.path.join(DATA, 'expected.csv')))


@pytest.mark.parametrize('images', ['s3://bucket/photos/', 's3://bucket/photos/*[gG]', 's3://bucket/list.txt'])
def test_images_of_a_prefix_a_pattern_and_a_list(images, store, classify, expected, tmp_path):
  output = tmp_path / 'classes.csv'
  result = classify(store, '--input=' + images, '--output=%s' % output)
  assert result.returncode == 0, result.stderr
  assert rows(output) == expected


def test_an_output_is_a_local_file(store, classify):
  text = said(classify(store, '--input=s3://bucket/photos/', '--output=s3://bucket/out/classes.csv'))
  assert 's3://bucket/out/classes.csv is no local file' in text


def test_what_is_not_there_is_named(store, classify, tmp_path):
  text = said(classify(store, '--input=s3://bucket/nothing/', '--output=%s' % (tmp_path / 'o')))
  assert 's3://bucket/nothing/ names no image' in text
  text = said(classify(store, '--input=s3://elsewhere/photos/', '--output=%s' % (tmp_path / 'o')))
  assert 's3://elsewhere' in text
