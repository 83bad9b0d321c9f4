#!/usr/bin/env python3
"""Makes the models in golden/ and answers.json, which says what their makers give: PyTorch, scikit-learn and LightGBM.

    pip install -r ml/onnx/tests/requirements.txt torch==2.11.0 onnxscript==0.7.2
    python3 ml/onnx/tests/make_models.py
    python3 ml/onnx/tests/make_models.py FOLDER SEED    larger ones, of another seed, elsewhere

Elsewhere PyTorch's models are left out where it is missing. A line of answers.json is a row: what goes into the model's
inputs, by name, and what its maker gives, by the names of its outputs. Numbers are those of the maker's own code, not
of an ONNX engine.
"""
import contextlib
import io
import json
import os
import pathlib
import sys
import warnings

import lightgbm as lgb
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType as LightGbmFloats
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (AdaBoostClassifier, GradientBoostingClassifier, GradientBoostingRegressor,
                              RandomForestClassifier, RandomForestRegressor)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Binarizer, MinMaxScaler, Normalizer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

try:
  import torch
except ModuleNotFoundError:
  torch = None

GOLDEN = pathlib.Path(__file__).parent / 'golden'
FOLDER, SEED = (pathlib.Path(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) == 3 else (GOLDEN, 0)
TREES = 5 if FOLDER == GOLDEN else 40
COLUMNS = 4
ROWS = 7 if FOLDER == GOLDEN else 200
warnings.filterwarnings('ignore')


class Data:
  """Rows to train with, and rows to ask."""
  def __init__(self, seed):
    rng = np.random.default_rng(seed)
    self.x = rng.normal(size=(240, COLUMNS)).astype(np.float32)
    score = self.x[:, 0] + 0.5 * self.x[:, 1] * self.x[:, 2] - 0.3 * self.x[:, 3]
    self.number = (score + 0.05 * rng.normal(size=len(score))).astype(np.float32)
    self.two = (score > 0.1).astype(np.int64)
    self.three = np.digitize(score, [-0.5, 0.5])
    self.words = np.array(['low', 'middle', 'high'])[self.three]
    self.asked = rng.normal(size=(ROWS, COLUMNS)).astype(np.float32)


def save(name, model, opsets=None):
  model.doc_string = ''
  (FOLDER / (name + '.onnx')).write_bytes(model.SerializeToString())


def networks():
  """The networks that are exported, by name."""
  class Network(torch.nn.Module):
    """Convolutions, a normalization, and pooling."""
    def __init__(self):
      super().__init__()
      self.layers = torch.nn.Sequential(
          torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
          torch.nn.Conv2d(4, 4, 3, stride=2), torch.nn.Sigmoid(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
          torch.nn.Linear(4, 5), torch.nn.Softmax(dim=1))

    def forward(self, image):
      return self.layers(image)

  class Encoder(torch.nn.Module):
    """Tokens, of which some are masked, to a vector and a flag: two inputs of any length, two outputs."""
    def __init__(self):
      super().__init__()
      self.embedding = torch.nn.Embedding(11, 6)
      self.norm = torch.nn.LayerNorm(6)
      self.query = torch.nn.Linear(6, 6)
      self.out = torch.nn.Linear(6, 3)

    def forward(self, tokens, mask):
      x = self.norm(self.embedding(tokens))
      scores = self.query(x) @ x.transpose(1, 2) / 6 ** 0.5
      scores = scores.masked_fill(mask.unsqueeze(1) == 0, -1e9)
      x = torch.softmax(scores, dim=-1) @ x
      weights = mask.unsqueeze(-1).float()
      pooled = (x * weights).sum(1) / weights.sum(1)
      return torch.nn.functional.gelu(self.out(pooled)), mask.sum(1)

  class Recurrent(torch.nn.Module):
    """An LSTM over a sequence of fixed length."""
    def __init__(self):
      super().__init__()
      self.lstm = torch.nn.LSTM(3, 4, batch_first=True)
      self.out = torch.nn.Linear(4, 2)

    def forward(self, steps):
      return self.out(self.lstm(steps)[0][:, -1])

  return {'conv': Network, 'text': Encoder, 'lstm': Recurrent}


def export(name, network, inputs, names, outputs, dynamo, free=None):
  """A network of torch's, and what it gives for rows: {input: array}."""
  torch.manual_seed(7 + SEED)
  network = network().eval()
  with torch.no_grad():
    for part in network.modules():
      if isinstance(part, torch.nn.BatchNorm2d):
        part.running_mean.uniform_(-0.5, 0.5)
        part.running_var.uniform_(0.5, 1.5)
    given = [torch.from_numpy(inputs[each]) for each in names]
    found = network(*given)
  buffer = io.BytesIO()
  arguments = {'dynamic_axes': free} if not dynamo else {'dynamic_shapes': free}
  with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    first = tuple(each[:2] for each in given)
    if name.endswith('_one'):
      first = tuple(each[:1] for each in given)
    torch.onnx.export(network, first, buffer, input_names=names, output_names=outputs, dynamo=dynamo,
                      external_data=False, **arguments)
  model = onnx.load_from_string(buffer.getvalue())
  for node in model.graph.node:
    del node.metadata_props[:]
  for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
    del value.metadata_props[:]
  save(name, model)
  found = found if isinstance(found, tuple) else (found,)
  return inputs, dict(zip(outputs, (each.numpy() for each in found)))


def torches(answers):
  network, encoder, recurrent = networks().values()
  rng = np.random.default_rng(3 + SEED)
  image = {'image': rng.normal(size=(3, 3, 8, 8)).astype(np.float32)}
  rows = {0: 'batch'}
  free = {'image': rows, 'classes': rows}
  answers['torch_conv'] = export('torch_conv', network, image, ['image'], ['classes'], False, free)
  answers['torch_conv_one'] = export('torch_conv_one', network, image, ['image'], ['classes'], False)
  answers['torch_conv_dynamo'] = export('torch_conv_dynamo', network, image, ['image'], ['classes'], True,
                                        {'image': {0: torch.export.Dim('batch')}})
  mask = np.arange(6)[None, :] < rng.integers(1, 7, size=(ROWS, 1))
  tokens = {'tokens': rng.integers(0, 11, size=(ROWS, 6)), 'mask': mask.astype(np.int64)}
  free = {name: {0: 'batch', 1: 'length'} for name in tokens}
  names, outputs = ['tokens', 'mask'], ['vector', 'count']
  answers['torch_text'] = export('torch_text', encoder, tokens, names, outputs, False,
                                 free | {'vector': rows, 'count': rows})
  dims = {0: torch.export.Dim('batch'), 1: torch.export.Dim('length')}
  answers['torch_text_dynamo'] = export('torch_text_dynamo', encoder, tokens, names, outputs, True,
                                        {'tokens': dims, 'mask': dims})
  steps = {'steps': rng.normal(size=(ROWS, 5, 3)).astype(np.float32)}
  free = {'steps': rows, 'out': rows}
  answers['torch_lstm'] = export('torch_lstm', recurrent, steps, ['steps'], ['out'], False, free)


def column(values):
  return np.asarray(values).reshape(len(values), -1)


def decided(model, asked):
  """The rows of which a classifier is sure: where two classes are equal, the last bit of a sum decides."""
  if not hasattr(model, 'predict_proba'):
    return asked
  best = np.sort(model.predict_proba(asked), 1)
  return asked[best[:, -1] - best[:, -2] > 1e-4]


def classes(model, asked):
  return {'output_label': np.asarray(model.predict(asked)), 'output_probability': model.predict_proba(asked)}


def sklearns(answers):
  data = Data(1 + SEED)
  x = data.x
  holes = x.copy()
  holes[np.random.default_rng(2 + SEED).random(x.shape) < 0.1] = np.nan
  asked_holes = data.asked.copy()
  asked_holes[[1, 2, 5], [0, 3, 1]] = np.nan
  small = {'n_estimators': TREES, 'max_depth': 3 if FOLDER == GOLDEN else 8, 'random_state': 0}
  models = {
      'forest_two': (RandomForestClassifier(**small), data.two),
      'forest_words': (RandomForestClassifier(**small), data.words),
      'forest_number': (RandomForestRegressor(**small), data.number),
      'forest_two_numbers': (RandomForestRegressor(**small), np.stack([data.number, -2 * data.number], 1)),
      'boosted_two': (GradientBoostingClassifier(**small), data.two),
      'boosted_three': (GradientBoostingClassifier(**small), data.three),
      'boosted_number': (GradientBoostingRegressor(**small), data.number),
      'tree_number': (DecisionTreeRegressor(max_depth=4, random_state=0), data.number),
      'ada_two': (AdaBoostClassifier(n_estimators=3, random_state=0), data.two),
      'logistic_two': (make_pipeline(StandardScaler(), LogisticRegression()), data.two),
      'logistic_three': (LogisticRegression(), data.three),
      'normalized': (make_pipeline(Normalizer('l1'), LogisticRegression(C=50)), data.words),
      'normalized_max': (make_pipeline(Normalizer('l2'), LinearRegression()), data.number),
      'binarized': (make_pipeline(Binarizer(threshold=0.2), LinearRegression()), data.number),
      'network': (make_pipeline(MinMaxScaler(), MLPClassifier((5,), max_iter=80, random_state=0)), data.words),
      'components': (make_pipeline(PCA(2, random_state=0), Ridge()), data.number),
  }
  for name, (model, labels) in models.items():
    model.fit(x, labels)
    # Dictionaries of probabilities are what the converter makes unless told.
    onx = to_onnx(model, x[:1], target_opset={'': 17, 'ai.onnx.ml': 1})
    save('sk_' + name, onx)
    asked = decided(model, data.asked)
    found = classes(model, asked) if hasattr(model, 'predict_proba') else {'variable': column(model.predict(asked))}
    answers['sk_' + name] = {'X': asked}, found
  model = make_pipeline(SimpleImputer(strategy='median'), LogisticRegression()).fit(holes, data.three)
  save('sk_imputed', to_onnx(model, x[:1], target_opset={'': 17, 'ai.onnx.ml': 1}, options={'zipmap': False}))
  asked_holes = decided(model, asked_holes)
  found = classes(model, asked_holes)
  found = {'label': found['output_label'], 'probabilities': found['output_probability']}
  answers['sk_imputed'] = {'X': asked_holes}, found
  model = KMeans(3, random_state=0, n_init=1).fit(x)
  save('sk_clusters', to_onnx(model, x[:1], target_opset={'': 17, 'ai.onnx.ml': 1}))
  found = {'label': model.predict(data.asked), 'scores': model.transform(data.asked)}
  answers['sk_clusters'] = {'X': data.asked}, found
  columns(answers)


def columns(answers):
  """Inputs of several types, one for each column."""
  rng = np.random.default_rng(5 + SEED)
  colours = np.array(['red', 'green', 'blue'])
  table = {'age': rng.normal(40, 10, 200).astype(np.float32), 'doors': rng.integers(2, 6, 200),
           'colour': rng.choice(colours, 200)}
  rows = np.array([[table['age'][row], table['doors'][row], table['colour'][row]] for row in range(200)], dtype=object)
  price = table['age'] / 10 + table['doors'] + (table['colour'] == 'red')
  model = make_pipeline(
      ColumnTransformer([('age', StandardScaler(), [0]), ('doors', OneHotEncoder(handle_unknown='ignore'), [1]),
                         ('colour', OneHotEncoder(handle_unknown='ignore'), [2])]),
      Ridge()).fit(rows, price)
  types = [('age', FloatTensorType([None, 1])), ('doors', Int64TensorType([None, 1])),
           ('colour', StringTensorType([None, 1]))]
  save('sk_columns', to_onnx(model, initial_types=types, target_opset={'': 17, 'ai.onnx.ml': 1}))
  given = {name: values[:ROWS, None] for name, values in table.items()}
  answers['sk_columns'] = given, {'variable': column(model.predict(rows[:ROWS]))}


def lightgbms(answers):
  data = Data(4 + SEED)
  small = {'n_estimators': TREES, 'num_leaves': TREES, 'min_child_samples': 10, 'verbose': -1, 'random_state': 0,
           'n_jobs': 1}
  holes = data.asked.copy()
  holes[3, 1] = np.nan
  x = data.x.copy()
  x[np.random.default_rng(6 + SEED).random(x.shape) < 0.1] = np.nan
  for name, model, labels in [('lgb_two', lgb.LGBMClassifier(**small), data.two),
                              ('lgb_three', lgb.LGBMClassifier(**small), data.three),
                              ('lgb_number', lgb.LGBMRegressor(**small), data.number)]:
    model.fit(x, labels)
    asked = decided(model, holes)
    save(name, convert_lightgbm(model, initial_types=[('input', LightGbmFloats([None, COLUMNS]))], name=name))
    if hasattr(model, 'predict_proba'):
      found = classes(model, asked)
      found = {'label': found['output_label'], 'probabilities': found['output_probability']}
    else:
      found = {'variable': column(model.predict(asked))}
    answers[name] = {'input': asked}, found


def by_hand():
  """Models that show one thing each; what they give is in the tests."""
  def model(name, nodes, inputs, outputs, weights=(), opset=17, domains=()):
    imports = [helper.make_opsetid('', opset)] + [helper.make_opsetid(domain, version) for domain, version in domains]
    graph = helper.make_graph(nodes, name, inputs, outputs, list(weights))
    made = helper.make_model(graph, opset_imports=imports, producer_name='make_models', ir_version=8)
    save('hand_' + name, made)
    return made

  def floats(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

  node = helper.make_node
  model('twice', [node('Add', ['x', 'x'], ['y'], name='twice')], [floats('x', ['rows', 2])], [floats('y', ['rows', 2])])
  model('whole', [node('ReduceSum', ['x'], ['sum'], name='sum', keepdims=0)], [floats('x', [3, 'length'])],
        [floats('sum', [])])
  ml = 'ai.onnx.ml'
  model('operators', [node('Erfinv', ['x'], ['a'], name='made_up'), node('SVMRegressor', ['a'], ['y'], domain=ml)],
        [floats('x', ['rows', 2])], [floats('y', ['rows', 1])], domains=[(ml, 3)])
  model('support', [node('SVMRegressor', ['x'], ['y'], name='support', domain=ml, coefficients=[0.5], kernel_type='LINEAR',
                         kernel_params=[1., 0., 3.], n_supports=1, rho=[0.25], support_vectors=[1., 2.])],
        [floats('x', ['rows', 2])], [floats('y', ['rows', 1])], domains=[(ml, 1)])
  model('shapes', [node('MatMul', ['x', 'w'], ['y'], name='wrong_product')], [floats('x', ['rows', 2])],
        [floats('y', ['rows', 4])], [numpy_helper.from_array(np.ones((3, 4), np.float32), 'w')])
  halves = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT16, ['rows', 2])
  model('half', [node('Identity', ['x'], ['y'])], [halves('x')], [halves('y')])
  weight = numpy_helper.from_array(np.arange(2, dtype=np.float32), 'w')
  weight.ClearField('raw_data')
  weight.data_location = TensorProto.EXTERNAL
  entry = weight.external_data.add()
  entry.key, entry.value = 'location', 'weights.bin'
  model('external', [node('Mul', ['x', 'w'], ['y'], name='weighted')], [floats('x', ['rows', 2])],
        [floats('y', ['rows', 2])], [weight])
  texts = lambda name: helper.make_tensor_value_info(name, TensorProto.STRING, ['rows'])
  nodes = [
      node('LabelEncoder', ['word'], ['number'], domain=ml, keys_strings=['a', 'b'], values_int64s=[5, 7],
           default_int64=-3),
      node('LabelEncoder', ['number'], ['again'], domain=ml, keys_int64s=[5, 7], values_strings=['A', 'B'])]
  model('texts', nodes, [texts('word')],
        [helper.make_tensor_value_info('number', TensorProto.INT64, ['rows']), texts('again')], domains=[(ml, 2)])


def told(values, row):
  """A row of an array: its shape, type and values; numbers in as few digits as tell them apart. NaN is a text."""
  values = np.asarray(values)
  kind = {'f': 'f32', 'i': 'i64', 'U': 'text', 'O': 'text'}[values.dtype.kind]
  def one(value):
    if kind == 'f32':
      return 'nan' if np.isnan(value) else float(str(np.float32(value)))
    return int(value) if kind == 'i64' else str(value)
  return {'shape': list(values.shape[1:]), kind: [one(value) for value in values[row].ravel()]}


def main():
  FOLDER.mkdir(exist_ok=True)
  for path in FOLDER.glob('*.onnx'):
    path.unlink()
  answers = {}
  if torch:
    torches(answers)
  elif FOLDER == GOLDEN:
    sys.exit('PyTorch is missing')
  sklearns(answers)
  lightgbms(answers)
  if FOLDER == GOLDEN:
    by_hand()
  models = []
  for name, parts in answers.items():
    rows = len(next(iter(parts[0].values())))
    lines = ['  ' + json.dumps([{key: told(values, row) for key, values in part.items()} for part in parts])
             for row in range(rows)]
    models.append('"%s": [\n%s\n]' % (name, ',\n'.join(lines)))
  (FOLDER / 'answers.json').write_text('{\n' + ',\n'.join(models) + '\n}\n', encoding='utf-8')


if __name__ == '__main__':
  # The converters put what they make into the order of sets.
  if os.environ.get('PYTHONHASHSEED') != '0':
    os.execve(sys.executable, [sys.executable, *sys.argv], dict(os.environ, PYTHONHASHSEED='0'))
  main()
