//! `GeneralRegressionModel`.

use std::collections::HashMap;

use super::links::{Link, softmax};
use super::{Context, Function, Precision, check};
use crate::compiler::Compiler;
use crate::error::{EvaluateError, ParseError};
use crate::frame::{Frame, Slot};
use crate::outcome::{Outcome, class};
use crate::value::Value;
use crate::xml::Element;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The linear predictor itself.
    Linear,
    GeneralizedLinear,
    Multinomial,
    Ordinal,
}

const KINDS: &[(&str, Kind)] = &[
    ("regression", Kind::Linear),
    ("generalLinear", Kind::Linear),
    ("generalizedLinear", Kind::GeneralizedLinear),
    ("multinomialLogistic", Kind::Multinomial),
    ("ordinalMultinomial", Kind::Ordinal),
];

/// What a predictor adds to a parameter's product.
#[derive(Debug, Clone)]
enum Cell {
    /// 1 for this value, else 0.
    Factor(Slot, Value),
    /// A power of the number.
    Covariate(Slot, f64),
}

/// A number of the row, or of the document.
#[derive(Debug)]
enum Given {
    Field(Slot),
    Number(f64),
}

/// A general regression.
#[derive(Debug)]
pub struct General {
    kind: Kind,
    link: Link,
    /// By parameter.
    cells: Vec<Vec<Cell>>,
    /// By class, or one for a number: parameters with their coefficients.
    sums: Vec<Vec<(usize, f64)>>,
    /// The class whose predictor is 0, or that has what the others leave.
    reference: usize,
    offset: Given,
    trials: Given,
    classes: Vec<Value>,
}

const ATTRIBUTES: &[&str] = &[
    "targetVariableName",
    "modelType",
    "targetReferenceCategory",
    "cumulativeLink",
    "linkFunction",
    "linkParameter",
    "trialsVariable",
    "trialsValue",
    "distribution",
    "distParameter",
    "offsetVariable",
    "offsetValue",
    "modelDF",
];

const CHILDREN: &[&str] = &[
    "ParameterList",
    "FactorList",
    "CovariateList",
    "PPMatrix",
    "PCovMatrix",
    "ParamMatrix",
];

/// Compiles a `GeneralRegressionModel`; its classes are those that its parameters and its target tell of.
pub fn parse<'d>(
    compiler: &mut Compiler<'d>,
    element: Element<'d>,
    context: &Context,
) -> Result<(General, Vec<Value>), ParseError> {
    check(element, ATTRIBUTES, CHILDREN)?;
    element.need("modelType")?;
    let kind = element.one_of("modelType", KINDS)?.unwrap_or(Kind::Linear);
    let many = matches!(kind, Kind::Multinomial | Kind::Ordinal);
    let fits = match context.function {
        Function::Regression => !many,
        Function::Classification => kind != Kind::Linear,
    };
    if !fits {
        let expected = format!("a type of a {}", element.need("functionName")?);
        return Err(element.value("modelType", element.need("modelType")?, expected));
    }
    let (names, cells) = parameters(compiler, element, context)?;
    let mut model = General {
        kind,
        link: link(element, kind)?,
        cells,
        sums: Vec::new(),
        reference: 0,
        offset: given(compiler, element, context, "offset", 0.0)?,
        trials: given(compiler, element, context, "trials", 1.0)?,
        classes: Vec::new(),
    };
    model.coefficients(element, context, &names)?;
    let classes = model.classes.clone();
    Ok((model, classes))
}

/// The numbers of the parameters by their names, and their cells.
type Parameters<'d> = (HashMap<&'d str, usize>, Vec<Vec<Cell>>);

fn parameters<'d>(
    compiler: &mut Compiler<'d>,
    element: Element<'d>,
    context: &Context,
) -> Result<Parameters<'d>, ParseError> {
    let mut names = HashMap::new();
    let list = element.need_child("ParameterList")?.check(&[], &["Parameter"])?;
    for (number, parameter) in list.all("Parameter").enumerate() {
        parameter.check(&["name", "label", "referencePoint"], &[])?;
        names.insert(parameter.need("name")?, number);
    }
    let mut cells = vec![Vec::new(); list.all("Parameter").count()];
    let mut factors = HashMap::new();
    for (name, is_factor) in [("FactorList", true), ("CovariateList", false)] {
        let Some(list) = element.child(name) else { continue };
        list.check(&[], &["Predictor"])?;
        for predictor in list.all("Predictor") {
            predictor.check(&["name"], &[])?;
            factors.insert(predictor.need("name")?, is_factor);
        }
    }
    let matrix = element.need_child("PPMatrix")?.check(&[], &["PPCell"])?;
    for cell in matrix.all("PPCell") {
        cell.check(&["value", "predictorName", "parameterName"], &[])?;
        let predictor = cell.need("predictorName")?;
        let Some(is_factor) = factors.get(predictor) else {
            return Err(cell.value(
                "predictorName",
                predictor,
                "a name in FactorList or CovariateList",
            ));
        };
        let slot = compiler.field(context.scope, predictor, cell)?;
        let made = match is_factor {
            true => {
                let data = compiler.kind(slot).data;
                Cell::Factor(slot, data.read(cell, "value", cell.need("value")?)?)
            }
            false => Cell::Covariate(slot, cell.need_number("value")?),
        };
        cells[parameter(&names, cell)?].push(made);
    }
    Ok((names, cells))
}

fn parameter(names: &HashMap<&str, usize>, cell: Element<'_>) -> Result<usize, ParseError> {
    let name = cell.need("parameterName")?;
    let known = names.get(name).copied();
    known.ok_or_else(|| cell.value("parameterName", name, "a name in ParameterList"))
}

fn link(element: Element<'_>, kind: Kind) -> Result<Link, ParseError> {
    let parameter = element.number_of("linkParameter")?;
    let links = [
        ("identity", Link::Identity),
        ("log", Link::Log),
        ("logc", Link::Logc),
        ("logit", Link::Logit),
        ("probit", Link::Probit),
        ("cloglog", Link::Cloglog),
        ("loglog", Link::Loglog),
        (
            "negbin",
            Link::Negbin(element.number_of("distParameter")?.or(parameter).unwrap_or(1.0)),
        ),
        ("oddspower", Link::Oddspower(parameter.unwrap_or(1.0))),
        ("power", Link::Power(parameter.unwrap_or(1.0))),
    ];
    let cumulative = [
        ("logit", Link::Logit),
        ("probit", Link::Probit),
        ("cloglog", Link::Cloglog),
        ("loglog", Link::Loglog),
        ("cauchit", Link::Cauchit),
    ];
    let (name, found) = match kind {
        Kind::GeneralizedLinear => ("linkFunction", element.one_of("linkFunction", &links)?),
        Kind::Ordinal => ("cumulativeLink", element.one_of("cumulativeLink", &cumulative)?),
        Kind::Linear | Kind::Multinomial => return Ok(Link::Identity),
    };
    found.ok_or_else(|| element.missing(format!("attribute `{name}`")))
}

/// `offset` or `trials`: a field, a number or what is usual.
fn given<'d>(
    compiler: &mut Compiler<'d>,
    element: Element<'d>,
    context: &Context,
    what: &str,
    usual: f64,
) -> Result<Given, ParseError> {
    // PMML has offsets and trials for the other types.
    if element
        .get("modelType")
        .is_some_and(|kind| kind == "regression" || kind == "generalLinear")
    {
        return Ok(Given::Number(usual));
    }
    if let Some(name) = element.get(&format!("{what}Variable")) {
        return Ok(Given::Field(compiler.field(context.scope, name, element)?));
    }
    let number = element.number_of(&format!("{what}Value"))?;
    Ok(Given::Number(number.unwrap_or(usual)))
}

impl Given {
    fn get(&self, frame: &mut Frame<'_>) -> Result<Option<f64>, EvaluateError> {
        match self {
            Given::Field(slot) => frame.number(*slot),
            Given::Number(number) => Ok(Some(*number)),
        }
    }
}

impl General {
    /// Reads the coefficients: those of no class are of all.
    fn coefficients<'d>(
        &mut self,
        element: Element<'d>,
        context: &Context,
        names: &HashMap<&'d str, usize>,
    ) -> Result<(), ParseError> {
        let matrix = element.need_child("ParamMatrix")?.check(&[], &["PCell"])?;
        let classification = context.function == Function::Classification;
        if classification {
            self.classes = context.values.to_vec();
        }
        let mut shared = Vec::new();
        let mut own: Vec<(usize, usize, f64)> = Vec::new();
        for cell in matrix.all("PCell") {
            cell.check(&["targetCategory", "parameterName", "beta", "df"], &[])?;
            let parameter = parameter(names, cell)?;
            let beta = cell.need_number("beta")?;
            match cell.get("targetCategory").filter(|_| classification) {
                None => shared.push((parameter, beta)),
                Some(text) => {
                    let value = context.class(cell, "targetCategory", text)?;
                    own.push((class(&mut self.classes, value), parameter, beta));
                }
            }
        }
        let reference = match element.get("targetReferenceCategory").filter(|_| classification) {
            None => None,
            Some(text) => {
                let value = context.class(element, "targetReferenceCategory", text)?;
                Some(class(&mut self.classes, value))
            }
        };
        if !classification {
            self.sums.push(shared);
            return Ok(());
        }
        if self.classes.len() < 2 {
            return Err(element.wrong("has fewer than two classes"));
        }
        let mut free = (0..self.classes.len()).filter(|class| own.iter().all(|(of, ..)| of != class));
        self.reference = match (self.kind, reference) {
            (Kind::Ordinal, _) => self.classes.len() - 1,
            (_, Some(reference)) => reference,
            // Without any class's own coefficients, those of all are the first one's.
            (_, None) if own.is_empty() => 1,
            (_, None) => free
                .next()
                .ok_or_else(|| element.missing("class without coefficients"))?,
        };
        self.sums = (0..self.classes.len())
            .map(|class| {
                let own = own.iter().filter(|(of, ..)| *of == class);
                let own = own.map(|(_, parameter, beta)| (*parameter, *beta));
                shared.iter().copied().chain(own).collect()
            })
            .collect();
        Ok(())
    }

    pub fn run(&self, frame: &mut Frame<'_>) -> Result<Outcome, EvaluateError> {
        let Some(offset) = self.offset.get(frame)? else {
            return Ok(Outcome::default());
        };
        let mut products = Vec::with_capacity(self.cells.len());
        for cells in &self.cells {
            match product(cells, frame)? {
                Some(product) => products.push(product),
                None => return Ok(Outcome::default()),
            }
        }
        let sum = |terms: &Vec<(usize, f64)>| {
            let terms = terms.iter().map(|(parameter, beta)| products[*parameter] * beta);
            terms.sum::<f64>() + offset
        };
        if self.classes.is_empty() {
            let Some(trials) = self.trials.get(frame)? else {
                return Ok(Outcome::default());
            };
            let number = match self.kind {
                Kind::GeneralizedLinear => self.link.invert(sum(&self.sums[0]), Precision::Double) * trials,
                _ => sum(&self.sums[0]),
            };
            return Ok(Outcome::number(Some(number)));
        }
        let mut shares: Vec<f64> = self.sums.iter().map(sum).collect();
        match self.kind {
            Kind::Multinomial => {
                shares[self.reference] = 0.0;
                softmax(&mut shares, Precision::Double);
            }
            Kind::Ordinal => {
                let mut before = 0.0;
                for (class, share) in shares.iter_mut().enumerate() {
                    let below = match class == self.reference {
                        true => 1.0,
                        false => self.link.invert(*share, Precision::Double),
                    };
                    *share = below - before;
                    before = below;
                }
            }
            Kind::Linear | Kind::GeneralizedLinear => {
                shares[self.reference] = 0.0;
                let mut left = 1.0;
                for (class, share) in shares.iter_mut().enumerate() {
                    if class != self.reference {
                        *share = self.link.invert(*share, Precision::Double);
                        left -= *share;
                    }
                }
                shares[self.reference] = left;
            }
        }
        Ok(Outcome::most_probable(&self.classes, shares))
    }
}

/// None when a value is missing.
fn product(cells: &[Cell], frame: &mut Frame<'_>) -> Result<Option<f64>, EvaluateError> {
    let mut product = 1.0;
    for cell in cells {
        product *= match cell {
            Cell::Factor(slot, value) => match frame.get(*slot)? {
                Value::Missing => return Ok(None),
                found => f64::from(u8::from(found.same(value))),
            },
            Cell::Covariate(slot, power) => match frame.number(*slot)? {
                None => return Ok(None),
                Some(number) if *power == 1.0 => number,
                Some(number) => number.powf(*power),
            },
        };
    }
    Ok(Some(product))
}
