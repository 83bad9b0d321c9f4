"""Writes the models of this folder that come in families: each kind of a thing that PMML has, in a document of its own.

    python ml/pmml/tests/write_models.py
    python ml/pmml/tests/make_golden.py evaluate
"""
import pathlib

GOLDEN = pathlib.Path(__file__).parent / 'golden'
NS = '''<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4">
  <Header/>
'''
def save(name, text):
  (GOLDEN / (name + '.pmml')).write_text(text, encoding='utf-8')

def regression(name, norm, classes, optype):
  values = ''.join(f'\n      <Value value="{c}"/>' for c in classes)
  tables = ''.join(f'''
    <RegressionTable intercept="{0.4 * i - 0.7:.2f}" targetCategory="{c}">
      <NumericPredictor name="x" coefficient="{0.3 - 0.25 * i:.2f}"/>
      <CategoricalPredictor name="kind" value="a" coefficient="{0.2 * i + 0.1:.2f}"/>
    </RegressionTable>''' for i, c in enumerate(classes))
  outputs = ''.join(f'''
      <OutputField name="p_{c}" feature="probability" value="{c}" dataType="double" optype="continuous"/>''' for c in classes)
  save(name, f'''<PMML xmlns="http://www.dmg.org/PMML-4_3" version="4.3">
  <Header/>
  <DataDictionary>
    <DataField name="x" optype="continuous" dataType="double"/>
    <DataField name="kind" optype="categorical" dataType="string">
      <Value value="a"/>
      <Value value="b"/>
    </DataField>
    <DataField name="class" optype="{optype}" dataType="string">{values}
    </DataField>
  </DataDictionary>
  <RegressionModel functionName="classification" normalizationMethod="{norm}">
    <MiningSchema>
      <MiningField name="x" outliers="asExtremeValues" lowValue="-4" highValue="4"/>
      <MiningField name="kind" invalidValueTreatment="asIs" missingValueReplacement="b"/>
      <MiningField name="class" usageType="target"/>
    </MiningSchema>
    <Output>{outputs}
      <OutputField name="best" feature="probability" dataType="double" optype="continuous"/>
    </Output>{tables}
  </RegressionModel>
</PMML>
''')


for norm in ['none', 'softmax', 'simplemax', 'logit', 'probit', 'cloglog', 'loglog', 'cauchit']:
  regression('regression_two_' + norm, norm, ['yes', 'no'], 'categorical')
for norm in ['softmax', 'simplemax', 'logit', 'none']:
  regression('regression_three_' + norm, norm, ['low', 'middle', 'high'], 'categorical')
for norm in ['logit', 'cloglog']:
  regression('regression_ordinal_' + norm, norm, ['low', 'middle', 'high'], 'ordinal')


def general(name, attributes, classification=False):
  target = '''<DataField name="y" optype="categorical" dataType="string">
      <Value value="no"/>
      <Value value="yes"/>
    </DataField>''' if classification else '<DataField name="y" optype="continuous" dataType="double"/>'
  cat = ' targetCategory="yes"' if classification else ''
  out = '''
    <Output>
      <OutputField name="p_no" feature="probability" value="no" dataType="double" optype="continuous"/>
      <OutputField name="p_yes" feature="probability" value="yes" dataType="double" optype="continuous"/>
    </Output>''' if classification else ''
  save(name, f'''<PMML xmlns="http://www.dmg.org/PMML-4_2" version="4.2">
  <Header/>
  <DataDictionary>
    <DataField name="x" optype="continuous" dataType="double"/>
    <DataField name="z" optype="continuous" dataType="double"/>
    <DataField name="kind" optype="categorical" dataType="string">
      <Value value="a"/>
      <Value value="b"/>
    </DataField>
    {target}
  </DataDictionary>
  <GeneralRegressionModel functionName="{'classification' if classification else 'regression'}" {attributes}>
    <MiningSchema>
      <MiningField name="x"/>
      <MiningField name="z" missingValueReplacement="0.5"/>
      <MiningField name="kind"/>
      <MiningField name="y" usageType="target"/>
    </MiningSchema>{out}
    <ParameterList>
      <Parameter name="p0" label="Intercept"/>
      <Parameter name="p1" label="x"/>
      <Parameter name="p2" label="kind=a"/>
      <Parameter name="p3" label="x squared times kind=b"/>
    </ParameterList>
    <FactorList>
      <Predictor name="kind"/>
    </FactorList>
    <CovariateList>
      <Predictor name="x"/>
    </CovariateList>
    <PPMatrix>
      <PPCell value="1" predictorName="x" parameterName="p1"/>
      <PPCell value="a" predictorName="kind" parameterName="p2"/>
      <PPCell value="2" predictorName="x" parameterName="p3"/>
      <PPCell value="b" predictorName="kind" parameterName="p3"/>
    </PPMatrix>
    <ParamMatrix>
      <PCell{cat} parameterName="p0" df="1" beta="0.11"/>
      <PCell{cat} parameterName="p1" df="1" beta="0.07"/>
      <PCell{cat} parameterName="p2" df="1" beta="-0.2"/>
      <PCell{cat} parameterName="p3" df="1" beta="0.004"/>
    </ParamMatrix>
  </GeneralRegressionModel>
</PMML>
''')


LINEAR = 'modelType="generalizedLinear" linkFunction='
general('general_regression', 'modelType="regression"')
general('general_linear', 'modelType="generalLinear" offsetVariable="z"')
for link in ['identity', 'log', 'logc', 'logit', 'probit', 'cloglog', 'loglog']:
  general('general_' + link, LINEAR + f'"{link}" offsetValue="0.2"')
general('general_negbin', LINEAR + '"negbin" distribution="negbin" distParameter="2" offsetValue="-3"')
general('general_oddspower', LINEAR + '"oddspower" linkParameter="0.5"')
general('general_power', LINEAR + '"power" linkParameter="2" offsetValue="3"')
general('general_trials', LINEAR + '"logit" distribution="binomial" trialsValue="40" offsetVariable="z"')
general('general_two_logit', LINEAR + '"logit" distribution="binomial" targetReferenceCategory="no"', True)
general('general_two_probit', LINEAR + '"probit" distribution="binomial"', True)


def of_many(name, attributes, ordinal):
  optype = 'ordinal' if ordinal else 'categorical'
  if ordinal:
    cells = '''<PCell targetCategory="low" parameterName="p0" df="1" beta="-0.8"/>
      <PCell targetCategory="middle" parameterName="p0" df="1" beta="0.9"/>
      <PCell parameterName="p1" df="1" beta="0.12"/>
      <PCell parameterName="p2" df="1" beta="0.4"/>'''
  else:
    cells = '''<PCell targetCategory="low" parameterName="p0" df="1" beta="-0.8"/>
      <PCell targetCategory="low" parameterName="p1" df="1" beta="0.12"/>
      <PCell targetCategory="middle" parameterName="p0" df="1" beta="0.9"/>
      <PCell targetCategory="middle" parameterName="p2" df="1" beta="0.4"/>'''
  save(name, f'''<PMML xmlns="http://www.dmg.org/PMML-4_1" version="4.1">
  <Header/>
  <DataDictionary>
    <DataField name="x" optype="continuous" dataType="double"/>
    <DataField name="kind" optype="categorical" dataType="string">
      <Value value="a"/>
      <Value value="b"/>
    </DataField>
    <DataField name="y" optype="{optype}" dataType="string">
      <Value value="low"/>
      <Value value="middle"/>
      <Value value="high"/>
    </DataField>
  </DataDictionary>
  <GeneralRegressionModel functionName="classification" {attributes}>
    <MiningSchema>
      <MiningField name="x"/>
      <MiningField name="kind"/>
      <MiningField name="y" usageType="predicted"/>
    </MiningSchema>
    <Output>
      <OutputField name="p_low" feature="probability" value="low" dataType="double" optype="continuous"/>
      <OutputField name="p_middle" feature="probability" value="middle" dataType="double" optype="continuous"/>
      <OutputField name="p_high" feature="probability" value="high" dataType="double" optype="continuous"/>
    </Output>
    <ParameterList>
      <Parameter name="p0"/>
      <Parameter name="p1"/>
      <Parameter name="p2"/>
    </ParameterList>
    <FactorList>
      <Predictor name="kind"/>
    </FactorList>
    <CovariateList>
      <Predictor name="x"/>
    </CovariateList>
    <PPMatrix>
      <PPCell value="1" predictorName="x" parameterName="p1"/>
      <PPCell value="a" predictorName="kind" parameterName="p2"/>
    </PPMatrix>
    <ParamMatrix>
      {cells}
    </ParamMatrix>
  </GeneralRegressionModel>
</PMML>
''')


of_many('general_multinomial', 'modelType="multinomialLogistic" targetReferenceCategory="high"', False)
for link in ['logit', 'probit', 'cloglog', 'loglog', 'cauchit']:
  of_many('general_ordinal_' + link, f'modelType="ordinalMultinomial" cumulativeLink="{link}"', True)
DICT = '''  <DataDictionary>
    <DataField name="age" optype="continuous" dataType="double"/>
    <DataField name="income" optype="continuous" dataType="integer"/>
    <DataField name="job" optype="categorical" dataType="string">
      <Value value="clerk"/>
      <Value value="smith"/>
      <Value value="cook"/>
    </DataField>
    <DataField name="risk" optype="categorical" dataType="string">
      <Value value="low"/>
      <Value value="high"/>
    </DataField>
  </DataDictionary>
'''
SCHEMA = '''      <MiningField name="age"/>
      <MiningField name="income"/>
      <MiningField name="job" invalidValueTreatment="asIs"/>
'''
OUT = '''    <Output>
      <OutputField name="node" feature="entityId" dataType="string" optype="categorical"/>
      <OutputField name="low" feature="probability" value="low" dataType="double" optype="continuous"/>
      <OutputField name="high" feature="probability" value="high" dataType="double" optype="continuous"/>
      <OutputField name="sure" feature="confidence" value="high" dataType="double" optype="continuous"/>
    </Output>
'''
def dist(low, high, conf=''):
  return f'''<ScoreDistribution value="low" recordCount="{low}"{conf and f' confidence="{conf[0]}"'}/><ScoreDistribution value="high" recordCount="{high}"{conf and f' confidence="{conf[1]}"'}/>'''
def tree(attrs, conf=False):
  c = lambda a, b: (a, b) if conf else ''
  return f'''<Node id="0" score="low" recordCount="100" defaultChild="1">
      <True/>
      {dist(60, 40, c(0.55, 0.45))}
      <Node id="1" score="low" recordCount="60" defaultChild="4">
        <SimplePredicate field="age" operator="lessOrEqual" value="7.5"/>
        {dist(45, 15, c(0.7, 0.3))}
        <Node id="3" score="high" recordCount="20">
          <SimpleSetPredicate field="job" booleanOperator="isIn">
            <Array n="2" type="string">clerk "cook"</Array>
          </SimpleSetPredicate>
          {dist(8, 12, c(0.35, 0.65))}
        </Node>
        <Node id="4" score="low" recordCount="40">
          <CompoundPredicate booleanOperator="or">
            <SimplePredicate field="job" operator="equal" value="smith"/>
            <SimplePredicate field="income" operator="greaterThan" value="6"/>
          </CompoundPredicate>
          {dist(37, 3, c(0.9, 0.1))}
        </Node>
      </Node>
      <Node id="2" score="high" recordCount="40" defaultChild="6">
        <SimplePredicate field="age" operator="greaterThan" value="7.5"/>
        {dist(15, 25, c(0.4, 0.6))}
        <Node id="5" score="high" recordCount="30">
          <CompoundPredicate booleanOperator="surrogate">
            <SimplePredicate field="income" operator="lessThan" value="5"/>
            <SimplePredicate field="job" operator="notEqual" value="cook"/>
          </CompoundPredicate>
          {dist(7, 23, c(0.25, 0.75))}
        </Node>
        <Node id="6" score="low" recordCount="10">
          <CompoundPredicate booleanOperator="and">
            <SimplePredicate field="income" operator="greaterOrEqual" value="5"/>
            <SimplePredicate field="job" operator="isNotMissing"/>
          </CompoundPredicate>
          {dist(8, 2, c(0.8, 0.2))}
        </Node>
      </Node>
    </Node>'''
def treedoc(name, attrs, conf=False):
  save(name, NS + DICT + f'''  <TreeModel functionName="classification" {attrs}>
    <MiningSchema>
{SCHEMA}      <MiningField name="risk" usageType="target"/>
    </MiningSchema>
{OUT}    {tree(attrs, conf)}
  </TreeModel>
</PMML>
''')
for strategy in ['none', 'lastPrediction', 'nullPrediction', 'defaultChild', 'weightedConfidence', 'aggregateNodes']:
  short = {'none': 'none', 'lastPrediction': 'last', 'nullPrediction': 'null', 'defaultChild': 'default', 'weightedConfidence': 'weighted', 'aggregateNodes': 'aggregate'}[strategy]
  treedoc('tree_' + short, f'missingValueStrategy="{strategy}" noTrueChildStrategy="returnNullPrediction" splitCharacteristic="binarySplit"')
treedoc('tree_no_child_last', 'noTrueChildStrategy="returnLastPrediction"')
treedoc('tree_penalty', 'missingValueStrategy="defaultChild" missingValuePenalty="0.8"', True)
# Logic
save('tree_logic', NS + '''  <DataDictionary>
    <DataField name="p" optype="categorical" dataType="boolean"/>
    <DataField name="q" optype="categorical" dataType="boolean"/>
    <DataField name="size" optype="ordinal" dataType="string">
      <Value value="small"/>
      <Value value="medium"/>
      <Value value="large"/>
    </DataField>
    <DataField name="y" optype="continuous" dataType="double"/>
  </DataDictionary>
  <TreeModel functionName="regression" noTrueChildStrategy="returnLastPrediction" missingValueStrategy="none">
    <MiningSchema>
      <MiningField name="p"/>
      <MiningField name="q"/>
      <MiningField name="size"/>
      <MiningField name="y" usageType="target"/>
    </MiningSchema>
    <Node score="0">
      <True/>
      <Node score="1">
        <CompoundPredicate booleanOperator="xor">
          <SimplePredicate field="p" operator="equal" value="true"/>
          <SimplePredicate field="q" operator="equal" value="true"/>
        </CompoundPredicate>
        <Node score="1.5">
          <SimplePredicate field="size" operator="greaterOrEqual" value="medium"/>
        </Node>
      </Node>
      <Node score="2">
        <CompoundPredicate booleanOperator="surrogate">
          <CompoundPredicate booleanOperator="and">
            <SimplePredicate field="p" operator="equal" value="true"/>
            <SimplePredicate field="q" operator="equal" value="true"/>
          </CompoundPredicate>
          <SimplePredicate field="size" operator="lessThan" value="large"/>
          <False/>
        </CompoundPredicate>
        <Node score="2.5">
          <SimpleSetPredicate field="size" booleanOperator="isNotIn">
            <Array type="string">small medium</Array>
          </SimpleSetPredicate>
        </Node>
      </Node>
    </Node>
  </TreeModel>
</PMML>
''')
# Mining
def stump(field, threshold, low, high, fn):
  if fn == 'regression':
    return f'''<TreeModel functionName="regression" noTrueChildStrategy="returnNullPrediction">
          <MiningSchema>
            <MiningField name="{field}"/>
          </MiningSchema>
          <Node>
            <True/>
            <Node score="{low}">
              <SimplePredicate field="{field}" operator="lessThan" value="{threshold}"/>
            </Node>
            <Node score="{high}">
              <SimplePredicate field="{field}" operator="greaterOrEqual" value="{threshold}"/>
            </Node>
          </Node>
        </TreeModel>'''
  def node(p, op):
    best = ['red', 'green', 'blue'][max(range(3), key=lambda i: p[i])]
    scores = ''.join(f'\n              <ScoreDistribution value="{c}" recordCount="{n}"/>' for c, n in zip(['red', 'green', 'blue'], p))
    return f'''
            <Node score="{best}" recordCount="{sum(p)}">
              <SimplePredicate field="{field}" operator="{op}" value="{threshold}"/>{scores}
            </Node>'''
  return f'''<TreeModel functionName="classification">
          <MiningSchema>
            <MiningField name="{field}"/>
          </MiningSchema>
          <Node>
            <True/>{node(low, 'lessThan')}{node(high, 'greaterOrEqual')}
          </Node>
        </TreeModel>'''
def mining(name, fn, method, more=''):
  if fn == 'regression':
    stumps = [('x', 4, -1.5, 2.25), ('y', 6, 0.75, 3.5), ('z', 5.5, 1.25, -0.5), ('x', 8, 4, 6.5)]
    target = '<DataField name="t" optype="continuous" dataType="double"/>'
    out = ''
  else:
    stumps = [('x', 4, (5, 3, 2), (1, 2, 7)), ('y', 6, (2, 6, 2), (4, 3, 3)), ('z', 5.5, (3, 3, 4), (8, 1, 1)), ('x', 8, (1, 6, 3), (3, 5, 2))]
    target = '''<DataField name="t" optype="categorical" dataType="string">
      <Value value="red"/>
      <Value value="green"/>
      <Value value="blue"/>
    </DataField>'''
    out = '''    <Output>
      <OutputField name="p_red" feature="probability" value="red" dataType="double" optype="continuous"/>
      <OutputField name="p_green" feature="probability" value="green" dataType="double" optype="continuous"/>
      <OutputField name="p_blue" feature="probability" value="blue" dataType="double" optype="continuous"/>
    </Output>
'''
  segments = ''
  for number, one in enumerate(stumps):
    predicate = '<True/>' if number != 2 else '<SimplePredicate field="y" operator="greaterThan" value="2"/>'
    weight = [0.5, 2, 1, 1.25][number]
    segments += f'''
      <Segment id="s{number}" weight="{weight}">
        {predicate}
        {stump(*one, fn)}
      </Segment>'''
  save(name, NS + f'''  <DataDictionary>
    <DataField name="x" optype="continuous" dataType="double"/>
    <DataField name="y" optype="continuous" dataType="double"/>
    <DataField name="z" optype="continuous" dataType="float"/>
    {target}
  </DataDictionary>
  <MiningModel functionName="{fn}">
    <MiningSchema>
      <MiningField name="x"/>
      <MiningField name="y"/>
      <MiningField name="z"/>
      <MiningField name="t" usageType="target"/>
    </MiningSchema>
{out}    <Segmentation multipleModelMethod="{method}"{more}>{segments}
    </Segmentation>
  </MiningModel>
</PMML>
''')
for m in ['average', 'weightedAverage', 'median', 'weightedMedian', 'sum', 'weightedSum', 'selectFirst']:
  mining('mining_number_' + m, 'regression', m)
for m in ['majorityVote', 'weightedMajorityVote', 'average', 'weightedAverage', 'median', 'max', 'selectFirst']:
  mining('mining_class_' + m, 'classification', m)
mining('mining_skip', 'regression', 'weightedAverage', ' missingPredictionTreatment="skipSegment" missingThreshold="0.4"')
mining('mining_skip_vote', 'classification', 'majorityVote', ' missingPredictionTreatment="skipSegment"')
mining('mining_return', 'classification', 'majorityVote', ' missingPredictionTreatment="returnMissing"')
# Chain
save('mining_chain', NS + f'''  <DataDictionary>
    <DataField name="x" optype="continuous" dataType="double"/>
    <DataField name="y" optype="continuous" dataType="double"/>
    <DataField name="z" optype="continuous" dataType="float"/>
    <DataField name="t" optype="categorical" dataType="string">
      <Value value="no"/>
      <Value value="yes"/>
    </DataField>
  </DataDictionary>
  <TransformationDictionary>
    <DerivedField name="total" optype="continuous" dataType="double">
      <Apply function="+"><FieldRef field="x"/><FieldRef field="y"/></Apply>
    </DerivedField>
  </TransformationDictionary>
  <MiningModel functionName="classification">
    <MiningSchema>
      <MiningField name="x"/>
      <MiningField name="y" missingValueReplacement="2"/>
      <MiningField name="z"/>
      <MiningField name="t" usageType="target"/>
    </MiningSchema>
    <Output>
      <OutputField name="first" feature="predictedValue" segmentId="one" dataType="double" optype="continuous"/>
      <OutputField name="answer" feature="predictedValue" dataType="string" optype="categorical"/>
    </Output>
    <LocalTransformations>
      <DerivedField name="doubled" optype="continuous" dataType="double">
        <Apply function="*"><FieldRef field="total"/><Constant>2</Constant></Apply>
      </DerivedField>
    </LocalTransformations>
    <Segmentation multipleModelMethod="modelChain">
      <Segment id="one">
        <True/>
        <RegressionModel functionName="regression">
          <MiningSchema>
            <MiningField name="doubled"/>
            <MiningField name="z" missingValueReplacement="1.5"/>
          </MiningSchema>
          <Output>
            <OutputField name="score" feature="predictedValue" optype="continuous" dataType="double" isFinalResult="false"/>
            <OutputField name="half" feature="transformedValue" optype="continuous" dataType="double">
              <Apply function="/"><FieldRef field="score"/><Constant dataType="double">2</Constant></Apply>
            </OutputField>
          </Output>
          <RegressionTable intercept="-1">
            <NumericPredictor name="doubled" coefficient="0.05"/>
            <NumericPredictor name="z" coefficient="0.1"/>
          </RegressionTable>
        </RegressionModel>
      </Segment>
      <Segment id="two">
        <SimplePredicate field="score" operator="greaterThan" value="0.25"/>
        <RegressionModel functionName="classification" normalizationMethod="logit">
          <MiningSchema>
            <MiningField name="half"/>
            <MiningField name="t" usageType="target"/>
          </MiningSchema>
          <Output>
            <OutputField name="p_yes" feature="probability" value="yes" optype="continuous" dataType="double"/>
          </Output>
          <RegressionTable intercept="-0.3" targetCategory="yes">
            <NumericPredictor name="half" coefficient="1.5"/>
          </RegressionTable>
          <RegressionTable intercept="0" targetCategory="no"/>
        </RegressionModel>
      </Segment>
    </Segmentation>
  </MiningModel>
</PMML>
''')
# Networks
def network(name, activation, more='', regression=True, layer=''):
  weights = [[0.11, -0.07, 0.31], [-0.21, 0.13, -0.4], [0.05, 0.17, 0.23]]
  neurons = ''.join(f'''
      <Neuron id="h{i}" bias="{0.1 * i - 0.15:.2f}"{' width="%s"' % (2 + i) if activation == 'radialBasis' else ''}>
        <Con from="i0" weight="{w[0]}"/>
        <Con from="i1" weight="{w[1]}"/>
        <Con from="i2" weight="{w[2]}"/>
      </Neuron>''' for i, w in enumerate(weights))
  if regression:
    target = '<DataField name="y" optype="continuous" dataType="double"/>'
    last = '''
    <NeuralLayer activationFunction="identity">
      <Neuron id="o0" bias="0.3">
        <Con from="h0" weight="0.7"/>
        <Con from="h1" weight="-0.4"/>
        <Con from="h2" weight="0.9"/>
      </Neuron>
    </NeuralLayer>
    <NeuralOutputs numberOfOutputs="1">
      <NeuralOutput outputNeuron="o0">
        <DerivedField optype="continuous" dataType="double">
          <NormContinuous field="y">
            <LinearNorm orig="10" norm="0"/>
            <LinearNorm orig="14" norm="1"/>
            <LinearNorm orig="30" norm="2"/>
          </NormContinuous>
        </DerivedField>
      </NeuralOutput>
    </NeuralOutputs>'''
    out = ''
  else:
    target = '''<DataField name="y" optype="categorical" dataType="integer">
      <Value value="1"/>
      <Value value="2"/>
      <Value value="3"/>
    </DataField>'''
    last = f'''
    <NeuralLayer activationFunction="{'identity' if more else 'logistic'}"{more}>''' + ''.join(f'''
      <Neuron id="o{i}" bias="{0.2 * i}">
        <Con from="h0" weight="{0.7 - 0.4 * i:.1f}"/>
        <Con from="h1" weight="{0.3 * i}"/>
        <Con from="h2" weight="-0.2"/>
      </Neuron>''' for i in range(3)) + '''
    </NeuralLayer>
    <NeuralOutputs numberOfOutputs="3">''' + ''.join(f'''
      <NeuralOutput outputNeuron="o{i}">
        <DerivedField optype="categorical" dataType="integer">
          <NormDiscrete field="y" value="{i + 1}"/>
        </DerivedField>
      </NeuralOutput>''' for i in range(3)) + '''
    </NeuralOutputs>'''
    out = '''
    <Output>
      <OutputField name="class" feature="predictedValue" dataType="integer" optype="categorical"/>
      <OutputField name="p1" feature="probability" value="1" dataType="double" optype="continuous"/>
      <OutputField name="p2" feature="probability" value="2" dataType="double" optype="continuous"/>
      <OutputField name="p3" feature="probability" value="3" dataType="double" optype="continuous"/>
      <OutputField name="neuron" feature="entityId" dataType="string" optype="categorical"/>
    </Output>'''
  save(name, NS.replace('4_4', '4_2').replace('4.4', '4.2') + f'''  <DataDictionary>
    <DataField name="a" optype="continuous" dataType="double"/>
    <DataField name="b" optype="continuous" dataType="integer"/>
    <DataField name="c" optype="categorical" dataType="string">
      <Value value="u"/>
      <Value value="v"/>
    </DataField>
    {target}
  </DataDictionary>
  <NeuralNetwork functionName="{'regression' if regression else 'classification'}" activationFunction="{activation}"{layer}>
    <MiningSchema>
      <MiningField name="a" missingValueReplacement="0.5"/>
      <MiningField name="b"/>
      <MiningField name="c"/>
      <MiningField name="y" usageType="predicted"/>
    </MiningSchema>{out}
    <NeuralInputs numberOfInputs="3">
      <NeuralInput id="i0">
        <DerivedField optype="continuous" dataType="double">
          <NormContinuous field="a" outliers="asExtremeValues">
            <LinearNorm orig="-2" norm="-1"/>
            <LinearNorm orig="3" norm="0.25"/>
            <LinearNorm orig="12" norm="1"/>
          </NormContinuous>
        </DerivedField>
      </NeuralInput>
      <NeuralInput id="i1">
        <DerivedField optype="continuous" dataType="double">
          <FieldRef field="b"/>
        </DerivedField>
      </NeuralInput>
      <NeuralInput id="i2">
        <DerivedField optype="continuous" dataType="double">
          <NormDiscrete field="c" value="u" mapMissingTo="0.5"/>
        </DerivedField>
      </NeuralInput>
    </NeuralInputs>
    <NeuralLayer>{neurons}
    </NeuralLayer>{last}
  </NeuralNetwork>
</PMML>
''')
for a in ['logistic', 'tanh', 'identity', 'exponential', 'reciprocal', 'square', 'Gauss', 'sine', 'cosine', 'Elliott', 'arctan', 'rectifier']:
  network('network_' + a, a)
network('network_threshold', 'threshold', layer=' threshold="0.1"')
network('network_radialBasis', 'radialBasis', layer=' altitude="1.2"')
network('network_class', 'tanh', regression=False)
network('network_softmax', 'tanh', ' normalizationMethod="softmax"', regression=False)
network('network_simplemax', 'logistic', ' normalizationMethod="simplemax"', regression=False)
# Functions
fns1 = ['log10','ln','sqrt','abs','exp','floor','ceil','round','ln1p','expm1','sin','cos','tan','asin','acos','atan','sinh','cosh','tanh','rint','stdNormalCDF','stdNormalPDF','erf']
fns2 = ['+','-','*','/','min','max','sum','avg','product','pow','threshold','hypot','atan2','modulo','equal','notEqual','lessThan','lessOrEqual','greaterThan','greaterOrEqual']
def numeric_out(name, expr, kind='double'):
  return f'''
      <OutputField name="{name}" feature="transformedValue" dataType="{kind}" optype="{'continuous' if kind != 'boolean' and kind != 'string' else 'categorical'}">
        {expr}
      </OutputField>'''
def wrapper(name, fields, outs, extra=''):
  data = ''.join(f'\n    <DataField name="{n}" optype="{o}" dataType="{d}"/>' for n, o, d in fields)
  schema = ''.join(f'\n      <MiningField name="{n}" invalidValueTreatment="asMissing"/>' for n, _, _ in fields)
  save(name, NS + f'''  <DataDictionary>{data}
    <DataField name="target" optype="continuous" dataType="double"/>
  </DataDictionary>{extra}
  <RegressionModel functionName="regression">
    <MiningSchema>{schema}
      <MiningField name="target" usageType="target"/>
    </MiningSchema>
    <Output>{outs}
    </Output>
    <RegressionTable intercept="1"/>
  </RegressionModel>
</PMML>
''')
bools = {'equal','notEqual','lessThan','lessOrEqual','greaterThan','greaterOrEqual'}
for kind in ('double', 'integer'):
  outs = ''
  for f in fns1:
    outs += numeric_out(f, f'<Apply function="{f}" invalidValueTreatment="asMissing"><FieldRef field="x"/></Apply>')
  wrapper('functions_one_' + kind, [('x', 'continuous', kind)], outs)
  outs = ''
  for f in fns2:
    outs += numeric_out({'+':'plus','-':'minus','*':'times','/':'divide'}.get(f, f), f'<Apply function="{f}" invalidValueTreatment="asMissing"><FieldRef field="x"/><FieldRef field="y"/></Apply>', 'boolean' if f in bools else 'double')
  wrapper('functions_two_' + kind, [('x', 'continuous', kind), ('y', 'continuous', kind)], outs)
P = '<FieldRef field="p"/>'
Q = '<FieldRef field="q"/>'
outs = ''
outs += numeric_out('isMissing', f'<Apply function="isMissing">{P}</Apply>', 'boolean')
outs += numeric_out('isNotMissing', f'<Apply function="isNotMissing">{P}</Apply>', 'boolean')
outs += numeric_out('if', f'<Apply function="if">{P}<Constant>1</Constant><Constant>2</Constant></Apply>')
outs += numeric_out('if_without', f'<Apply function="if">{P}<Constant>1</Constant></Apply>')
outs += numeric_out('if_mapped', f'<Apply function="if" mapMissingTo="7">{P}<Constant>1</Constant></Apply>')
outs += numeric_out('if_default', f'<Apply function="if" defaultValue="8">{P}<Constant>1</Constant></Apply>')
outs += numeric_out('if_missing_value', f'<Apply function="if">{P}<FieldRef field="x"/><Constant>2</Constant></Apply>')
outs += numeric_out('plus_default', '<Apply function="+" defaultValue="5"><FieldRef field="x"/><Constant>1</Constant></Apply>')
outs += numeric_out('plus_mapped', '<Apply function="+" mapMissingTo="6"><FieldRef field="x"/><Constant>1</Constant></Apply>')
outs += numeric_out('isIn', '<Apply function="isIn"><FieldRef field="s"/><Constant>a</Constant><Constant>b</Constant></Apply>', 'boolean')
outs += numeric_out('isNotIn', '<Apply function="isNotIn"><FieldRef field="s"/><Constant>a</Constant><Constant>b</Constant></Apply>', 'boolean')
outs += numeric_out('uppercase', '<Apply function="uppercase"><FieldRef field="s"/></Apply>', 'string')
outs += numeric_out('lowercase', '<Apply function="lowercase"><Constant dataType="string">ÄB c</Constant></Apply>', 'string')
outs += numeric_out('concat', '<Apply function="concat"><FieldRef field="s"/><Constant dataType="string">-</Constant><FieldRef field="i"/></Apply>', 'string')
outs += numeric_out('trim', '<Apply function="trimBlanks"><Constant dataType="string">  a b </Constant></Apply>', 'string')
outs += numeric_out('length', '<Apply function="stringLength"><FieldRef field="s"/></Apply>', 'integer')
outs += numeric_out('as_text', '<FieldRef field="i"/>', 'string')
wrapper('functions_logic', [('p', 'categorical', 'boolean'), ('q', 'categorical', 'boolean'), ('x', 'continuous', 'double'), ('s', 'categorical', 'string'), ('i', 'continuous', 'integer')], outs)
outs = ''
for f in ('and', 'or'):
  outs += numeric_out(f, f'<Apply function="{f}">{P}{Q}</Apply>', 'boolean')
outs += numeric_out('not', f'<Apply function="not">{P}</Apply>', 'boolean')
outs += numeric_out('not_equal', f'<Apply function="not"><Apply function="equal">{P}{Q}</Apply></Apply>', 'boolean')
wrapper('functions_boolean', [('p', 'categorical', 'boolean'), ('q', 'categorical', 'boolean')], outs)
# Expressions
extra = '''
  <TransformationDictionary>
    <DefineFunction name="scaled" optype="continuous" dataType="double">
      <ParameterField name="value" optype="continuous" dataType="double"/>
      <ParameterField name="by" optype="continuous"/>
      <Apply function="*"><FieldRef field="value"/><Apply function="twice"><FieldRef field="by"/></Apply></Apply>
    </DefineFunction>
    <DefineFunction name="twice" optype="continuous" dataType="double">
      <ParameterField name="value" optype="continuous" dataType="double"/>
      <Apply function="+"><FieldRef field="value"/><FieldRef field="value"/></Apply>
    </DefineFunction>
    <DerivedField name="later" optype="continuous" dataType="double">
      <Apply function="scaled"><FieldRef field="sooner"/><Constant>3</Constant></Apply>
    </DerivedField>
    <DerivedField name="sooner" optype="continuous" dataType="float">
      <Apply function="/"><FieldRef field="x"/><Constant dataType="double">3</Constant></Apply>
    </DerivedField>
    <DerivedField name="bins" optype="categorical" dataType="string">
      <Discretize field="x" defaultValue="far" mapMissingTo="none">
        <DiscretizeBin binValue="low"><Interval closure="openClosed" rightMargin="0"/></DiscretizeBin>
        <DiscretizeBin binValue="middle"><Interval closure="openOpen" leftMargin="0" rightMargin="6"/></DiscretizeBin>
        <DiscretizeBin binValue="high"><Interval closure="closedClosed" leftMargin="6" rightMargin="12"/></DiscretizeBin>
      </Discretize>
    </DerivedField>
    <DerivedField name="table" optype="continuous" dataType="double">
      <MapValues outputColumn="out" defaultValue="-1" mapMissingTo="-2">
        <FieldColumnPair field="s" column="text"/>
        <FieldColumnPair field="i" column="number"/>
        <InlineTable>
          <row><text>a</text><number>1</number><out>1.5</out></row>
          <row><text>a</text><number>2</number><out>2.5</out></row>
          <row><text>b</text><number>3</number><out>3.5</out></row>
          <row><text>b</text><number>5</number><out>3.75</out></row>
          <row><text>other</text><number>6</number><out>4.5</out></row>
        </InlineTable>
      </MapValues>
    </DerivedField>
  </TransformationDictionary>'''
def ref(n, kind='double', more=''):
  return numeric_out('o_' + n, f'<FieldRef field="{n}"{more}/>', kind)
outs = ref('later') + ref('sooner', 'float') + ref('bins', 'string') + ref('table')
for out in ('asIs', 'asMissingValues', 'asExtremeValues'):
  outs += numeric_out('norm_' + out, f'<NormContinuous field="x" mapMissingTo="0.125" outliers="{out}"><LinearNorm orig="0" norm="1"/><LinearNorm orig="4" norm="3"/><LinearNorm orig="9" norm="0"/></NormContinuous>')
outs += numeric_out('is_a', '<NormDiscrete field="s" value="a"/>')
outs += numeric_out('is_three', '<NormDiscrete field="i" value="3" mapMissingTo="0.25"/>')
outs += numeric_out('given', '<FieldRef field="x" mapMissingTo="11"/>')
wrapper('expressions', [('x', 'continuous', 'double'), ('s', 'categorical', 'string'), ('i', 'continuous', 'integer')], outs, extra)
# Fields
save('fields', NS + '''  <DataDictionary>
    <DataField name="a" optype="continuous" dataType="double">
      <Interval closure="closedOpen" leftMargin="0" rightMargin="9"/>
      <Value value="-3" property="missing"/>
    </DataField>
    <DataField name="b" optype="continuous" dataType="integer">
      <Value value="7" property="invalid"/>
      <Value value="0" property="missing"/>
    </DataField>
    <DataField name="c" optype="categorical" dataType="string">
      <Value value="x" displayValue="the x"/>
      <Value value="y"/>
      <Value value="z" property="invalid"/>
    </DataField>
    <DataField name="d" optype="continuous" dataType="double"/>
    <DataField name="e" optype="continuous" dataType="float"/>
    <DataField name="t" optype="continuous" dataType="double"/>
  </DataDictionary>
  <RegressionModel functionName="regression">
    <MiningSchema>
      <MiningField name="a" invalidValueTreatment="asMissing" missingValueReplacement="4.5"/>
      <MiningField name="b" invalidValueTreatment="asValue" invalidValueReplacement="70"/>
      <MiningField name="c" invalidValueTreatment="asMissing" missingValueReplacement="y"/>
      <MiningField name="d" outliers="asMissingValues" lowValue="0" highValue="10" missingValueReplacement="100"/>
      <MiningField name="e" outliers="asExtremeValues" lowValue="1.1" highValue="8.3" missingValueReplacement="2.2"/>
      <MiningField name="t" usageType="target"/>
    </MiningSchema>
    <Output>
      <OutputField name="o_a" feature="transformedValue" dataType="double" optype="continuous"><FieldRef field="a"/></OutputField>
      <OutputField name="o_b" feature="transformedValue" dataType="integer" optype="continuous"><FieldRef field="b"/></OutputField>
      <OutputField name="o_c" feature="transformedValue" dataType="string" optype="categorical"><FieldRef field="c"/></OutputField>
      <OutputField name="o_d" feature="transformedValue" dataType="double" optype="continuous"><FieldRef field="d"/></OutputField>
      <OutputField name="o_e" feature="transformedValue" dataType="float" optype="continuous"><FieldRef field="e"/></OutputField>
    </Output>
    <RegressionTable intercept="0">
      <NumericPredictor name="a" coefficient="1"/>
      <NumericPredictor name="b" coefficient="1"/>
      <NumericPredictor name="d" coefficient="1"/>
      <NumericPredictor name="e" coefficient="1"/>
      <CategoricalPredictor name="c" value="x" coefficient="0.5"/>
    </RegressionTable>
  </RegressionModel>
</PMML>
''')
save('fields_listed', NS + '''  <DataDictionary>
    <DataField name="a" optype="continuous" dataType="double">
      <Interval closure="closedClosed" leftMargin="5" rightMargin="9"/>
      <Value value="1"/>
      <Value value="2.5"/>
    </DataField>
    <DataField name="b" optype="categorical" dataType="double">
      <Value value="1"/>
      <Value value="2"/>
      <Value value="3"/>
    </DataField>
    <DataField name="t" optype="continuous" dataType="double"/>
  </DataDictionary>
  <RegressionModel functionName="regression">
    <MiningSchema>
      <MiningField name="a"/>
      <MiningField name="b" invalidValueTreatment="asMissing"/>
      <MiningField name="t" usageType="target"/>
    </MiningSchema>
    <RegressionTable intercept="0">
      <NumericPredictor name="a" coefficient="1"/>
      <CategoricalPredictor name="b" value="1" coefficient="10"/>
      <CategoricalPredictor name="b" value="2.0" coefficient="20"/>
    </RegressionTable>
  </RegressionModel>
</PMML>
''')
# Targets
for name, cast in (('round', 'round'), ('ceiling', 'ceiling'), ('floor', 'floor')):
  save('target_' + name, NS + f'''  <DataDictionary>
    <DataField name="x" optype="continuous" dataType="double"/>
    <DataField name="t" optype="continuous" dataType="integer"/>
  </DataDictionary>
  <RegressionModel functionName="regression">
    <MiningSchema>
      <MiningField name="x"/>
      <MiningField name="t" usageType="target"/>
    </MiningSchema>
    <Targets>
      <Target field="t" castInteger="{cast}" rescaleFactor="-1.5" rescaleConstant="0.2" max="8">
        <TargetValue defaultValue="42"/>
      </Target>
    </Targets>
    <RegressionTable intercept="0.3">
      <NumericPredictor name="x" coefficient="1.1"/>
    </RegressionTable>
  </RegressionModel>
</PMML>
''')
save('target_prior', NS + '''  <DataDictionary>
    <DataField name="x" optype="continuous" dataType="double"/>
    <DataField name="t" optype="categorical" dataType="string">
      <Value value="no"/>
      <Value value="yes" displayValue="Yes!"/>
    </DataField>
  </DataDictionary>
  <RegressionModel functionName="classification" normalizationMethod="logit">
    <MiningSchema>
      <MiningField name="x"/>
      <MiningField name="t" usageType="target"/>
    </MiningSchema>
    <Output>
      <OutputField name="shown" feature="predictedDisplayValue" dataType="string" optype="categorical"/>
      <OutputField name="yes" feature="probability" value="yes" dataType="double" optype="continuous"/>
    </Output>
    <Targets>
      <Target field="t">
        <TargetValue value="no" displayValue="No." priorProbability="0.3"/>
        <TargetValue value="yes" displayValue="Yes." priorProbability="0.7"/>
      </Target>
    </Targets>
    <RegressionTable intercept="-2" targetCategory="yes">
      <NumericPredictor name="x" coefficient="0.4"/>
    </RegressionTable>
    <RegressionTable intercept="0" targetCategory="no"/>
  </RegressionModel>
</PMML>
''')
