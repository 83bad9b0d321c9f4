//! The fields of all models of a document, and their values for one row.

use std::sync::Arc;

use crate::error::EvaluateError;
use crate::expression::Expression;
use crate::fields::Treatment;
use crate::value::{FieldType, Value};

/// A place in the frame: the number of a field.
pub type Slot = usize;

/// Where a field's value comes from.
#[derive(Debug)]
pub enum Definition {
    /// A value of the row, by its number.
    Input { number: usize, treatment: Treatment },
    /// A field of the model around, treated again.
    Treated { slot: Slot, treatment: Treatment },
    /// An expression.
    Derived { name: Arc<str>, expression: Expression },
    /// A model gives it when it has run; it is missing until then.
    Given,
}

/// A field.
#[derive(Debug)]
pub struct Field {
    pub definition: Definition,
    pub kind: FieldType,
}

/// All fields and functions of a document.
#[derive(Debug, Default)]
pub struct Program {
    pub fields: Vec<Field>,
    /// The functions that the document defines.
    pub functions: Vec<Expression>,
}

/// The values of one row. Each is made when it is first asked for.
pub struct Frame<'p> {
    program: &'p Program,
    row: &'p [Value],
    values: Vec<Option<Value>>,
    /// Arguments of the functions that are being called, one call after the other.
    pub arguments: Vec<Value>,
    /// Where those of the innermost call begin.
    pub base: usize,
}

impl<'p> Frame<'p> {
    pub fn new(program: &'p Program, row: &'p [Value]) -> Frame<'p> {
        Frame {
            program,
            row,
            values: vec![None; program.fields.len()],
            arguments: Vec::new(),
            base: 0,
        }
    }

    /// The value of a field.
    pub fn get(&mut self, slot: Slot) -> Result<Value, EvaluateError> {
        if let Some(value) = &self.values[slot] {
            return Ok(value.clone());
        }
        let program = self.program;
        let field = &program.fields[slot];
        let value = match &field.definition {
            Definition::Input { number, treatment } => treatment.apply(&self.row[*number])?,
            Definition::Treated { slot, treatment } => treatment.apply(&self.get(*slot)?)?,
            Definition::Derived { name, expression } => {
                // The arguments of a call are none of the field's.
                let value = expression.evaluate(self)?;
                field.kind.data.need(&value, name)?
            }
            Definition::Given => Value::Missing,
        };
        self.values[slot] = Some(value.clone());
        Ok(value)
    }

    /// The value of a field as a number. None when it is missing.
    pub fn number(&mut self, slot: Slot) -> Result<Option<f64>, EvaluateError> {
        match &self.values[slot] {
            Some(Value::Double(number)) => return Ok(Some(*number)),
            Some(Value::Missing) => return Ok(None),
            _ => {}
        }
        match self.get(slot)? {
            Value::Missing => Ok(None),
            Value::Boolean(value) => Ok(Some(f64::from(u8::from(value)))),
            value => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(EvaluateError::Type {
                    found: crate::error::begin(&value.to_string()),
                    expected: "double".to_owned(),
                    field: String::new(),
                }),
            },
        }
    }

    /// Gives a field its value.
    pub fn set(&mut self, slot: Slot, value: Value) {
        self.values[slot] = Some(value);
    }

    /// A function that the document defines.
    pub fn function(&self, number: usize) -> &'p Expression {
        &self.program.functions[number]
    }
}
