"""Trains small XGBoost models of all kinds, and makes the golden files in `xgboost` of them.

Run it by hand when a kind is added (the files are committed):

    python ml/trees/tests/make_xgboost.py v1   # with xgboost 1.7.6
    python ml/trees/tests/make_xgboost.py v2   # with xgboost 2.1.4
    python ml/trees/tests/make_xgboost.py v3   # with xgboost 3.0.5
    python ml/trees/tests/make_xgboost.py      # with xgboost 3.2.0: all kinds

Each run adds the predictions of its models. tests/test_xgboost.py trains the same kinds with other seeds.
"""
import json
import pathlib
import sys

import numpy as np
import xgboost as xgb

GOLDEN = pathlib.Path(__file__).parent / 'xgboost'
FEATURES = 6
CLASSES = 3
# In the golden files; the test that trains has more of both.
ROUNDS = 4
ROWS = 12


class Data:
  """Rows of all sorts of features, with labels of all sorts."""
  def __init__(self, seed, rows=400):
    rng = np.random.default_rng(seed)
    self.x = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    self.x[:, 1] = rng.integers(0, 40, rows)  # categories, when asked for
    self.x[:, 2] *= rng.random(rows) < 0.5  # zeros
    self.x[:, 3] = np.round(self.x[:, 3], 1)
    signal = self.x[:, 0] + np.abs(self.x[:, 2]) + (self.x[:, 1] % 3) - self.x[:, 3] * self.x[:, 4]
    self.number = signal + 0.1 * rng.normal(size=rows)
    self.positive = np.exp(0.3 * self.number)
    self.count = rng.poisson(self.positive).astype(float)
    self.label = (self.number > np.median(self.number)).astype(float)
    self.of_many = np.digitize(self.number, np.quantile(self.number, [0.3, 0.6])).astype(float)
    self.two = np.stack([self.number, self.positive], axis=1)
    self.labels = np.stack([self.label, self.number > 3], axis=1).astype(float)
    self.groups = np.repeat(np.arange(rows // 20), 20)
    # A fifth is missing.
    self.missing = self.x.copy()
    self.missing[rng.random(self.x.shape) < 0.2] = np.nan
    # What models are asked: rows like those, with values that are missing, at the edge, or of no known category.
    self.asked = self.x[rng.permutation(rows)].copy()
    odd = [np.nan, 0.0, -0.0, 1e-35, -1e-35, 1e-45, 3e38, -3e38, -1.0, -0.5, 39.9, 1e10]
    for row in range(2, rows):
      if row % 3:
        self.asked[row, rng.integers(FEATURES)] = odd[rng.integers(len(odd))]
    self.asked[1] = np.nan


# Each kind: parameters, which labels, and more.
KINDS = {
    'squarederror': ({'objective': 'reg:squarederror'}, 'number', {}),
    'squaredlogerror': ({'objective': 'reg:squaredlogerror'}, 'positive', {}),
    'pseudohubererror': ({'objective': 'reg:pseudohubererror'}, 'number', {}),
    'absoluteerror': ({'objective': 'reg:absoluteerror'}, 'number', {}),
    'quantileerror': ({'objective': 'reg:quantileerror', 'quantile_alpha': [0.2, 0.8]}, 'number', {}),
    'reg_logistic': ({'objective': 'reg:logistic'}, 'label', {}),
    'logistic': ({'objective': 'binary:logistic'}, 'label', {}),
    'logistic_base': ({'objective': 'binary:logistic', 'base_score': 0.3}, 'label', {}),
    'logitraw': ({'objective': 'binary:logitraw'}, 'label', {}),
    'hinge': ({'objective': 'binary:hinge'}, 'label', {}),
    'softprob': ({'objective': 'multi:softprob', 'num_class': CLASSES}, 'of_many', {}),
    'softmax': ({'objective': 'multi:softmax', 'num_class': CLASSES}, 'of_many', {}),
    'pairwise': ({'objective': 'rank:pairwise'}, 'of_many', {'groups': True}),
    'ndcg': ({'objective': 'rank:ndcg'}, 'of_many', {'groups': True}),
    'map': ({'objective': 'rank:map'}, 'label', {'groups': True}),
    'poisson': ({'objective': 'count:poisson'}, 'count', {}),
    'gamma': ({'objective': 'reg:gamma'}, 'positive', {}),
    'tweedie': ({'objective': 'reg:tweedie', 'tweedie_variance_power': 1.3}, 'count', {}),
    'cox': ({'objective': 'survival:cox'}, 'positive', {}),
    'missing': ({'objective': 'binary:logistic'}, 'label', {'missing': True}),
    'categories': ({'objective': 'binary:logistic', 'tree_method': 'hist'}, 'label', {'categories': True}),
    'categories_missing': ({'objective': 'multi:softprob', 'num_class': CLASSES, 'tree_method': 'hist'}, 'of_many',
                           {'categories': True, 'missing': True}),
    'one_hot': ({'objective': 'reg:squarederror', 'tree_method': 'hist', 'max_cat_to_onehot': 100}, 'number',
                {'categories': True, 'missing': True}),
    'forest': ({'objective': 'binary:logistic', 'num_parallel_tree': 3, 'subsample': 0.5}, 'label', {}),
    'forest_of_many': ({'objective': 'multi:softprob', 'num_class': CLASSES, 'num_parallel_tree': 2, 'subsample': 0.5},
                       'of_many', {}),
    'dart': ({'objective': 'binary:logistic', 'booster': 'dart', 'rate_drop': 0.5}, 'label', {}),
    'dart_of_many': ({'objective': 'multi:softprob', 'num_class': CLASSES, 'booster': 'dart', 'rate_drop': 0.5},
                     'of_many', {}),
    'linear': ({'objective': 'reg:squarederror', 'booster': 'gblinear'}, 'number', {}),
    'linear_of_many': ({'objective': 'multi:softprob', 'num_class': CLASSES, 'booster': 'gblinear'}, 'of_many', {}),
    'two_targets': ({'objective': 'reg:squarederror'}, 'two', {}),
    'two_labels': ({'objective': 'binary:logistic'}, 'labels', {}),
    'pruned': ({'objective': 'reg:squarederror', 'tree_method': 'exact', 'gamma': 15}, 'number', {}),
    'lossguide': ({'objective': 'reg:squarederror', 'grow_policy': 'lossguide', 'max_leaves': 6}, 'number', {}),
    'early_stop': ({'objective': 'binary:logistic', 'eta': 1.0}, 'label', {'stop': True}),
    'no_split': ({'objective': 'reg:squarederror', 'min_child_weight': 10000}, 'number', {}),
}
# Few of each sort for older versions.
OLDER = ['squarederror', 'logistic', 'logitraw', 'hinge', 'softprob', 'poisson', 'categories_missing', 'forest_of_many',
         'dart', 'linear_of_many', 'two_targets', 'early_stop']
# A few files are in JSON, the others in UBJSON, which is smaller.
AS_JSON = {'squarederror', 'logistic', 'softprob', 'categories', 'one_hot', 'dart', 'linear', 'early_stop'}


def train(kind, seed, rounds, depth):
  """A booster of a kind, with its data."""
  parameters, label, more = KINDS[kind]
  data = Data(seed)
  parameters = {'max_depth': depth, 'seed': seed, 'nthread': 1, 'verbosity': 0} | parameters
  if parameters.get('booster') == 'gblinear':
    # The default one does not give the same twice.
    parameters |= {'updater': 'coord_descent'}
    del parameters['max_depth']
  matrix = xgb.DMatrix(data.missing if 'missing' in more else data.x, getattr(data, label),
                       qid=data.groups if 'groups' in more else None, nthread=1, **kinds_of_features(kind))
  if 'stop' not in more:
    return xgb.train(parameters, matrix, rounds), data
  other = Data(seed + 1)
  evals = [(xgb.DMatrix(other.x, -getattr(other, label) + 1), 'other')]
  booster = xgb.train(parameters, matrix, rounds, evals=evals, early_stopping_rounds=rounds, verbose_eval=False)
  # As if the second round had been the best one.
  booster.set_attr(best_iteration='1')
  return booster, data


def kinds_of_features(kind):
  if 'categories' not in KINDS[kind][2]:
    return {}
  return {'enable_categorical': True, 'feature_types': ['float', 'c'] + ['float'] * (FEATURES - 2)}


def ask(booster, kind, rows, **options):
  """Predictions, a line of each row, of one value or more."""
  matrix = xgb.DMatrix(rows, nthread=1, **kinds_of_features(kind))
  return np.asarray(booster.predict(matrix, **options), dtype=np.float32).reshape(len(rows), -1)


def linear(kind):
  return kind.startswith('linear')


def answers(booster, kind, rows):
  """All that a model says to rows."""
  found = {'prediction': ask(booster, kind, rows), 'margin': ask(booster, kind, rows, output_margin=True)}
  if not linear(kind):
    found['part'] = ask(booster, kind, rows, iteration_range=(1, 3))
    found['leaves'] = ask(booster, kind, rows, pred_leaf=True)
    best = getattr(booster, 'best_iteration', None) if 'stop' in KINDS[kind][2] else None
    if best is not None:
      found['best'] = ask(booster, kind, rows, iteration_range=(0, best + 1))
  # The bits, as not every reader of JSON reads each number to the last one.
  return {name: [' '.join('%08x' % bits for bits in row) for row in values.view(np.uint32)]
          for name, values in found.items()}


def main():
  GOLDEN.mkdir(exist_ok=True)
  version = sys.argv[1] + '_' if sys.argv[1:] else ''
  said = GOLDEN / 'answers.json'
  golden = json.loads(said.read_text(encoding='utf-8')) if said.exists() else {}
  golden['rows'] = [' '.join('%08x' % bits for bits in row) for row in Data(7).asked[:ROWS].view(np.uint32)]
  models = golden.setdefault('models', {})
  for kind in OLDER if version else KINDS:
    booster, data = train(kind, 7, ROUNDS, 3)
    name = version + kind + ('.json' if kind in AS_JSON else '.ubj')
    booster.save_model(GOLDEN / name)
    # What was saved answers, as what was trained may know more.
    models[name] = answers(xgb.Booster(model_file=GOLDEN / name), kind, data.asked[:ROWS])
  # A line for each thing a model says.
  with open(said, 'w', encoding='utf-8') as f:
    f.write('{\n"rows": %s,\n"models": {\n' % json.dumps(golden['rows']))
    lines = []
    for name, found in sorted(models.items()):
      each = ',\n'.join('  "%s": %s' % (what, json.dumps(values)) for what, values in found.items())
      lines.append('"%s": {\n%s\n}' % (name, each))
    f.write(',\n'.join(lines) + '\n}\n}\n')


if __name__ == '__main__':
  main()
