"""Trains small LightGBM models of all kinds, and makes the golden files of this folder of them.

Run it by hand when a kind is added (the files are committed):

    python ml/trees/tests/make_models.py v3    # with lightgbm 3.3.5: models in format v3
    python ml/trees/tests/make_models.py       # with lightgbm 4.7.0: models in format v4, and the predictions of all

tests/test_trees.py trains the same kinds with other seeds.
"""
import json
import pathlib
import sys

import lightgbm as lgb
import numpy as np

GOLDEN = pathlib.Path(__file__).parent / 'golden'
FEATURES = 6
CLASSES = 3
# In the golden files; the test that trains has more of both.
ROUNDS = 4
ROWS = 10


class Data:
  """Rows of all sorts of features, with labels of all sorts."""
  def __init__(self, seed, rows=400):
    rng = np.random.default_rng(seed)
    self.x = rng.normal(size=(rows, FEATURES))
    self.x[:, 1] = rng.integers(0, 40, rows)  # categories, when asked for
    self.x[:, 2] *= rng.random(rows) < 0.5  # zeros
    self.x[:, 3] = np.round(self.x[:, 3], 1)
    signal = self.x[:, 0] + np.abs(self.x[:, 2]) + (self.x[:, 1] % 3) - self.x[:, 3] * self.x[:, 4]
    self.number = signal + 0.1 * rng.normal(size=rows)
    self.positive = np.exp(0.3 * self.number)
    self.count = rng.poisson(self.positive).astype(float)
    self.label = (self.number > np.median(self.number)).astype(float)
    self.share = 1 / (1 + np.exp(-self.number))
    self.of_many = np.digitize(self.number, np.quantile(self.number, [0.3, 0.6])).astype(float)
    self.rank = np.digitize(self.number, np.quantile(self.number, [0.3, 0.6, 0.9])).astype(int)
    self.groups = [20] * (rows // 20)
    self.weights = rng.random(rows) + 0.5
    # What models are asked: rows like those, with values that are missing, at the edge, or of no known category.
    self.asked = self.x[rng.permutation(rows)].copy()
    odd = [np.nan, 0.0, -0.0, 1e-35, -1e-35, 1e-300, 1e300, -1e300, np.inf, -np.inf, -1.0, -0.5, 39.9, 1e10]
    for row in range(2, rows):
      if row % 3:
        self.asked[row, rng.integers(FEATURES)] = odd[rng.integers(len(odd))]
    self.asked[1] = np.nan

  def missing(self, value):
    """The rows to train with, a fifth of whose values are missing."""
    x = self.x.copy()
    x[np.random.default_rng(1).random(x.shape) < 0.2] = value
    return x


def squares(scores, dataset):
  """An objective of one's own."""
  return scores - dataset.get_label(), np.ones_like(scores)


def squares_of_many(scores, dataset):
  labels = dataset.get_label().astype(int)
  wanted = np.eye(CLASSES)[labels]
  if scores.ndim == 1:
    wanted = wanted.ravel(order='F')
  return scores - wanted, np.ones_like(scores)


# Each kind: parameters, which labels, and more that is told to the data set.
KINDS = {
    'regression': ({'objective': 'regression'}, 'number', {}),
    'regression_sqrt': ({'objective': 'regression', 'reg_sqrt': True}, 'number', {}),
    'regression_l1': ({'objective': 'regression_l1'}, 'number', {}),
    'huber': ({'objective': 'huber'}, 'number', {}),
    'fair': ({'objective': 'fair'}, 'number', {}),
    'quantile': ({'objective': 'quantile', 'alpha': 0.8}, 'number', {}),
    'mape': ({'objective': 'mape'}, 'number', {}),
    'poisson': ({'objective': 'poisson'}, 'count', {}),
    'gamma': ({'objective': 'gamma'}, 'positive', {}),
    'tweedie': ({'objective': 'tweedie', 'tweedie_variance_power': 1.3}, 'count', {}),
    'binary': ({'objective': 'binary'}, 'label', {}),
    'binary_sigmoid': ({'objective': 'binary', 'sigmoid': 0.7, 'is_unbalance': True}, 'label', {}),
    'cross_entropy': ({'objective': 'cross_entropy'}, 'share', {}),
    'cross_entropy_lambda': ({'objective': 'cross_entropy_lambda'}, 'share', {'weights': True}),
    'multiclass': ({'objective': 'multiclass', 'num_class': CLASSES}, 'of_many', {}),
    'multiclassova': ({'objective': 'multiclassova', 'num_class': CLASSES, 'sigmoid': 1.3}, 'of_many', {}),
    'lambdarank': ({'objective': 'lambdarank'}, 'rank', {'groups': True}),
    'rank_xendcg': ({'objective': 'rank_xendcg'}, 'rank', {'groups': True}),
    'custom': ({'objective': squares}, 'number', {}),
    'custom_of_many': ({'objective': squares_of_many, 'num_class': CLASSES}, 'of_many', {}),
    'categorical': ({'objective': 'binary', 'min_data_per_group': 5, 'cat_smooth': 1}, 'label', {'categories': [1]}),
    'categorical_missing': ({'objective': 'multiclass', 'num_class': CLASSES, 'min_data_per_group': 5}, 'of_many',
                            {'categories': [1, 3], 'missing': np.nan}),
    'missing_nan': ({'objective': 'binary'}, 'label', {'missing': np.nan}),
    'missing_zero': ({'objective': 'binary', 'zero_as_missing': True}, 'label', {'missing': 0.0}),
    'missing_zero_categorical': ({'objective': 'regression', 'zero_as_missing': True}, 'number',
                                 {'missing': 0.0, 'categories': [1]}),
    'missing_none': ({'objective': 'binary', 'use_missing': False}, 'label', {'missing': np.nan}),
    'linear': ({'objective': 'regression', 'linear_tree': True}, 'number', {}),
    'linear_missing': ({'objective': 'binary', 'linear_tree': True}, 'label', {'missing': np.nan}),
    'linear_categorical': ({'objective': 'multiclass', 'num_class': CLASSES, 'linear_tree': True}, 'of_many',
                           {'categories': [1]}),
    'forest': ({'objective': 'binary', 'boosting': 'rf', 'bagging_freq': 1, 'bagging_fraction': 0.7}, 'label', {}),
    'forest_of_many': ({'objective': 'multiclass', 'num_class': CLASSES, 'boosting': 'rf', 'bagging_freq': 1,
                        'bagging_fraction': 0.7}, 'of_many', {}),
    'dart': ({'objective': 'regression', 'boosting': 'dart'}, 'number', {}),
    'goss': ({'objective': 'binary', 'boosting': 'goss'}, 'label', {}),
    'extra_trees': ({'objective': 'regression', 'extra_trees': True}, 'number', {}),
    'monotone': ({'objective': 'regression', 'monotone_constraints': [1, 0, 0, -1, 0, 0]}, 'number', {}),
    'no_split': ({'objective': 'regression', 'min_data_in_leaf': 10000}, 'number', {}),
}
# Few of each sort: what v3 differs in is the header and the lines of a tree.
KINDS_V3 = ['regression', 'multiclass', 'categorical', 'missing_zero', 'linear_missing', 'forest']


def train(kind, seed, rounds, leaves):
  """A booster of a kind, with its data."""
  parameters, label, more = KINDS[kind]
  data = Data(seed)
  parameters = {'num_leaves': leaves, 'min_data_in_leaf': 10, 'verbose': -1, 'seed': seed, 'num_threads': 1,
                'deterministic': True, 'feature_pre_filter': False} | parameters
  custom = {}
  if callable(parameters['objective']) and lgb.__version__ < '4':
    custom = {'fobj': parameters.pop('objective')}
  dataset = lgb.Dataset(
      data.missing(more['missing']) if 'missing' in more else data.x, getattr(data, label), params=parameters,
      group=data.groups if 'groups' in more else None, weight=data.weights if 'weights' in more else None,
      categorical_feature=more.get('categories', []), free_raw_data=False)
  booster = lgb.train(parameters, dataset, rounds, **custom)
  return booster, data


def linear(kind):
  return kind.startswith('linear')


def listed(values):
  """A line for each row, as not every reader of JSON reads each number to the last bit."""
  return [' '.join(repr(float(value)) for value in row) for row in np.asarray(values).reshape(len(values), -1)]


def answers(booster, rows, contributions):
  """All that a model says to rows."""
  part = {'start_iteration': 1, 'num_iteration': 2}
  found = {
      'prediction': booster.predict(rows),
      'raw': booster.predict(rows, raw_score=True),
      'part': booster.predict(rows, **part),
      'leaves': booster.predict(rows, pred_leaf=True),
  }
  if contributions:
    found['contributions'] = booster.predict(rows, pred_contrib=True)
  return {name: listed(values) for name, values in found.items()}


def save(booster, name):
  """Most files are without the parameters of their training, which take half their bytes and say nothing of predictions."""
  text = booster.model_to_string()
  if name != 'regression':
    text = text.split('\nparameters:')[0]
  (GOLDEN / (name + '.txt')).write_text(text, encoding='utf-8')


def main():
  GOLDEN.mkdir(exist_ok=True)
  if sys.argv[1:] == ['v3']:
    for kind in KINDS_V3:
      booster, _ = train(kind, 7, ROUNDS, 7)
      save(booster, 'v3_' + kind)
    return
  for kind in KINDS:
    booster, _ = train(kind, 7, ROUNDS, 7)
    save(booster, kind)
  rows = Data(7).asked[:ROWS]
  golden = {'rows': listed(rows), 'models': {}}
  for path in sorted(GOLDEN.glob('*.txt')):
    booster = lgb.Booster(model_file=path)
    golden['models'][path.stem] = answers(booster, rows, not linear(path.stem.removeprefix('v3_')))
  # A line for each thing a model says.
  with open(GOLDEN / 'answers.json', 'w', encoding='utf-8') as f:
    f.write('{\n"rows": %s,\n"models": {\n' % json.dumps(golden['rows']))
    models = []
    for name, found in golden['models'].items():
      lines = ',\n'.join('  "%s": %s' % (what, json.dumps(values)) for what, values in found.items())
      models.append('"%s": {\n%s\n}' % (name, lines))
    f.write(',\n'.join(models) + '\n}\n}\n')


if __name__ == '__main__':
  main()
