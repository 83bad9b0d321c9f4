//! Operators for tract: those of scikit-learn's and LightGBM's models (ONNX's domain `ai.onnx.ml`), of which it has few, and newer ones
//! of networks.

mod activations;
mod columns;
mod encoders;
mod linear;
mod scores;
mod trees;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// What the operators are named, and how their nodes are read.
pub fn register(operators: &mut OnnxOpRegister) {
    macro_rules! register {
        ($($name:literal => $read:path),*) => {
            $(operators.insert($name, |_: &ParsingContext, node: &NodeProto| {
                let rules = Rules(Arc::new($read(node)?));
                Ok((expand(rules), Vec::new()))
            });)*
        };
    }
    register!(
        "Binarizer" => columns::Binarizer::read,
        "Gelu" => activations::Gelu::read,
        "FeatureVectorizer" => columns::FeatureVectorizer::read,
        "Imputer" => columns::Imputer::read,
        "LabelEncoder" => encoders::LabelEncoder::read,
        "LinearClassifier" => linear::Classifier::read,
        "LinearRegressor" => linear::Regressor::read,
        "Normalizer" => columns::Normalizer::read,
        "OneHotEncoder" => encoders::OneHotEncoder::read,
        "Scaler" => columns::Scaler::read,
        "TreeEnsembleClassifier" => trees::Classifier::read,
        "TreeEnsembleRegressor" => trees::Regressor::read
    );
}

/// The type and the shape of a tensor.
type Fact = (DatumType, TVec<TDim>);

/// An operator with its attributes.
trait Kernel: fmt::Debug + Send + Sync + 'static {
    /// The operator's name.
    fn name(&self) -> &'static str;

    /// What its outputs are, for what its inputs are.
    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>>;

    /// How many outputs it has.
    fn outputs(&self) -> usize {
        1
    }

    /// Its outputs.
    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>>;
}

/// The operator where types and shapes are still to be found.
#[derive(Debug, Clone)]
struct Rules(Arc<dyn Kernel>);

impl Expansion for Rules {
    fn name(&self) -> StaticName {
        self.0.name().into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.0.outputs())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        s.given_all(inputs.iter().map(|input| &input.datum_type), move |s, types| {
            s.given_all(inputs.iter().map(|input| &input.shape), move |s, shapes| {
                let facts: Vec<Fact> = types.iter().copied().zip(shapes).collect();
                for ((datatype, shape), output) in self.0.facts(&facts)?.into_iter().zip(outputs) {
                    s.equals(&output.datum_type, datatype)?;
                    s.equals(&output.shape, shape)?;
                }
                Ok(())
            })
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, Operator(self.0.clone()), inputs)
    }
}

/// The operator in a graph that is run.
#[derive(Debug, Clone)]
struct Operator(Arc<dyn Kernel>);

impl Op for Operator {
    fn name(&self) -> StaticName {
        self.0.name().into()
    }

    op_as_typed_op!();
}

impl EvalOp for Operator {
    fn is_stateless(&self) -> bool {
        true
    }

    fn eval(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let outputs = self.0.eval(&inputs)?;
        Ok(outputs.into_iter().map(Tensor::into_tvalue).collect())
    }
}

impl TypedOp for Operator {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let inputs: Vec<Fact> = inputs
            .iter()
            .map(|fact| (fact.datum_type, fact.shape.to_tvec()))
            .collect();
        let facts = self.0.facts(&inputs)?.into_iter();
        Ok(facts
            .map(|(datatype, shape)| TypedFact::dt_shape(datatype, shape))
            .collect())
    }

    as_op!();
}

/// The only input's type and shape.
fn only(inputs: &[Fact]) -> TractResult<&Fact> {
    match inputs {
        [input] => Ok(input),
        _ => bail!("it has {} inputs, not one", inputs.len()),
    }
}

/// The dimensions of the only input, which is rows of columns or one such row.
fn rows_and_columns(inputs: &[Fact]) -> TractResult<(TDim, TDim)> {
    match &only(inputs)?.1[..] {
        [columns] => Ok((1.to_dim(), columns.clone())),
        [rows, columns] => Ok((rows.clone(), columns.clone())),
        other => bail!("its input has {} dimensions, not two", other.len()),
    }
}

/// Rows of numbers.
struct Matrix<'a> {
    values: Cow<'a, Tensor>,
    rows: usize,
    columns: usize,
}

impl<'a> Matrix<'a> {
    /// The first input as numbers of single precision.
    fn of(inputs: &'a [TValue]) -> TractResult<Matrix<'a>> {
        let Some(input) = inputs.first() else {
            bail!("it has no input")
        };
        let (rows, columns) = match input.shape() {
            [columns] => (1, *columns),
            [rows, columns] => (*rows, *columns),
            other => bail!("its input has {} dimensions, not two", other.len()),
        };
        Ok(Matrix {
            values: input.cast_to::<f32>()?,
            rows,
            columns,
        })
    }

    /// All of them, row by row.
    fn all(&self) -> TractResult<&[f32]> {
        self.values.as_slice::<f32>()
    }

    /// The rows. None where there are no columns.
    fn rows(&self) -> TractResult<impl Iterator<Item = &[f32]>> {
        Ok(self.all()?.chunks_exact(self.columns.max(1)))
    }
}

/// A tensor of a list.
fn tensor<T: Datum>(shape: &[usize], list: Vec<T>) -> TractResult<Tensor> {
    Ok(tract_ndarray::ArrayD::from_shape_vec(shape, list)?.into_tensor())
}

/// An attribute that has a value for each column, or one for all.
fn per_column(node: &NodeProto, attribute: &str) -> TractResult<Vec<f32>> {
    Ok(node.get_attr_opt_vec(attribute)?.unwrap_or_default())
}

/// The value for a column.
fn of_column(values: &[f32], column: usize) -> Option<f32> {
    match values {
        [one] => Some(*one),
        all => all.get(column).copied(),
    }
}

/// Whether there is a value for each column, or one for all.
fn check_columns(what: &str, values: usize, columns: &TDim) -> TractResult<()> {
    match columns.to_usize() {
        Ok(columns) if values != 1 && values != columns => {
            bail!("it has {values} {what} for {columns} columns")
        }
        _ => Ok(()),
    }
}

/// The labels of classes.
#[derive(Debug)]
enum Labels {
    Numbers(Vec<i64>),
    Texts(Vec<String>),
}

impl Labels {
    fn read(node: &NodeProto, numbers: &str) -> TractResult<Labels> {
        let numbers: Option<Vec<i64>> = node.get_attr_opt_vec(numbers)?;
        let texts: Option<Vec<String>> = node.get_attr_opt_vec("classlabels_strings")?;
        match (numbers, texts) {
            (Some(numbers), None) if !numbers.is_empty() => Ok(Labels::Numbers(numbers)),
            (None, Some(texts)) if !texts.is_empty() => Ok(Labels::Texts(texts)),
            _ => bail!("its classes have neither numbers nor texts, or both"),
        }
    }

    fn len(&self) -> usize {
        match self {
            Labels::Numbers(list) => list.len(),
            Labels::Texts(list) => list.len(),
        }
    }

    fn datatype(&self) -> DatumType {
        match self {
            Labels::Numbers(_) => i64::datum_type(),
            Labels::Texts(_) => String::datum_type(),
        }
    }

    /// The labels of classes by their places, which must be in the list.
    fn of(&self, classes: &[usize]) -> TractResult<Tensor> {
        let all = [classes.len()];
        match self {
            Labels::Numbers(list) => tensor(&all, classes.iter().map(|class| list[*class]).collect()),
            Labels::Texts(list) => tensor(&all, classes.iter().map(|class| list[*class].clone()).collect()),
        }
    }
}
