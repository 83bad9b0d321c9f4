"""The program and the services as a user runs them: the release binaries, real gRPC, real files.

Needs `make build` first; tests/all.py does that.
"""
import csv
import http.server
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(ROOT, 'target', 'release')
CLASSIFY = os.path.join(BIN, 'image-classification')
SERVICE = os.path.join(BIN, 'purlin-job-service')
DATA = os.path.join(ROOT, 'examples', 'image-classification', 'data')


def run(*arguments, cwd=ROOT, env=None, timeout=120):
  return subprocess.run(
      [str(a) for a in arguments], cwd=cwd, env=dict(os.environ, **(env or {})), capture_output=True, text=True,
      timeout=timeout)


def classify(output, *options, images='images.txt'):
  return run(
      CLASSIFY, '--input=%s/%s' % (DATA, images) if '/' not in str(images) else '--input=%s' % images,
      '--images_dir=%s/images' % DATA, '--output=%s' % output, '--model_name=digits_cnn',
      '--model_state_dict_path=%s/digits_cnn.safetensors' % DATA, '--labels=%s/labels.txt' % DATA, *options)


def rows(path):
  with open(path, encoding='utf-8') as f:
    return sorted(f.read().splitlines())


def said(result):
  """What a failed run said; a panic is never an answer."""
  text = result.stdout + result.stderr
  # Not by a signal either.
  assert result.returncode > 0, text
  assert 'panicked' not in text and 'RUST_BACKTRACE' not in text, text
  return text


def free_ports(*names):
  """A port that is free for each setting, as make is given them."""
  taken = [socket.create_server(('localhost', 0)) for _ in names]
  ports = {name: str(s.getsockname()[1]) for name, s in zip(names, taken)}
  for s in taken:
    s.close()
  return ports


class Service:
  """A job service on free ports."""
  def __init__(self, *flags):
    self.process = subprocess.Popen(
        [SERVICE, '--job_port=0', '--artifact_port=0', '--expansion_port=0', *flags],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    self.endpoints = []
    while len(self.endpoints) < 3:
      line = self.process.stdout.readline()
      assert line, 'the service ended with %s' % self.process.wait()
      self.endpoints += re.findall(r'(\S+:\d+)\s*$', line)
    self.job = self.endpoints[0]

  def stop(self, sent=signal.SIGTERM):
    self.process.send_signal(sent)
    return self.process.wait(20)


@pytest.fixture(name='service')
def _service():
  service = Service()
  yield service
  if service.process.poll() is None:
    assert service.stop() == 0


@pytest.fixture(name='expected')
def _expected():
  return rows(os.path.join(DATA, 'expected.csv'))


# The modes.


@pytest.mark.modes
@pytest.mark.parametrize('mode', ['run-direct', 'run-prism'])
def test_make_target(mode, tmp_path, expected):
  ports = free_ports('JOB_PORT', 'ARTIFACT_PORT', 'EXPANSION_PORT') if mode == 'run-prism' else {}
  output = tmp_path / 'classes.csv'
  result = run('make', mode, 'OUTPUT=%s' % output, env=ports)
  assert result.returncode == 0, result.stdout + result.stderr
  assert rows(output) == expected
  for word in ('rows', 'errors', 'images/s', 'read', 'decode', 'preprocess', 'inference', 'write'):
    assert word in result.stdout, result.stdout


def assert_a_mismatch_fails(target, folder, expected, **options):
  wrong = folder / 'wrong.csv'
  wrong.write_text('\n'.join(expected[1:] + ['nothing.png,0']) + '\n')
  result = run('make', target, 'OUTPUT=%s' % (folder / 'o.csv'), 'EXPECTED=%s' % wrong, **options)
  assert 'nothing.png' in said(result)


def test_a_mismatch_fails_the_target(tmp_path, expected):
  assert_a_mismatch_fails('run-direct', tmp_path, expected)


def test_same_rows_in_all_modes(tmp_path, service, expected):
  for runner in ('DirectRunner', 'PortableRunner', 'PrismRunner'):
    output = tmp_path / runner
    options = [] if runner == 'DirectRunner' else ['--job_endpoint=' + service.job]
    result = classify(output, '--runner=' + runner, *options)
    assert result.returncode == 0, result.stderr
    assert rows(output) == expected


def test_prism_runner_starts_its_own_service(tmp_path, expected):
  output = tmp_path / 'o'
  result = classify(output, '--runner=PrismRunner', '--prism-location=' + SERVICE)
  assert result.returncode == 0, result.stderr
  assert rows(output) == expected


def test_memory_is_explained_before_anything_runs(tmp_path):
  output = tmp_path / 'rows.csv'
  result = classify(output, '--explain_memory', '--max_batch_size=16')
  assert result.returncode == 0, result.stderr
  assert 'digits_cnn' in result.stdout and 'weights 185.7 KiB' in result.stdout, result.stdout
  assert 'batches: 16 examples' in result.stdout and 'in all: ' in result.stdout
  assert not output.exists()


def test_torchscript_gives_the_same_rows(tmp_path, expected):
  output = tmp_path / 'o'
  result = classify(output, '--model_name=torchscript', '--model_state_dict_path=%s/digits_cnn.pt' % DATA)
  assert result.returncode == 0, result.stderr
  assert rows(output) == expected


def test_one_image_without_input():
  result = run(CLASSIFY)
  assert result.returncode == 0, result.stderr
  assert re.search(r'\.(png|jpg)', result.stdout), result.stdout


@pytest.mark.parametrize('option', ['--runner=PortableRunner', '--job_endpoint=localhost:1'])
def test_a_runner_without_input_is_refused(option):
  assert 'needs --input=FILE' in said(run(CLASSIFY, option))


# Bad images cost a row.


@pytest.mark.parametrize('runner', ['DirectRunner', 'PortableRunner'])
def test_bad_images_go_to_the_errors(runner, tmp_path, service, expected):
  good = rows(os.path.join(DATA, 'images.txt'))[:5]
  broken = tmp_path / 'broken.png'
  broken.write_bytes(b'\x89PNG\r\n\x1a\n and no more')
  images = tmp_path / 'list.txt'
  images.write_text('\n'.join([good[0], '', str(broken), *good[1:], '   ', 'absent.jpg']) + '\n')
  output = tmp_path / 'o.csv'
  result = classify(output, '--runner=' + runner, '--job_endpoint=' + service.job, images=images)
  assert result.returncode == 0, result.stderr
  assert rows(output) == [row for row in expected if row.rsplit(',', 1)[0] in good]
  errors = rows(str(output) + '.errors')
  assert len(errors) == 2
  assert any('absent.jpg' in e for e in errors) and any('broken.png' in e for e in errors)

  strict = classify(tmp_path / 's.csv', '--runner=' + runner, '--job_endpoint=' + service.job, '--fail_on_error',
                    images=images)
  assert re.search('absent.jpg|broken.png', said(strict))


# What goes in and comes out.


def test_a_folder_goes_in_and_scores_come_out(tmp_path):
  folder = tmp_path / 'images'
  folder.mkdir()
  names = ['digit-0-0000.png', 'digit-7-0560.jpg']
  for name in names:
    shutil.copy(os.path.join(DATA, 'images', name), folder)
  os.rename(folder / names[0], folder / 'a\nb.png')
  (folder / 'notes.txt').write_text('no image')
  paths = [str(folder / 'a\nb.png'), str(folder / names[1])]
  result = classify(tmp_path / 'o.csv', '--output_format=csv', '--top_k=2', images=folder)
  assert result.returncode == 0, result.stderr
  with open(tmp_path / 'o.csv', encoding='utf-8', newline='') as f:
    table = sorted(csv.DictReader(f), key=lambda row: row['path'])
  assert [row['path'] for row in table] == paths
  assert [row['class'] for row in table] == ['0', '7']
  assert all(float(row['score']) > float(row['score_2']) >= 0 and row['class_2'] for row in table)
  assert not os.path.exists(tmp_path / 'o.csv.errors')
  # The same through a glob, in the other formats.
  for kind in ('jsonl', 'parquet'):
    result = classify(tmp_path / kind, '--output_format=' + kind, '--top_k=2', images='%s/digit*' % folder)
    assert result.returncode == 0, result.stderr
  with open(tmp_path / 'jsonl', encoding='utf-8') as f:
    lines = sorted(map(json.loads, f), key=lambda row: row['path'])
  assert [(row['path'], row['class'], len(row['scores'])) for row in lines] == [(paths[1], '7', 2)]
  with open(tmp_path / 'parquet', 'rb') as f:
    data = f.read()
  assert data[:4] == data[-4:] == b'PAR1'


def test_a_middle_that_is_cut_out_gives_other_scores(tmp_path):
  scores = {}
  for how in ('resize', 'center_crop'):
    result = classify(tmp_path / how, '--output_format=csv', '--preprocess=' + how)
    assert result.returncode == 0, result.stderr
    scores[how] = rows(tmp_path / how)
  assert scores['resize'] != scores['center_crop']


def test_no_image_that_can_be_classified_is_a_failure(tmp_path):
  images = tmp_path / 'list.txt'
  images.write_text('absent.jpg\ngone.png\n')
  assert 'none of the 2 images' in said(classify(tmp_path / 'o.csv', images=images))
  assert len(rows(tmp_path / 'o.csv.errors')) == 2 and rows(tmp_path / 'o.csv') == []


def test_outputs_that_are_no_files_stay_what_they_are(tmp_path, expected):
  (tmp_path / 'target').write_text('before')
  (tmp_path / 'target').chmod(0o600)
  (tmp_path / 'link').symlink_to('target')
  (tmp_path / 'errors').write_text('before')
  (tmp_path / 'link.errors').symlink_to('errors')
  assert classify(tmp_path / 'link').returncode == 0
  assert (tmp_path / 'link').is_symlink() and (tmp_path / 'link.errors').is_symlink()
  assert rows(tmp_path / 'target') == expected and (tmp_path / 'errors').read_text() == ''
  assert (tmp_path / 'target').stat().st_mode & 0o777 == 0o600

  os.mkfifo(tmp_path / 'pipe')
  lines = []
  reader = threading.Thread(target=lambda: lines.extend(rows(tmp_path / 'pipe')))
  reader.start()
  assert classify(tmp_path / 'pipe').returncode == 0
  reader.join()
  assert lines == expected and stat.S_ISFIFO((tmp_path / 'pipe').stat().st_mode)

  # As /dev/stdout is, in a folder of the test's own.
  (tmp_path / 'stdout').symlink_to('/proc/self/fd/1')
  result = classify(tmp_path / 'stdout')
  assert result.returncode == 0 and set(expected) <= set(result.stdout.splitlines())
  assert (tmp_path / 'stdout').is_symlink()
  assert '--errors' in said(classify('/proc/none'))


# What is built of it.


@pytest.mark.parametrize('target, fetches', [('job-service', False), ('worker-pool', False), ('run-direct', True)])
def test_services_need_no_libtorch(target, fetches):
  assert ('libtorch.sh' in run('make', '-n', target).stdout) == fetches


# Wrong input is answered with what to do.


def test_no_service_at_the_endpoint(tmp_path):
  endpoint = 'localhost:' + free_ports('JOB_PORT')['JOB_PORT']
  text = said(classify(tmp_path / 'o', '--runner=PortableRunner', '--job_endpoint=' + endpoint))
  assert endpoint in text and 'purlin-job-service' in text


def test_an_endpoint_that_is_not_grpc(tmp_path):
  server = http.server.HTTPServer(('localhost', 0), http.server.BaseHTTPRequestHandler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  endpoint = 'localhost:%d' % server.server_address[1]
  text = said(classify(tmp_path / 'o', '--runner=PortableRunner', '--job_endpoint=' + endpoint))
  server.shutdown()
  assert endpoint in text and 'gRPC' in text


def test_port_taken():
  with socket.create_server(('localhost', 0)) as s:
    port = s.getsockname()[1]
    text = said(run(SERVICE, '--job_port=%d' % port, '--artifact_port=0', '--expansion_port=0'))
  assert str(port) in text and '--job_port' in text


def test_input_that_does_not_exist(tmp_path):
  text = said(classify(tmp_path / 'o', images=tmp_path / 'no' / 'list.txt'))
  assert 'list.txt' in text


def test_empty_input(tmp_path):
  empty = tmp_path / 'empty.txt'
  empty.write_text('\n\n')
  assert 'empty.txt' in said(classify(tmp_path / 'o', images=empty))


def test_output_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  text = said(classify(tmp_path / 'file' / 'o.csv'))
  assert 'o.csv' in text or 'file' in text


def test_weights_that_do_not_fit(tmp_path):
  text = said(classify(tmp_path / 'o', '--model_name=resnet18'))
  assert 'conv1.weight' in text and 'digits_cnn.safetensors' in text


def test_weights_that_do_not_exist(tmp_path):
  assert 'gone.pth' in said(classify(tmp_path / 'o', '--model_state_dict_path=%s/gone.pth' % tmp_path))


def test_a_missing_libtorch_is_said_before_the_loader_says_it(tmp_path):
  """The launcher beside a program whose libtorch has gone, as when third_party/ was removed after the build."""
  launcher = shutil.copy(CLASSIFY, tmp_path)
  (tmp_path / 'torch.c').write_text('int torch(void) { return 0; }')
  (tmp_path / 'main.c').write_text('int torch(void); int main(void) { return torch(); }')
  for command in (['-shared', '-o', 'libtorch_cpu.so', 'torch.c'], ['-o', 'image-classifier', 'main.c', '-L.', '-ltorch_cpu']):
    subprocess.run(['cc', *command], cwd=tmp_path, check=True)
  (tmp_path / 'libtorch_cpu.so').unlink()
  text = said(run(launcher, '--help'))
  assert 'libtorch_cpu.so' in text and 'make setup' in text
  (tmp_path / 'image-classifier').unlink()
  assert 'make classify' in said(run(launcher, '--help'))


def test_a_libtorch_of_the_users_own_is_looked_at_first(tmp_path):
  text = said(run(os.path.join(ROOT, 'setup', 'libtorch.sh'), env={'LIBTORCH': str(tmp_path)}))
  assert str(tmp_path) in text and 'unset it' in text
  (tmp_path / 'lib').mkdir()
  (tmp_path / 'lib' / 'libtorch_cpu.so').touch()
  header = tmp_path / 'include' / 'torch' / 'csrc' / 'api' / 'include' / 'torch'
  header.mkdir(parents=True)
  (header / 'torch.h').touch()
  (tmp_path / 'build-version').write_text('1.13.1+cpu')
  assert '1.13.1' in said(run(os.path.join(ROOT, 'setup', 'libtorch.sh'), env={'LIBTORCH': str(tmp_path)}))


def test_unknown_option_names_the_nearest(tmp_path):
  assert 'max' in said(classify(tmp_path / 'o', '--max_bach_size=3'))


def test_dashes_are_underscores(tmp_path, expected):
  output = tmp_path / 'o'
  assert classify(output, '--max-batch-size=3').returncode == 0
  assert rows(output) == expected


def test_gpu_where_there_is_none(tmp_path):
  if shutil.which('nvidia-smi'):
    pytest.skip('this machine has a GPU')
  assert '--device' in said(classify(tmp_path / 'o', '--device=GPU'))


# The service ends cleanly.


@pytest.mark.parametrize('sent', [signal.SIGTERM, signal.SIGINT])
def test_the_service_ends_cleanly(sent):
  assert Service().stop(sent) == 0


def test_logs_in_json():
  service = subprocess.Popen(
      [SERVICE, '--job_port=0', '--artifact_port=0', '--expansion_port=0', '--log_kind=json', '--log_level=debug'],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  for _ in range(3):
    service.stdout.readline()
  service.terminate()
  _, logs = service.communicate(timeout=60)
  assert service.returncode == 0
  lines = [line for line in logs.splitlines() if line]
  assert lines and all(line.startswith('{') and line.endswith('}') for line in lines), logs


def test_descriptor_set_is_beams(tmp_path):
  target = tmp_path / 'set.bin'
  # It builds, and may have to wait for the build of the tests beside it.
  assert run('make', 'descriptor-set', 'DESCRIPTOR_SET=%s' % target, timeout=1200).returncode == 0
  check = run(
      os.path.join(ROOT, 'third_party', 'venv', 'bin', 'python'), os.path.join(ROOT, 'conformance', 'check_model.py'),
      target, '--strict', '--reference', os.path.join(ROOT, 'conformance', 'model.txt'))
  assert check.returncode == 0, check.stdout
