"""Beam's handler of ONNX models on the job service: Beam 2.77 skips its own tests of it.

Run by run.py, in the suite `inference`, where onnx and onnxruntime are installed.
"""
import tempfile
import unittest

import apache_beam as beam
import numpy as np
import onnx
from apache_beam.ml.inference.base import KeyedModelHandler
from apache_beam.ml.inference.base import RunInference
from apache_beam.ml.inference.onnx_inference import OnnxModelHandlerNumpy
from apache_beam.testing import util
from apache_beam.testing.test_pipeline import TestPipeline


def save(path):
  """A model that gives 2x + 5."""
  values = [onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, [1, 1], [value])
            for name, value in (('a', 2), ('b', 5))]
  graph = onnx.helper.make_graph(
      [onnx.helper.make_node('MatMul', ['x', 'a'], ['ax']), onnx.helper.make_node('Add', ['ax', 'b'], ['y'])], 'linear',
      [onnx.helper.make_tensor_value_info('x', onnx.TensorProto.FLOAT, ['n', 1])],
      [onnx.helper.make_tensor_value_info('y', onnx.TensorProto.FLOAT, ['n', 1])], values)
  onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 13)], ir_version=8), path)


class OnnxTest(unittest.TestCase):
  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.path = folder.name + '/model.onnx'
    save(self.path)

  def test_batches(self):
    with TestPipeline() as p:
      handler = OnnxModelHandlerNumpy(self.path, min_batch_size=2, max_batch_size=8)
      results = (
          p | beam.Create(range(50)) | beam.Map(lambda n: np.array([n], dtype=np.float32)) | RunInference(handler)
          | beam.Map(lambda result: (float(result.example[0]), float(result.inference[0]))))
      util.assert_that(results, util.equal_to([(float(n), 2.0 * n + 5) for n in range(50)]))

  def test_keys(self):
    with TestPipeline() as p:
      handler = KeyedModelHandler(OnnxModelHandlerNumpy(self.path))
      results = (
          p | beam.Create(range(10)) | beam.Map(lambda n: ('k%d' % n, np.array([n], dtype=np.float32)))
          | RunInference(handler) | beam.Map(lambda pair: (pair[0], float(pair[1].inference[0]))))
      util.assert_that(results, util.equal_to([('k%d' % n, 2.0 * n + 5) for n in range(10)]))

  def test_a_bad_row_is_apart(self):
    with TestPipeline() as p:
      handler = OnnxModelHandlerNumpy(self.path, max_batch_size=1)
      good, bad = (
          p | beam.Create([[1.0], [2.0, 3.0]]) | beam.Map(lambda row: np.array(row, dtype=np.float32))
          | RunInference(handler).with_exception_handling())
      util.assert_that(good | beam.Map(lambda result: float(result.inference[0])), util.equal_to([7.0]), label='good')
      lengths = bad.failed_inferences | beam.Map(lambda failed: [len(row) for row in failed[0]])
      util.assert_that(lengths, util.equal_to([[2]]), label='bad')
