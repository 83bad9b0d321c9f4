#!/usr/bin/env python3
"""Measures inference beside its peers in Python: images beside Beam's RunInference and Ray Data, sentences beside sentence-transformers.

    benches/inference.py images                      2,000 JPEGs of 500x375, resnet18 and mobilenet_v2 in batches of 32
    benches/inference.py images --count 400 --models resnet18 --only rust beam
    benches/inference.py text MODEL_FOLDER           20,000 sentences; the folder is one of sentence-transformers

Run it with a Python that has torch 2.11 and torchvision 0.26, and for the peers apache-beam, ray[data] and sentence-transformers; after
`cargo build --release -p image-classification -p purlin-job-service` and `cargo build --release -p purlin-torch --features text --example
embed`. A peer that is not installed is left out, with a word. Peers take turns, ROUNDS of them (3); tables hold medians. What is timed
is the pipeline: of a Python program without its imports, of the Rust program whole. Each loads the model, decodes and prepares the
images. All of them use the whole machine as they do unless told otherwise.

  rust      image-classifier
  beam      Beam's Python RunInference with PytorchModelHandlerTensor, on Beam's default local runner
  service   the same, on Purlin's job service
  ray       Ray Data's map_batches with the same network

Labels are compared with those of `rust`: weights are random, so a few images lie between two classes, and resizing differs by rounding.
"""
import argparse
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

import job_service

HERE = os.path.dirname(os.path.abspath(__file__))
RELEASE = os.environ.get('RELEASE', os.path.join(os.path.dirname(HERE), 'target', 'release'))
ROUNDS = int(os.environ.get('ROUNDS', '3'))
BATCH = 32
LIMIT = 3600


def network(name):
  """A network of torchvision's with random weights, always the same, that let activations neither vanish nor explode."""
  import torch
  import torchvision
  torch.manual_seed(1)
  model = getattr(torchvision.models, name)(weights=None).eval()
  with torch.no_grad():
    for key, tensor in model.state_dict().items():
      if key.endswith('running_var') or key.endswith('.weight') and tensor.dim() == 1:
        tensor.uniform_(0.5, 1)
  return model


def preparation():
  from torchvision import transforms
  return transforms.Compose([
      transforms.Resize((224, 224)), transforms.ToTensor(),
      transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])


def prepared(path, how):
  from PIL import Image
  with Image.open(path) as image:
    return how(image.convert('RGB'))


def write_images(folder, count):
  import numpy as np
  from PIL import Image
  paths, rng = [], np.random.default_rng(7)
  x, y = np.meshgrid(np.arange(500), np.arange(375))
  for number in range(count):
    noise = rng.integers(0, 24, size=(375, 500))
    planes = [((x * scale + y * (number % 7 + 1)) // 4 + noise) % 256 for scale in (1, 2, 3)]
    path = os.path.join(folder, '%05d.jpg' % number)
    Image.fromarray(np.stack(planes, axis=-1).astype('uint8')).save(path, quality=90)
    paths.append(path)
  return paths


# --- the peers, each in a process of its own: they print their seconds and write `path,label` rows ---


def beam_peer(given):
  import apache_beam as beam
  import torch
  import torchvision
  from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
  from apache_beam.ml.inference.pytorch_inference import PytorchModelHandlerTensor
  from apache_beam.options.pipeline_options import PipelineOptions
  handler = KeyedModelHandler(PytorchModelHandlerTensor(
      state_dict_path=given['weights'], model_class=getattr(torchvision.models, given['model']), model_params={'weights': None},
      device='CPU', min_batch_size=BATCH, max_batch_size=BATCH))
  how = preparation()
  begin = time.monotonic()
  with beam.Pipeline(options=PipelineOptions(given['options'])) as p:
    _ = (p | beam.Create(given['paths']) | beam.Reshuffle()
         | beam.Map(lambda path: (path, prepared(path, how)))
         | RunInference(handler)
         | beam.MapTuple(lambda path, result: '%s,%d' % (path, int(torch.argmax(result.inference))))
         | beam.io.WriteToText(given['output'], shard_name_template=''))
  return time.monotonic() - begin


def ray_peer(given):
  import ray
  import torch
  import torchvision
  cores = os.cpu_count()
  ray.init(num_cpus=cores, log_to_driver=False)
  how = preparation()

  def prepare(batch):
    return {'path': batch['item'], 'image': [prepared(path, how).numpy() for path in batch['item']]}

  class Network:
    def __init__(self):
      torch.set_num_threads(1)
      self.model = getattr(torchvision.models, given['model'])(weights=None).eval()
      self.model.load_state_dict(torch.load(given['weights']))

    def __call__(self, batch):
      import numpy as np
      with torch.no_grad():
        logits = self.model(torch.from_numpy(np.stack(batch['image'])))
      return {'path': batch['path'], 'label': logits.argmax(dim=1).numpy()}

  begin = time.monotonic()
  rows = ray.data.from_items(given['paths']).map_batches(prepare, batch_size=BATCH).map_batches(
      Network, batch_size=BATCH, concurrency=cores, num_cpus=0.5).take_all()
  seconds = time.monotonic() - begin
  with open(given['output'], 'w', encoding='utf-8') as out:
    out.writelines('%s,%d\n' % (row['path'], row['label']) for row in rows)
  return seconds


def sentences_peer(given):
  import numpy as np
  from sentence_transformers import SentenceTransformer
  with open(given['sentences'], encoding='utf-8') as lines:
    sentences = lines.read().splitlines()
  begin = time.monotonic()
  rows = SentenceTransformer(given['folder'], device='cpu').encode(sentences, batch_size=BATCH)
  seconds = time.monotonic() - begin
  np.save(given['output'], rows)
  return seconds


PEERS = {'beam': beam_peer, 'service': beam_peer, 'ray': ray_peer, 'sentence-transformers': sentences_peer}
NEEDED = {'beam': 'apache_beam', 'service': 'apache_beam', 'ray': 'ray', 'sentence-transformers': 'sentence_transformers'}


def run_peer(name, given):
  done = subprocess.run([sys.executable, __file__, '--peer', name], input=json.dumps(given), capture_output=True, text=True,
                        timeout=LIMIT, check=False)
  for line in done.stdout.splitlines():
    if line.startswith('SECONDS '):
      return float(line.split()[1])
  sys.exit('%s failed:\n%s' % (name, done.stderr[-3000:]))


def run_program(command):
  begin = time.monotonic()
  done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
  if done.returncode != 0:
    sys.exit('%s failed:\n%s' % (command[0], done.stderr[-3000:]))
  return time.monotonic() - begin


def table(names, seconds, first, count, what):
  print('%-24s %10s %10s %12s' % ('', 'seconds', what + '/s', 'of %s' % first))
  for name in names:
    median = statistics.median(seconds[name])
    ratio = statistics.median(other / mine for other, mine in zip(seconds[name], seconds[first]))
    print('%-24s %10.1f %10.1f %12.2f' % (name, median, count / median, ratio), flush=True)


# --- images ---


def labels(path):
  with open(path, encoding='utf-8') as rows:
    return dict(row.rstrip('\n').rsplit(',', 1) for row in rows)


def images(args):
  import torch
  names = [name for name in args.only if name == 'rust' or importlib.util.find_spec(NEEDED[name])]
  print('left out, as not installed: %s' % (', '.join(set(args.only) - set(names)) or 'nothing'))
  with tempfile.TemporaryDirectory() as folder:
    paths = write_images(folder, args.count)
    listed = os.path.join(folder, 'images.txt')
    with open(listed, 'w', encoding='utf-8') as out:
      out.writelines(path + '\n' for path in paths)
    for model in args.models:
      weights = os.path.join(folder, model + '.pth')
      torch.save(network(model).state_dict(), weights)
      seconds = {name: [] for name in names}
      for _ in range(ROUNDS):
        for name in names:
          seconds[name].append(image_run(name, model, weights, paths, listed, folder, args.precision))
      print('%s %s, %d JPEGs of 500x375, batches of %d, %d cores; medians of %d' % (
          model, args.precision, args.count, BATCH, os.cpu_count(), ROUNDS))
      table(names, seconds, names[0], args.count, 'images')
      rows = {name: labels(os.path.join(folder, name + '.csv')) for name in names}
      for name in names[1:]:
        same = sum(rows[name][path] == label for path, label in rows[names[0]].items())
        print('%s and %s give %d of %d images the same label' % (names[0], name, same, args.count))


def image_run(name, model, weights, paths, listed, folder, precision):
  output = os.path.join(folder, name + '.csv')
  if name == 'rust':
    return run_program([
        os.path.join(RELEASE, 'image-classifier'), '--input=' + listed, '--output=' + output, '--model_name=' + model,
        '--model_state_dict_path=' + weights, '--min_batch_size=%d' % BATCH, '--max_batch_size=%d' % BATCH, '--precision=' + precision])
  given = {'model': model, 'weights': weights, 'paths': paths, 'output': output, 'options': []}
  if name != 'service':
    return run_peer(name, given)
  with job_service.Service('purlin', os.path.join(folder, 'service.log')) as service:
    given['options'] = ['--runner=PrismRunner', '--environment_type=LOOPBACK', '--job_endpoint=localhost:%d' % service.port]
    return run_peer(name, given)


# --- sentences ---


def write_sentences(path, count):
  choose = random.Random(3)
  words = ('the of a plane takes off over some water while people look at it from old bridges and nobody knows why such quiet engines '
           'were never built before though many tried with steam oil wind sun or simply by walking faster than everyone else').split()
  with open(path, 'w', encoding='utf-8') as out:
    for _ in range(count):
      print(*(choose.choice(words) for _ in range(choose.randint(4, 40))), file=out)


def text(args):
  import numpy as np
  names = ['rust', 'sentence-transformers']
  with tempfile.TemporaryDirectory() as folder:
    sentences, output = os.path.join(folder, 'sentences.txt'), os.path.join(folder, 'rows')
    write_sentences(sentences, args.count)
    seconds = {name: [] for name in names}
    for _ in range(ROUNDS):
      seconds['rust'].append(run_program([os.path.join(RELEASE, 'examples', 'embed'), args.folder, sentences, output]))
      given = {'folder': args.folder, 'sentences': sentences, 'output': output + '.npy'}
      seconds['sentence-transformers'].append(run_peer('sentence-transformers', given))
    rows = np.load(output + '.npy')
    worst = 0
    with open(output, encoding='utf-8') as lines:
      for line in lines:
        number, *numbers = line.split()
        worst = max(worst, float(np.abs(rows[int(number)] - np.array(numbers, dtype='float32')).max()))
  print('%d sentences, %d cores; medians of %d' % (args.count, os.cpu_count(), ROUNDS))
  table(names, seconds, 'rust', args.count, 'lines')
  print('embeddings differ by %.1e at most' % worst)


def main():
  if sys.argv[1:2] == ['--peer']:
    print('SECONDS %.3f' % PEERS[sys.argv[2]](json.load(sys.stdin)))
    return
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  commands = parser.add_subparsers(required=True)
  of_images = commands.add_parser('images')
  of_images.add_argument('--count', type=int, default=2000)
  of_images.add_argument('--models', nargs='+', default=['resnet18', 'mobilenet_v2'])
  of_images.add_argument('--precision', choices=['fp32', 'bf16'], default='fp32', help='of the Rust program; its peers compute in fp32')
  of_images.add_argument('--only', nargs='+', choices=['rust', 'beam', 'service', 'ray'], default=['rust', 'beam', 'service', 'ray'])
  of_images.set_defaults(run=images)
  of_text = commands.add_parser('text')
  of_text.add_argument('folder')
  of_text.add_argument('--count', type=int, default=20000)
  of_text.set_defaults(run=text)
  args = parser.parse_args()
  args.run(args)


if __name__ == '__main__':
  main()
