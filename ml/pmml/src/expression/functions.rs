//! The functions that are built in.

use std::cmp::Ordering;

use super::Expression;
use crate::error::EvaluateError;
use crate::frame::Frame;
use crate::value::{DataType, Value};

/// What a call without a result gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    Error,
    Missing,
}

/// A call of a function.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    function: Function,
    name: &'static str,
    line: usize,
    invalid: Invalid,
}

/// Why a call has no result.
#[derive(Debug)]
pub enum Failure {
    /// The arguments are not of the function.
    Problem(&'static str),
    /// Another call, or a field.
    Inside(EvaluateError),
}

impl From<EvaluateError> for Failure {
    fn from(error: EvaluateError) -> Failure {
        Failure::Inside(error)
    }
}

#[derive(Debug, Clone, Copy)]
enum Function {
    /// Of two numbers.
    Arithmetic(Arithmetic),
    /// Of one number.
    Math(fn(f64) -> f64),
    /// Of two numbers.
    Math2(fn(f64, f64) -> f64),
    /// Of one number, which stays whole if it is.
    Round(fn(f64) -> f64),
    /// Of all numbers that are there.
    Aggregate(Aggregate),
    Threshold,
    IsMissing(bool),
    Equal(bool),
    Compare(fn(Ordering) -> bool),
    Logic(Logic),
    Not,
    /// Whether the first is among the others.
    Among(bool),
    If,
    Text(TextFunction),
    Normal(fn(f64, f64, f64) -> f64),
}

#[derive(Debug, Clone, Copy)]
enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Debug, Clone, Copy)]
enum Aggregate {
    Min,
    Max,
    Sum,
    Average,
    Median,
    Product,
}

#[derive(Debug, Clone, Copy)]
enum Logic {
    And,
    Or,
}

#[derive(Debug, Clone, Copy)]
enum TextFunction {
    Upper,
    Lower,
    Trim,
    Length,
    Substring,
    Concat,
}

/// The fewest and the most arguments of each.
const FUNCTIONS: &[(&str, Function, usize, usize)] = &[
    ("+", Function::Arithmetic(Arithmetic::Add), 2, 2),
    ("-", Function::Arithmetic(Arithmetic::Subtract), 2, 2),
    ("*", Function::Arithmetic(Arithmetic::Multiply), 2, 2),
    ("/", Function::Arithmetic(Arithmetic::Divide), 2, 2),
    ("modulo", Function::Arithmetic(Arithmetic::Modulo), 2, 2),
    ("min", Function::Aggregate(Aggregate::Min), 1, usize::MAX),
    ("max", Function::Aggregate(Aggregate::Max), 1, usize::MAX),
    ("sum", Function::Aggregate(Aggregate::Sum), 1, usize::MAX),
    ("avg", Function::Aggregate(Aggregate::Average), 1, usize::MAX),
    ("median", Function::Aggregate(Aggregate::Median), 1, usize::MAX),
    ("product", Function::Aggregate(Aggregate::Product), 1, usize::MAX),
    ("log10", Function::Math(f64::log10), 1, 1),
    ("ln", Function::Math(f64::ln), 1, 1),
    ("ln1p", Function::Math(f64::ln_1p), 1, 1),
    ("sqrt", Function::Math(f64::sqrt), 1, 1),
    ("abs", Function::Round(f64::abs), 1, 1),
    ("exp", Function::Math(f64::exp), 1, 1),
    ("expm1", Function::Math(f64::exp_m1), 1, 1),
    ("pow", Function::Math2(f64::powf), 2, 2),
    ("hypot", Function::Math2(f64::hypot), 2, 2),
    ("atan2", Function::Math2(f64::atan2), 2, 2),
    ("threshold", Function::Threshold, 2, 2),
    ("floor", Function::Round(f64::floor), 1, 1),
    ("ceil", Function::Round(f64::ceil), 1, 1),
    ("round", Function::Round(round), 1, 1),
    ("rint", Function::Round(f64::round_ties_even), 1, 1),
    ("sin", Function::Math(f64::sin), 1, 1),
    ("cos", Function::Math(f64::cos), 1, 1),
    ("tan", Function::Math(f64::tan), 1, 1),
    ("asin", Function::Math(f64::asin), 1, 1),
    ("acos", Function::Math(f64::acos), 1, 1),
    ("atan", Function::Math(f64::atan), 1, 1),
    ("sinh", Function::Math(f64::sinh), 1, 1),
    ("cosh", Function::Math(f64::cosh), 1, 1),
    ("tanh", Function::Math(f64::tanh), 1, 1),
    ("erf", Function::Math(libm::erf), 1, 1),
    ("stdNormalCDF", Function::Math(standard_normal_cdf), 1, 1),
    ("stdNormalPDF", Function::Math(standard_normal_pdf), 1, 1),
    ("normalCDF", Function::Normal(normal_cdf), 3, 3),
    ("normalPDF", Function::Normal(normal_pdf), 3, 3),
    ("isMissing", Function::IsMissing(true), 1, 1),
    ("isNotMissing", Function::IsMissing(false), 1, 1),
    // A row with an invalid value does not come so far.
    ("isValid", Function::IsMissing(false), 1, 1),
    ("isNotValid", Function::IsMissing(true), 1, 1),
    ("equal", Function::Equal(true), 2, 2),
    ("notEqual", Function::Equal(false), 2, 2),
    ("lessThan", Function::Compare(Ordering::is_lt), 2, 2),
    ("lessOrEqual", Function::Compare(Ordering::is_le), 2, 2),
    ("greaterThan", Function::Compare(Ordering::is_gt), 2, 2),
    ("greaterOrEqual", Function::Compare(Ordering::is_ge), 2, 2),
    ("and", Function::Logic(Logic::And), 2, usize::MAX),
    ("or", Function::Logic(Logic::Or), 2, usize::MAX),
    ("not", Function::Not, 1, 1),
    ("isIn", Function::Among(true), 2, usize::MAX),
    ("isNotIn", Function::Among(false), 2, usize::MAX),
    ("if", Function::If, 2, 3),
    ("uppercase", Function::Text(TextFunction::Upper), 1, 1),
    ("lowercase", Function::Text(TextFunction::Lower), 1, 1),
    ("trimBlanks", Function::Text(TextFunction::Trim), 1, 1),
    ("stringLength", Function::Text(TextFunction::Length), 1, 1),
    ("substring", Function::Text(TextFunction::Substring), 3, 3),
    ("concat", Function::Text(TextFunction::Concat), 2, usize::MAX),
];

/// Halves go up.
fn round(number: f64) -> f64 {
    (number + 0.5).floor()
}

/// The share of a normal distribution below a number.
pub fn standard_normal_cdf(number: f64) -> f64 {
    0.5 * libm::erfc(-number / std::f64::consts::SQRT_2)
}

fn standard_normal_pdf(number: f64) -> f64 {
    (-0.5 * number * number).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

fn normal_cdf(number: f64, mean: f64, deviation: f64) -> f64 {
    standard_normal_cdf((number - mean) / deviation)
}

fn normal_pdf(number: f64, mean: f64, deviation: f64) -> f64 {
    standard_normal_pdf((number - mean) / deviation) / deviation
}

impl Call {
    /// A call of a function that is built in.
    pub fn new(name: &str, line: usize, invalid: Invalid) -> Option<Call> {
        let found = FUNCTIONS.iter().find(|(known, ..)| *known == name);
        found.map(|(name, function, ..)| Call {
            function: *function,
            name,
            line,
            invalid,
        })
    }

    /// Whether the function takes so many arguments.
    pub fn takes(&self, count: usize) -> bool {
        let mut known = FUNCTIONS.iter().filter(|(name, ..)| *name == self.name);
        known.any(|(_, _, fewest, most)| (*fewest..=*most).contains(&count))
    }

    /// What a call gives that failed.
    pub fn failed(&self, failure: Failure, otherwise: &Value) -> Result<Value, EvaluateError> {
        match failure {
            Failure::Inside(error) => Err(error),
            Failure::Problem(_) if self.invalid == Invalid::Missing => Ok(otherwise.clone()),
            Failure::Problem(problem) => Err(EvaluateError::Function {
                line: self.line,
                function: self.name.to_owned(),
                problem: problem.to_owned(),
            }),
        }
    }

    /// The result; none when an argument is missing that must be there.
    pub fn evaluate(
        &self,
        arguments: &[Expression],
        frame: &mut Frame<'_>,
    ) -> Result<Option<Value>, Failure> {
        match self.function {
            Function::If => return choose(arguments, frame),
            Function::Aggregate(aggregate) => return aggregate.of(arguments, frame),
            Function::Logic(logic) => return logic.of(arguments, frame),
            Function::IsMissing(wanted) => {
                let missing = arguments[0].evaluate(frame)?.is_missing();
                return Ok(Some(Value::Boolean(missing == wanted)));
            }
            _ => {}
        }
        // A missing value is among no others, and adds nothing to a text.
        let takes_missing = matches!(
            self.function,
            Function::Among(_) | Function::Text(TextFunction::Concat)
        );
        let mut values = Vec::with_capacity(arguments.len());
        for argument in arguments {
            match argument.evaluate(frame)? {
                Value::Missing if !takes_missing => return Ok(None),
                value => values.push(value),
            }
        }
        self.function.of(&values).map(Some)
    }
}

impl Function {
    /// The result for values none of which is missing.
    fn of(self, values: &[Value]) -> Result<Value, Failure> {
        let number = |at: usize| number(&values[at]);
        Ok(match self {
            Function::Arithmetic(operation) => return operation.of(&values[0], &values[1]),
            Function::Math(function) => defined(function(number(0)?))?,
            Function::Math2(function) => whole_if(function(number(0)?, number(1)?), values)?,
            Function::Normal(function) => defined(function(number(0)?, number(1)?, number(2)?))?,
            Function::Round(function) => match &values[0] {
                Value::Integer(number) => Value::Integer(function(*number as f64) as i64),
                _ => Value::Double(function(number(0)?)),
            },
            Function::Threshold => {
                let above = number(0)? > number(1)?;
                Value::Integer(above.into())
            }
            Function::Equal(wanted) => Value::Boolean(equal(&values[0], &values[1]) == wanted),
            Function::Compare(test) => match values[0].order(&values[1]) {
                Some(order) => Value::Boolean(test(order)),
                None => return Err(Failure::Problem("cannot compare values of two types")),
            },
            Function::Not => Value::Boolean(!truth(&values[0])?),
            Function::Among(wanted) => {
                let among = values[1..].iter().any(|value| equal(&values[0], value));
                Value::Boolean(among == wanted)
            }
            Function::Text(function) => return function.of(values),
            // These see values that are missing, too.
            Function::If | Function::Aggregate(_) | Function::Logic(_) | Function::IsMissing(_) => {
                Value::Missing
            }
        })
    }
}

fn equal(left: &Value, right: &Value) -> bool {
    left.same(right)
}

fn number(value: &Value) -> Result<f64, Failure> {
    match DataType::Double.cast(value).and_then(|value| value.as_f64()) {
        Some(number) => Ok(number),
        None => Err(Failure::Problem("takes numbers")),
    }
}

fn truth(value: &Value) -> Result<bool, Failure> {
    match value {
        Value::Boolean(value) => Ok(*value),
        _ => Err(Failure::Problem("takes booleans")),
    }
}

fn defined(number: f64) -> Result<Value, Failure> {
    match number.is_nan() {
        true => Err(Failure::Problem("has no result for these arguments")),
        false => Ok(Value::Double(number)),
    }
}

/// Whole where all values are.
fn whole_if(number: f64, values: &[Value]) -> Result<Value, Failure> {
    let whole = values.iter().all(|value| matches!(value, Value::Integer(_)));
    match whole && number.fract() == 0.0 && number.abs() < 1e15 {
        true => Ok(Value::Integer(number as i64)),
        false => defined(number),
    }
}

fn choose(arguments: &[Expression], frame: &mut Frame<'_>) -> Result<Option<Value>, Failure> {
    let branch = match arguments[0].evaluate(frame)? {
        Value::Missing => return Ok(None),
        value => usize::from(!truth(&value)?) + 1,
    };
    Ok(match arguments.get(branch) {
        Some(argument) => Some(argument.evaluate(frame)?),
        None => Some(Value::Missing),
    })
}

impl Arithmetic {
    fn of(self, left: &Value, right: &Value) -> Result<Value, Failure> {
        if let (Value::Integer(left), Value::Integer(right)) = (left, right) {
            let (left, right) = (*left, *right);
            let whole = match self {
                Arithmetic::Add => left.checked_add(right),
                Arithmetic::Subtract => left.checked_sub(right),
                Arithmetic::Multiply => left.checked_mul(right),
                Arithmetic::Divide => left.checked_div(right),
                Arithmetic::Modulo => left.checked_rem(right).map(|rest| match rest {
                    rest if rest != 0 && (rest < 0) != (right < 0) => rest + right,
                    rest => rest,
                }),
            };
            return whole
                .map(Value::Integer)
                .ok_or(Failure::Problem("has no result for these whole numbers"));
        }
        let (left, right) = (number(left)?, number(right)?);
        defined(match self {
            Arithmetic::Add => left + right,
            Arithmetic::Subtract => left - right,
            Arithmetic::Multiply => left * right,
            Arithmetic::Divide => left / right,
            Arithmetic::Modulo => left - (left / right).floor() * right,
        })
    }
}

impl Aggregate {
    fn of(self, arguments: &[Expression], frame: &mut Frame<'_>) -> Result<Option<Value>, Failure> {
        let mut values = Vec::with_capacity(arguments.len());
        for argument in arguments {
            match argument.evaluate(frame)? {
                Value::Missing => {}
                value => values.push(value),
            }
        }
        if values.is_empty() {
            return Ok(None);
        }
        let numbers = values.iter().map(number).collect::<Result<Vec<f64>, Failure>>()?;
        let sum = || numbers.iter().sum::<f64>();
        let number = match self {
            Aggregate::Min => numbers.iter().copied().fold(f64::INFINITY, f64::min),
            Aggregate::Max => numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Aggregate::Sum => sum(),
            Aggregate::Product => numbers.iter().product(),
            Aggregate::Average => return defined(sum() / numbers.len() as f64).map(Some),
            Aggregate::Median => return defined(median(numbers)).map(Some),
        };
        whole_if(number, &values).map(Some)
    }
}

/// The number in the middle, or the mean of both.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() % 2 {
        1 => numbers[middle],
        _ => (numbers[middle - 1] + numbers[middle]) / 2.0,
    }
}

impl Logic {
    fn of(self, arguments: &[Expression], frame: &mut Frame<'_>) -> Result<Option<Value>, Failure> {
        let mut missing = false;
        for argument in arguments {
            match (argument.evaluate(frame)?, self) {
                (Value::Missing, _) => missing = true,
                (value, Logic::And) if !truth(&value)? => return Ok(Some(Value::Boolean(false))),
                (value, Logic::Or) if truth(&value)? => return Ok(Some(Value::Boolean(true))),
                _ => {}
            }
        }
        Ok((!missing).then_some(Value::Boolean(matches!(self, Logic::And))))
    }
}

impl TextFunction {
    fn of(self, values: &[Value]) -> Result<Value, Failure> {
        if let TextFunction::Concat = self {
            return Ok(values.iter().map(Value::to_string).collect::<String>().into());
        }
        let text = values[0].as_str().ok_or(Failure::Problem("takes texts"))?;
        let whole = |at: usize| match &values[at] {
            Value::Integer(number) => {
                usize::try_from(*number).map_err(|_| Failure::Problem("takes positions from 1 on"))
            }
            _ => Err(Failure::Problem("takes whole numbers as positions")),
        };
        Ok(match self {
            TextFunction::Upper => text.to_uppercase().into(),
            TextFunction::Lower => text.to_lowercase().into(),
            TextFunction::Trim | TextFunction::Concat => text.trim().into(),
            TextFunction::Length => Value::Integer(text.chars().count() as i64),
            TextFunction::Substring => {
                let (from, length) = (whole(1)?, whole(2)?);
                let from = from
                    .checked_sub(1)
                    .ok_or(Failure::Problem("takes positions from 1 on"))?;
                text.chars().skip(from).take(length).collect::<String>().into()
            }
        })
    }
}
