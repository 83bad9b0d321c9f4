//! From elements to expressions.

use std::collections::HashMap;

use super::functions::{Call, Invalid};
use super::norm::Norm;
use super::{Expression, Key};
use crate::compiler::{Compiler, ScopeId};
use crate::error::ParseError;
use crate::fields::Interval;
use crate::value::{DataType, Value, guess};
use crate::xml::Element;

/// The elements that are expressions.
pub const KINDS: [&str; 7] = [
    "Constant",
    "FieldRef",
    "NormContinuous",
    "NormDiscrete",
    "Discretize",
    "MapValues",
    "Apply",
];

/// Parameters of the function around.
type Parameters<'p> = &'p [(&'p str, Option<DataType>)];

/// The expression in an element, which has one.
pub fn find(element: Element<'_>) -> Result<Element<'_>, ParseError> {
    let mut found = element.children().filter(|child| KINDS.contains(&child.name()));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(element.missing("expression")),
        (_, Some(second)) => Err(second.wrong("is a second expression: expected one")),
    }
}

/// Compiles an expression whose result is to be of a type.
pub fn parse<'d>(
    compiler: &mut Compiler<'d>,
    scope: ScopeId,
    element: Element<'d>,
    data: DataType,
    parameters: Parameters<'_>,
) -> Result<Expression, ParseError> {
    compiler.count();
    compiler.deeper(element, |compiler| {
        let mut parser = Parser {
            compiler,
            scope,
            parameters,
        };
        parser.expression(element, data)
    })
}

struct Parser<'c, 'd, 'p> {
    compiler: &'c mut Compiler<'d>,
    scope: ScopeId,
    parameters: Parameters<'p>,
}

impl<'d> Parser<'_, 'd, '_> {
    fn expression(&mut self, element: Element<'d>, data: DataType) -> Result<Expression, ParseError> {
        match element.name() {
            "Constant" => constant(element),
            "FieldRef" => {
                element.check(&["field", "mapMissingTo"], &[])?;
                self.reference(element, "field", data)
            }
            "NormContinuous" => Ok(Expression::Continuous {
                norm: Norm::parse(element)?,
                field: self.plain(element, "field")?,
                when_missing: element.number_of("mapMissingTo")?.into(),
            }),
            "NormDiscrete" => self.discrete(element),
            "Discretize" => self.bins(element, data),
            "MapValues" => self.table(element, data),
            "Apply" => self.apply(element),
            _ => Err(element.wrong("is no expression")),
        }
    }

    /// The field or the parameter that an attribute names.
    fn reference(
        &mut self,
        element: Element<'d>,
        attribute: &str,
        data: DataType,
    ) -> Result<Expression, ParseError> {
        let name = element.need(attribute)?;
        let missing = element.get("mapMissingTo");
        if let Some(number) = self
            .parameters
            .iter()
            .position(|(parameter, _)| *parameter == name)
        {
            let own = self.parameters[number].1;
            return Ok(Expression::Argument {
                number,
                data: own,
                when_missing: read(element, "mapMissingTo", missing, own.unwrap_or(data))?,
            });
        }
        let slot = self.compiler.field(self.scope, name, element)?;
        let kind = self.compiler.kind(slot).data;
        Ok(Expression::Field {
            slot,
            when_missing: read(element, "mapMissingTo", missing, kind)?,
        })
    }

    /// The same, where `mapMissingTo` is of the expression and not of the field.
    fn plain(&mut self, element: Element<'d>, attribute: &str) -> Result<Box<Expression>, ParseError> {
        let name = element.need(attribute)?;
        Ok(Box::new(
            match self
                .parameters
                .iter()
                .position(|(parameter, _)| *parameter == name)
            {
                Some(number) => Expression::Argument {
                    number,
                    data: self.parameters[number].1,
                    when_missing: Value::Missing,
                },
                None => Expression::Field {
                    slot: self.compiler.field(self.scope, name, element)?,
                    when_missing: Value::Missing,
                },
            },
        ))
    }

    /// The type of a plain reference, where it is known.
    fn kind(&self, field: &Expression) -> Option<DataType> {
        match field {
            Expression::Field { slot, .. } => Some(self.compiler.kind(*slot).data),
            Expression::Argument { data, .. } => *data,
            _ => None,
        }
    }

    fn discrete(&mut self, element: Element<'d>) -> Result<Expression, ParseError> {
        element.check(&["field", "method", "value", "mapMissingTo"], &[])?;
        element.one_of("method", &[("indicator", ())])?;
        let field = self.plain(element, "field")?;
        let text = element.need("value")?;
        Ok(Expression::Discrete {
            value: match self.kind(&field) {
                Some(data) => data.read(element, "value", text)?,
                None => guess(text),
            },
            field,
            when_missing: element.number_of("mapMissingTo")?.into(),
        })
    }

    fn bins(&mut self, element: Element<'d>, data: DataType) -> Result<Expression, ParseError> {
        element.check(
            &["field", "mapMissingTo", "defaultValue", "dataType"],
            &["DiscretizeBin"],
        )?;
        let data = DataType::of(element)?.unwrap_or(data);
        let bins = element.all("DiscretizeBin").map(|bin| {
            bin.check(&["binValue"], &["Interval"])?;
            let interval = Interval::parse(bin.need_child("Interval")?)?;
            Ok((interval, data.read(bin, "binValue", bin.need("binValue")?)?))
        });
        Ok(Expression::Bins {
            field: self.plain(element, "field")?,
            bins: bins.collect::<Result<_, ParseError>>()?,
            otherwise: read(element, "defaultValue", element.get("defaultValue"), data)?,
            when_missing: read(element, "mapMissingTo", element.get("mapMissingTo"), data)?,
        })
    }

    fn table(&mut self, element: Element<'d>, data: DataType) -> Result<Expression, ParseError> {
        element.check(
            &["outputColumn", "mapMissingTo", "defaultValue", "dataType"],
            &["FieldColumnPair", "InlineTable"],
        )?;
        let data = DataType::of(element)?.unwrap_or(data);
        let (mut columns, mut names) = (Vec::new(), Vec::new());
        for pair in element.all("FieldColumnPair") {
            pair.check(&["field", "column"], &[])?;
            let field = *self.plain(pair, "field")?;
            names.push((column(pair.need("column")?), self.kind(&field)));
            columns.push(field);
        }
        let output = column(element.need("outputColumn")?);
        let mut rows = HashMap::new();
        let table = element.need_child("InlineTable")?.check(&[], &["row"])?;
        for row in table.all("row") {
            let cell = |column: &str| {
                let mut cells = row.children();
                cells
                    .find(|cell| cell.name() == column)
                    .map(|cell| (cell, cell.text()))
            };
            let keys = names
                .iter()
                .map(|(column, kind)| -> Result<Option<Key>, ParseError> {
                    match (cell(column), kind) {
                        (None, _) => Ok(None),
                        (Some((cell, text)), Some(kind)) => Ok(Key::of(&kind.read(cell, "the text", text)?)),
                        (Some((_, text)), None) => Ok(Key::of(&guess(text))),
                    }
                });
            let keys: Option<Vec<Key>> = keys.collect::<Result<_, _>>()?;
            // A row without a cell is met by no value.
            if let (Some(keys), Some((cell, text))) = (keys, cell(output)) {
                let value = data.read(cell, "the text", text)?;
                rows.entry(keys).or_insert(value);
            }
        }
        Ok(Expression::Table {
            columns,
            rows,
            otherwise: read(element, "defaultValue", element.get("defaultValue"), data)?,
            when_missing: read(element, "mapMissingTo", element.get("mapMissingTo"), data)?,
        })
    }

    fn apply(&mut self, element: Element<'d>) -> Result<Expression, ParseError> {
        let attributes = [
            "function",
            "mapMissingTo",
            "defaultValue",
            "invalidValueTreatment",
        ];
        element.check(&attributes, &KINDS)?;
        let words = [
            ("returnInvalid", Invalid::Error),
            ("asIs", Invalid::Error),
            ("asMissing", Invalid::Missing),
        ];
        let invalid = element
            .one_of("invalidValueTreatment", &words)?
            .unwrap_or(Invalid::Error);
        let name = element.need("function")?;
        let mut arguments = Vec::new();
        for argument in element.children() {
            let compiled = parse(
                self.compiler,
                self.scope,
                argument,
                DataType::Text,
                self.parameters,
            )?;
            arguments.push(compiled);
        }
        let otherwise = element.get("defaultValue").map_or(Value::Missing, guess);
        let when_missing = element.get("mapMissingTo").map_or(Value::Missing, guess);
        if let Some(call) = Call::new(name, element.line(), invalid) {
            if !call.takes(arguments.len()) {
                return Err(element.wrong(format!(
                    "gives the function `{name}` {} arguments",
                    arguments.len()
                )));
            }
            return Ok(Expression::Apply {
                call,
                arguments,
                otherwise,
                when_missing,
            });
        }
        let function = self.compiler.function(name, element)?;
        self.compiler.count_call(function);
        if function.parameters != arguments.len() {
            return Err(element.wrong(format!(
                "gives the function `{name}` {} arguments: expected {}",
                arguments.len(),
                function.parameters
            )));
        }
        Ok(Expression::Defined {
            function: function.number,
            arguments,
            otherwise,
            when_missing,
        })
    }
}

/// The name of a column, without its namespace.
fn column(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, name)| name)
}

fn constant(element: Element<'_>) -> Result<Expression, ParseError> {
    element.check(&["dataType", "missing"], &[])?;
    if element.flag("missing")? == Some(true) {
        return Ok(Expression::Constant(Value::Missing));
    }
    let text = element.text();
    Ok(Expression::Constant(match DataType::of(element)? {
        Some(data) => data.read(element, "the text", text)?,
        None => guess(text),
    }))
}

/// A value for what is missing, if there is one.
fn read(element: Element<'_>, what: &str, text: Option<&str>, data: DataType) -> Result<Value, ParseError> {
    text.map_or(Ok(Value::Missing), |text| data.read(element, what, text))
}
