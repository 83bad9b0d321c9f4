"""Makes the golden files of this folder: PMML models, rows, and what the JPMML evaluator says to them.

Run it by hand when a kind is added (the files are committed); it takes Java 11 or newer and

    pip install jpmml_evaluator==0.16.0 jpype1 sklearn2pmml==0.133.1 scikit-learn==1.9.0 lightgbm==4.7.0 \
        xgboost-cpu==3.2.0 pandas numpy
    python ml/pmml/tests/make_golden.py [evaluate | NAME ...]

jpmml_evaluator brings org.jpmml:pmml-evaluator 1.7.7. Models whose names begin with `sk_`, `lgb_` or `xgb_` are trained here and converted by
sklearn2pmml; the others are written by hand (most by write_models.py), for what converters do not write. `evaluate` trains none again; with
names, only these are made again.
"""
import json
import math
import pathlib
import random
import re
import sys
import xml.etree.ElementTree as ET

GOLDEN = pathlib.Path(__file__).parent / 'golden'
ROWS = 24


def trained():
  """Pipelines by their names, with the data that they are fitted to."""
  import lightgbm as lgb
  import numpy as np
  import pandas as pd
  import xgboost as xgb
  from sklearn.compose import ColumnTransformer
  from sklearn.ensemble import (AdaBoostRegressor, BaggingClassifier, ExtraTreesClassifier, GradientBoostingClassifier,
                                GradientBoostingRegressor, HistGradientBoostingClassifier, HistGradientBoostingRegressor,
                                RandomForestClassifier, RandomForestRegressor, VotingClassifier, VotingRegressor)
  from sklearn.impute import SimpleImputer
  from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge
  from sklearn.multiclass import OneVsRestClassifier
  from sklearn.neural_network import MLPClassifier, MLPRegressor
  from sklearn.pipeline import make_pipeline
  from sklearn.preprocessing import (KBinsDiscretizer, MinMaxScaler, OneHotEncoder, OrdinalEncoder, PolynomialFeatures,
                                     StandardScaler)
  from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
  from sklearn2pmml.decoration import CategoricalDomain, ContinuousDomain
  from sklearn2pmml.preprocessing import CutTransformer, ExpressionTransformer

  rng = np.random.default_rng(7)
  count = 300
  x = pd.DataFrame({
      'acidity': np.round(rng.normal(7, 1.5, count), 2),
      'sugar': np.round(rng.gamma(2, 2, count), 2),
      'alcohol': np.round(rng.normal(11, 1, count), 2),
      'colour': rng.choice(['red', 'white', 'rosé'], count),
  })
  signal = 0.5 * x.alcohol - 0.2 * x.acidity + np.log1p(x.sugar) + (x.colour == 'red') + rng.normal(0, 0.3, count)
  number = pd.Series(signal, name='quality')
  two = pd.Series(np.where(signal > signal.median(), 'good', 'bad'), name='taste')
  three = pd.Series(np.digitize(signal, np.quantile(signal, [0.3, 0.7])), name='stars')
  numbers = ['acidity', 'sugar', 'alcohol']

  def plain(model):
    return make_pipeline(ColumnTransformer([('numbers', 'passthrough', numbers),
                                            ('colour', OneHotEncoder(sparse_output=False), ['colour'])]), model)

  def scaled(model):
    return make_pipeline(ColumnTransformer([('numbers', StandardScaler(), numbers),
                                            ('colour', OneHotEncoder(sparse_output=False), ['colour'])]), model)

  def small(model, **more):
    return model(max_depth=3, random_state=1, **more)

  codes = ColumnTransformer([('numbers', 'passthrough', numbers), ('colour', OrdinalEncoder(), ['colour'])])
  xgb_small = dict(n_estimators=4, max_depth=3, random_state=1)
  lgb_small = dict(n_estimators=4, num_leaves=6, verbose=-1, random_state=1)
  imputed = ColumnTransformer([
      ('acidity', make_pipeline(ContinuousDomain(invalid_value_treatment='as_is'), SimpleImputer(strategy='median'),
                                MinMaxScaler()), ['acidity']),
      ('sugar', make_pipeline(ContinuousDomain(outlier_treatment='as_extreme_values', low_value=0.5, high_value=8.0),
                              KBinsDiscretizer(4, encode='onehot-dense', quantile_method='averaged_inverted_cdf')), ['sugar']),
      ('alcohol', make_pipeline(ContinuousDomain(missing_value_replacement=11.5, invalid_value_treatment='as_missing'),
                                PolynomialFeatures(2, include_bias=False)), ['alcohol']),
      ('colour', make_pipeline(CategoricalDomain(invalid_value_treatment='as_missing', missing_value_replacement='red'),
                               OneHotEncoder(sparse_output=False)), ['colour']),
  ])
  expressions = ColumnTransformer([
      ('ratio', ExpressionTransformer('X[0] / (X[1] + 1.0) if X[0] > 6.5 else numpy.log1p(X[1])'), ['acidity', 'sugar']),
      ('cut', make_pipeline(CutTransformer([0.0, 9.5, 11.0, 20.0], labels=['light', 'middle', 'strong']),
                            OneHotEncoder(sparse_output=False)), ['alcohol']),
      ('colour', OneHotEncoder(sparse_output=False), ['colour']),
  ])
  return {
      'sk_linear': (plain(LinearRegression()), x, number),
      'sk_poisson': (scaled(PoissonRegressor()), x, np.round(np.exp(number / 4)).rename('bottles')),
      'sk_logistic_two': (scaled(LogisticRegression()), x, two),
      'sk_logistic_three': (scaled(LogisticRegression()), x, three),
      'sk_one_vs_rest': (scaled(OneVsRestClassifier(LogisticRegression())), x, three.map(['one', 'two', 'many'].__getitem__)),
      'sk_tree_number': (plain(small(DecisionTreeRegressor)), x, number),
      'sk_tree_three': (plain(small(DecisionTreeClassifier)), x, three),
      'sk_forest_number': (plain(small(RandomForestRegressor, n_estimators=4)), x, number),
      'sk_forest_three': (plain(small(RandomForestClassifier, n_estimators=4)), x, three),
      'sk_extra_two': (plain(small(ExtraTreesClassifier, n_estimators=4)), x, two),
      'sk_boosted_number': (plain(small(GradientBoostingRegressor, n_estimators=4)), x, number),
      'sk_boosted_two': (plain(small(GradientBoostingClassifier, n_estimators=4)), x, two),
      'sk_boosted_three': (plain(small(GradientBoostingClassifier, n_estimators=3)), x, three),
      'sk_histogram_number': (make_pipeline(codes, small(HistGradientBoostingRegressor, max_iter=3)), x, number),
      'sk_histogram_two': (make_pipeline(codes, small(HistGradientBoostingClassifier, max_iter=3)), x, two),
      'sk_adaboost': (plain(AdaBoostRegressor(DecisionTreeRegressor(max_depth=2), n_estimators=5, random_state=1)), x, number),
      'sk_bagging': (plain(BaggingClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=3, random_state=1)), x, three),
      'sk_voting_hard': (plain(VotingClassifier([('tree', small(DecisionTreeClassifier)),
                                                 ('line', LogisticRegression(max_iter=1000)),
                                                 ('forest', small(RandomForestClassifier, n_estimators=2))])), x, two),
      'sk_voting_soft': (plain(VotingClassifier([('tree', small(DecisionTreeClassifier)),
                                                 ('line', LogisticRegression(max_iter=1000))],
                                                voting='soft', weights=[2, 1])), x, three),
      'sk_voting_number': (plain(VotingRegressor([('tree', small(DecisionTreeRegressor)), ('line', Ridge())],
                                                 weights=[1, 3])), x, number),
      'sk_network_number': (scaled(MLPRegressor(hidden_layer_sizes=(5, 3), max_iter=200, random_state=1)), x, number),
      'sk_network_two': (scaled(MLPClassifier(hidden_layer_sizes=(4, ), activation='tanh', max_iter=200, random_state=1)), x, two),
      'sk_network_three': (scaled(MLPClassifier(hidden_layer_sizes=(4, ), activation='logistic', max_iter=200, random_state=1)), x, three),
      'sk_imputed': (make_pipeline(imputed, Ridge()), x, number),
      'sk_expressions': (make_pipeline(expressions, Ridge()), x, number),
      'lgb_number': (make_pipeline(codes, lgb.LGBMRegressor(**lgb_small)), x, number),
      'lgb_two': (make_pipeline(codes, lgb.LGBMClassifier(**lgb_small)), x, two),
      'lgb_three': (make_pipeline(codes, lgb.LGBMClassifier(**lgb_small)), x, three),
      'lgb_poisson': (make_pipeline(codes, lgb.LGBMRegressor(objective='poisson', **lgb_small)), x,
                      np.round(np.exp(number / 4)).rename('bottles')),
      'xgb_number': (make_pipeline(codes, xgb.XGBRegressor(**xgb_small)), x, number),
      'xgb_two': (make_pipeline(codes, xgb.XGBClassifier(**xgb_small)), x, two.eq('good').astype(int).rename('good')),
      'xgb_three': (make_pipeline(codes, xgb.XGBClassifier(**xgb_small)), x, three),
      'xgb_poisson': (make_pipeline(codes, xgb.XGBRegressor(objective='count:poisson', **xgb_small)), x,
                      np.round(np.exp(number / 4)).rename('bottles')),
  }


def train(names):
  import warnings
  from sklearn2pmml import sklearn2pmml
  from sklearn2pmml.pipeline import PMMLPipeline
  warnings.simplefilter('ignore')
  for name, (pipeline, x, y) in trained().items():
    if names and name not in names:
      continue
    path = GOLDEN / (name + '.pmml')
    steps = PMMLPipeline(pipeline.steps)
    steps.fit(x, y)
    try:
      sklearn2pmml(steps, str(path))
    except RuntimeError:
      if not names:
        raise
      print('cannot convert', name)
      continue
    text = path.read_text(encoding='utf-8')
    # What changes with each run.
    text = re.sub(r'\s*<Timestamp>.*?</Timestamp>', '', text)
    path.write_text(text, encoding='utf-8')


def local(element):
  return element.tag.split('}')[-1]


def fields(path):
  """(name, how to draw a value) of what a document asks for."""
  root = ET.parse(path).getroot()
  model = next(child for child in root if any(local(part) == 'MiningSchema' for part in child))
  schema = next(part for part in model if local(part) == 'MiningSchema')
  active = [field.get('name') for field in schema if local(field) == 'MiningField' and field.get('usageType', 'active') == 'active']
  dictionary = {field.get('name'): field for field in root.iter() if local(field) == 'DataField'}
  return [(name, dictionary[name]) for name in active]


def draw(field, source):
  """A value for a field: a usual one, mostly."""
  values = [value.get('value') for value in field if local(value) == 'Value' and value.get('property', 'valid') == 'valid']
  special = [value.get('value') for value in field if local(value) == 'Value' and value.get('property') in ('missing', 'invalid')]
  kind, odd = field.get('dataType'), source.random()
  number = {'integer': int, 'double': float, 'float': float}.get(kind, str)
  if odd < 0.06:
    return None
  if odd < 0.08:
    return 'neither' if kind == 'string' else 'no number'
  if special and odd < 0.2:
    value = source.choice(special)
    return None if value == 'NaN' else number(value)
  if values and odd < 0.97:
    return number(source.choice(values))
  if kind == 'string':
    return source.choice(['a', 'b', 'other'])
  if kind == 'boolean':
    return source.choice([True, False])
  if kind == 'integer':
    return source.randint(-3, 12)
  return round(source.gauss(6, 5), 2)


def plain_value(value):
  """What the evaluator gave, as JSON has it."""
  if value is None or isinstance(value, (str, bool, int)):
    return value
  if isinstance(value, float):
    return value if math.isfinite(value) else str(value)
  if hasattr(value, 'item'):
    return plain_value(value.item())
  return str(value)


def evaluate(path):
  from jpmml_evaluator import make_evaluator
  evaluator = make_evaluator(str(path))
  evaluator.verify()
  source = random.Random(path.stem)
  rows, results = [], []
  for _ in range(ROWS):
    row = {name: draw(field, source) for name, field in fields(path)}
    rows.append(row)
    try:
      found = evaluator.evaluate({name: value for name, value in row.items() if value is not None})
      results.append({name: plain_value(value) for name, value in found.items()})
    except Exception as error:  # pylint: disable=broad-except
      results.append({'error': str(error).split('\n')[0][:200]})
  return {'target': [str(field.getName()) for field in evaluator.getTargetFields()], 'rows': rows, 'results': results}


def main():
  names = sys.argv[1:]
  GOLDEN.mkdir(exist_ok=True)
  if names == ['evaluate']:
    names = []
  else:
    train(names)
  answers = GOLDEN / 'answers.json'
  golden = json.loads(answers.read_text(encoding='utf-8')) if names and answers.exists() else {}
  for path in sorted(GOLDEN.glob('*.pmml')):
    if names and path.stem not in names:
      continue
    try:
      golden[path.stem] = evaluate(path)
    except Exception as error:  # pylint: disable=broad-except
      raise SystemExit(f'{path.name}: {error}') from error
  with open(answers, 'w', encoding='utf-8') as f:
    models = []
    for name, found in sorted(golden.items()):
      lines = [f'  "target": {json.dumps(found["target"])}']
      for what in ('rows', 'results'):
        entries = ',\n   '.join(json.dumps(entry, ensure_ascii=False, allow_nan=False) for entry in found[what])
        lines.append(f'  "{what}": [\n   {entries}]')
      models.append('"%s": {\n%s\n}' % (name, ',\n'.join(lines)))
    f.write('{\n' + ',\n'.join(models) + '\n}\n')


if __name__ == '__main__':
  main()
