//! `NeuralNetwork`.

use std::collections::HashMap;
use std::sync::Arc;

use super::links::{simplemax, softmax};
use super::{Context, Function, Precision, check};
use crate::compiler::{Compiler, derived_kind};
use crate::error::{EvaluateError, ParseError};
use crate::expression::Norm;
use crate::frame::{Frame, Slot};
use crate::outcome::{Outcome, best, class};
use crate::value::Value;
use crate::xml::Element;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activation {
    Threshold,
    Logistic,
    Tanh,
    Identity,
    Exponential,
    Reciprocal,
    Square,
    Gauss,
    Sine,
    Cosine,
    Elliott,
    Arctan,
    Rectifier,
    RadialBasis,
}

const ACTIVATIONS: &[(&str, Activation)] = &[
    ("threshold", Activation::Threshold),
    ("logistic", Activation::Logistic),
    ("tanh", Activation::Tanh),
    ("identity", Activation::Identity),
    ("exponential", Activation::Exponential),
    ("reciprocal", Activation::Reciprocal),
    ("square", Activation::Square),
    ("Gauss", Activation::Gauss),
    ("sine", Activation::Sine),
    ("cosine", Activation::Cosine),
    ("Elliott", Activation::Elliott),
    ("arctan", Activation::Arctan),
    ("rectifier", Activation::Rectifier),
    ("radialBasis", Activation::RadialBasis),
];

impl Activation {
    fn of(self, x: f64, threshold: f64) -> f64 {
        match self {
            Activation::Threshold => f64::from(u8::from(x > threshold)),
            Activation::Logistic => 1.0 / (1.0 + (-x).exp()),
            Activation::Tanh => x.tanh(),
            Activation::Identity | Activation::RadialBasis => x,
            Activation::Exponential => x.exp(),
            Activation::Reciprocal => 1.0 / x,
            Activation::Square => x * x,
            Activation::Gauss => (-(x * x)).exp(),
            Activation::Sine => x.sin(),
            Activation::Cosine => x.cos(),
            Activation::Elliott => x / (1.0 + x.abs()),
            Activation::Arctan => 2.0 * x.atan() / std::f64::consts::PI,
            Activation::Rectifier => x.max(0.0),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Normalization {
    None,
    Softmax,
    Simplemax,
}

const NORMALIZATIONS: &[(&str, Normalization)] = &[
    ("none", Normalization::None),
    ("softmax", Normalization::Softmax),
    ("simplemax", Normalization::Simplemax),
];

#[derive(Debug)]
struct Layer {
    activation: Activation,
    threshold: f64,
    normalization: Normalization,
    neurons: Vec<Neuron>,
}

#[derive(Debug)]
struct Neuron {
    bias: f64,
    width: f64,
    altitude: f64,
    /// From which inputs and neurons, with weights.
    from: Vec<(usize, f64)>,
}

/// What a neuron says of the target.
#[derive(Debug)]
enum Meaning {
    Number(Option<Norm>),
    /// The place of a class.
    Class(usize),
}

/// A network.
#[derive(Debug)]
pub struct Network {
    inputs: Vec<Slot>,
    layers: Vec<Layer>,
    outputs: Vec<(usize, Meaning)>,
    /// By class: the id of its neuron.
    ids: Vec<Arc<str>>,
    classes: Vec<Value>,
    precision: Precision,
}

const LAYER: [&str; 5] = [
    "activationFunction",
    "normalizationMethod",
    "threshold",
    "width",
    "altitude",
];

/// Compiles a `NeuralNetwork`; its classes are those of its outputs.
pub fn parse<'d>(
    compiler: &mut Compiler<'d>,
    element: Element<'d>,
    context: &Context,
) -> Result<(Network, Vec<Value>), ParseError> {
    let attributes = [&LAYER[..], &["numberOfLayers"]].concat();
    check(
        element,
        &attributes,
        &["NeuralInputs", "NeuralLayer", "NeuralOutputs"],
    )?;
    element.need("activationFunction")?;
    let mut network = Network {
        inputs: Vec::new(),
        layers: Vec::new(),
        outputs: Vec::new(),
        ids: Vec::new(),
        classes: Vec::new(),
        precision: context.precision,
    };
    let mut neurons = HashMap::new();
    let inputs = element.need_child("NeuralInputs")?;
    inputs.check(&["numberOfInputs"], &["NeuralInput"])?;
    for input in inputs.all("NeuralInput") {
        input.check(&["id"], &["DerivedField"])?;
        let slot = compiler.derived(context.scope, input.need_child("DerivedField")?)?;
        network.inputs.push(slot);
        add(&mut neurons, input)?;
    }
    for layer in element.all("NeuralLayer") {
        let layer = self::layer(element, layer, &mut neurons, context.precision)?;
        network.layers.push(layer);
    }
    let outputs = element.need_child("NeuralOutputs")?;
    outputs.check(&["numberOfOutputs"], &["NeuralOutput"])?;
    for output in outputs.all("NeuralOutput") {
        output.check(&["outputNeuron"], &["DerivedField"])?;
        let neuron = neuron(&neurons, output, "outputNeuron")?;
        let meaning = network.meaning(output.need_child("DerivedField")?, context)?;
        if let Meaning::Class(place) = meaning {
            network.ids.resize(network.classes.len(), "".into());
            network.ids[place] = output.need("outputNeuron")?.into();
        }
        network.outputs.push((neuron, meaning));
    }
    if network.outputs.is_empty() {
        return Err(outputs.missing("element `NeuralOutput`"));
    }
    let classes = network.classes.clone();
    Ok((network, classes))
}

/// Numbers a neuron by its id.
fn add<'d>(neurons: &mut HashMap<&'d str, usize>, element: Element<'d>) -> Result<(), ParseError> {
    let number = neurons.len();
    let id = element.need("id")?;
    match neurons.insert(id, number) {
        None => Ok(()),
        Some(_) => Err(element.value("id", id, "an id of its own")),
    }
}

fn neuron(
    neurons: &HashMap<&str, usize>,
    element: Element<'_>,
    attribute: &str,
) -> Result<usize, ParseError> {
    let id = element.need(attribute)?;
    let known = neurons.get(id).copied();
    known.ok_or_else(|| element.value(attribute, id, "the id of an input or of a neuron before"))
}

fn layer<'d>(
    model: Element<'d>,
    element: Element<'d>,
    neurons: &mut HashMap<&'d str, usize>,
    precision: Precision,
) -> Result<Layer, ParseError> {
    let attributes = [&LAYER[..], &["numberOfNeurons"]].concat();
    element.check(&attributes, &["Neuron"])?;
    let number = |name| match element.number_of(name)? {
        Some(number) => Ok::<_, ParseError>(Some(number)),
        None => model.number_of(name),
    };
    let activation = match element.one_of("activationFunction", ACTIVATIONS)? {
        Some(activation) => Some(activation),
        None => model.one_of("activationFunction", ACTIVATIONS)?,
    };
    let normalization = match element.one_of("normalizationMethod", NORMALIZATIONS)? {
        Some(normalization) => Some(normalization),
        None => model.one_of("normalizationMethod", NORMALIZATIONS)?,
    };
    let activation = activation.unwrap_or(Activation::Identity);
    let (width, altitude) = (number("width")?, number("altitude")?.unwrap_or(1.0));
    let mut layer = Layer {
        activation,
        threshold: number("threshold")?.unwrap_or(0.0),
        normalization: normalization.unwrap_or(Normalization::None),
        neurons: Vec::new(),
    };
    for element in element.all("Neuron") {
        element.check(&["id", "bias", "width", "altitude"], &["Con"])?;
        let width = element.number_of("width")?.or(width);
        if activation == Activation::RadialBasis && width.is_none() {
            return Err(element.missing("attribute `width`"));
        }
        let mut from = Vec::new();
        for connection in element.all("Con") {
            connection.check(&["from", "weight"], &[])?;
            let weight = precision.round(connection.need_number("weight")?);
            from.push((neuron(neurons, connection, "from")?, weight));
        }
        layer.neurons.push(Neuron {
            bias: precision.round(element.number_of("bias")?.unwrap_or(0.0)),
            width: width.unwrap_or(1.0),
            altitude: element.number_of("altitude")?.unwrap_or(altitude),
            from,
        });
        add(neurons, element)?;
    }
    if layer.neurons.is_empty() {
        return Err(element.missing("element `Neuron`"));
    }
    Ok(layer)
}

impl Network {
    fn meaning(&mut self, element: Element<'_>, context: &Context) -> Result<Meaning, ParseError> {
        let (inside, _) = derived_kind(element)?;
        match (inside.name(), context.function) {
            ("FieldRef", Function::Regression) => Ok(Meaning::Number(None)),
            ("NormContinuous", Function::Regression) => Ok(Meaning::Number(Some(Norm::parse(inside)?))),
            ("NormDiscrete", Function::Classification) => {
                let value = context.class(inside, "value", inside.need("value")?)?;
                Ok(Meaning::Class(class(&mut self.classes, value)))
            }
            _ => Err(inside.unknown(element)),
        }
    }

    pub fn run(&self, frame: &mut Frame<'_>) -> Result<Outcome, EvaluateError> {
        let mut values = Vec::with_capacity(self.inputs.len());
        for slot in &self.inputs {
            match frame.number(*slot)? {
                Some(number) => values.push(self.precision.round(number)),
                None => return Ok(Outcome::default()),
            }
        }
        for layer in &self.layers {
            let first = values.len();
            for neuron in &layer.neurons {
                values.push(self.neuron(layer, neuron, &values));
            }
            match layer.normalization {
                Normalization::None => {}
                Normalization::Softmax => softmax(&mut values[first..], self.precision),
                Normalization::Simplemax => simplemax(&mut values[first..], self.precision),
            }
        }
        let mut probabilities = vec![0.0; self.classes.len()];
        for (neuron, meaning) in &self.outputs {
            let value = values[*neuron];
            match meaning {
                Meaning::Number(norm) => {
                    let number = norm.as_ref().map_or(value, |norm| norm.invert(value));
                    return Ok(Outcome::number(Some(number)));
                }
                Meaning::Class(place) => probabilities[*place] = value,
            }
        }
        let mut outcome = Outcome::most_probable(&self.classes, probabilities);
        outcome.entity = best(&outcome.probabilities).map(|winner| Arc::clone(&self.ids[winner]));
        Ok(outcome)
    }

    fn neuron(&self, layer: &Layer, neuron: &Neuron, values: &[f64]) -> f64 {
        let round = |number| self.precision.round(number);
        if layer.activation == Activation::RadialBasis {
            let square = |(from, weight): &(usize, f64)| (values[*from] - weight) * (values[*from] - weight);
            let distance: f64 = neuron.from.iter().map(square).sum();
            let z = distance / (2.0 * neuron.width * neuron.width);
            return round((neuron.from.len() as f64 * neuron.altitude.ln() - z).exp());
        }
        let parts = neuron
            .from
            .iter()
            .map(|(from, weight)| round(values[*from] * weight));
        let sum = parts.fold(0.0, |sum, part| round(sum + part));
        round(layer.activation.of(round(sum + neuron.bias), layer.threshold))
    }
}
