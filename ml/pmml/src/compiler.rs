//! From names to places: which field an element of the document means.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::ParseError;
use crate::expression::{self, Expression};
use crate::fields::{DataField, Treatment};
use crate::frame::{Definition, Field, Program, Slot};
use crate::value::{DataType, FieldType, OpType};
use crate::xml::Element;

/// So deep may fields, functions, expressions, predicates and models stand within each other.
const DEEPEST: usize = 128;

/// So many expressions a call of a function may evaluate: functions that call others twice would else soon take for ever.
const LONGEST: u64 = 100_000;

/// The names that elements of a model can ask for.
#[derive(Debug)]
struct Scope<'d> {
    names: HashMap<&'d str, Entry<'d>>,
}

#[derive(Debug, Clone, Copy)]
enum Entry<'d> {
    Ready(Slot),
    /// A derived field that nothing asked for so far.
    Waiting(Element<'d>),
    /// It is being compiled: who asks for it now asks in a circle.
    Open,
}

#[derive(Debug, Clone, Copy)]
enum Function<'d> {
    Ready(Defined),
    Waiting(Element<'d>),
    Open,
}

/// A function that the document defines.
#[derive(Debug, Clone, Copy)]
pub struct Defined {
    pub number: usize,
    pub parameters: usize,
    /// How many expressions a call evaluates.
    cost: u64,
}

/// The scope of a model, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScopeId(usize);

/// What turns a document into a program.
#[derive(Debug)]
pub struct Compiler<'d> {
    pub program: Program,
    /// The fields of a row, in their order.
    pub inputs: Vec<Arc<str>>,
    dictionary: HashMap<&'d str, DataField>,
    functions: HashMap<&'d str, Function<'d>>,
    /// Derived fields of the transformation dictionary, which are compiled in the outermost model's scope.
    shared: HashMap<&'d str, Element<'d>>,
    scopes: Vec<Scope<'d>>,
    depth: usize,
    /// How many expressions the function that is being compiled evaluates.
    cost: u64,
}

impl<'d> Compiler<'d> {
    /// Reads the dictionaries of a document.
    pub fn new(root: Element<'d>) -> Result<Compiler<'d>, ParseError> {
        let mut compiler = Compiler {
            program: Program::default(),
            inputs: Vec::new(),
            dictionary: HashMap::new(),
            functions: HashMap::new(),
            shared: HashMap::new(),
            scopes: Vec::new(),
            depth: 0,
            cost: 0,
        };
        let dictionary = root.need_child("DataDictionary")?;
        dictionary.check(&["numberOfFields"], &["DataField", "Taxonomy"])?;
        for element in dictionary.all("DataField") {
            let name = element.need("name")?;
            if compiler
                .dictionary
                .insert(name, DataField::parse(element)?)
                .is_some()
            {
                return Err(element.wrong(format!("`{name}` stands in the DataDictionary twice")));
            }
        }
        if let Some(transformations) = root.child("TransformationDictionary") {
            transformations.check(&[], &["DefineFunction", "DerivedField"])?;
            for element in transformations.all("DefineFunction") {
                let name = element.need("name")?;
                compiler.functions.insert(name, Function::Waiting(element));
            }
            for element in transformations.all("DerivedField") {
                compiler.shared.insert(element.need("name")?, element);
            }
        }
        Ok(compiler)
    }

    /// A field of the data dictionary.
    pub fn data_field(&self, name: &str) -> Option<&DataField> {
        self.dictionary.get(name)
    }

    /// Goes one level deeper, which must not go on for ever.
    pub fn deeper<T>(
        &mut self,
        element: Element<'_>,
        inside: impl FnOnce(&mut Compiler<'d>) -> Result<T, ParseError>,
    ) -> Result<T, ParseError> {
        if self.depth == DEEPEST {
            return Err(element.wrong(format!("is more than {DEEPEST} levels deep")));
        }
        self.depth += 1;
        let result = inside(self);
        self.depth -= 1;
        result
    }

    /// Begins the scope of a model: of its mining schema and its local transformations.
    pub fn open(&mut self, model: Element<'d>, parent: Option<ScopeId>) -> Result<ScopeId, ParseError> {
        let schema = model.need_child("MiningSchema")?;
        schema.check(&[], &["MiningField"])?;
        let mut names = HashMap::new();
        for field in schema.all("MiningField") {
            field.check(
                &[
                    "name",
                    "usageType",
                    "optype",
                    "importance",
                    "outliers",
                    "lowValue",
                    "highValue",
                    "missingValueReplacement",
                    "missingValueTreatment",
                    "invalidValueTreatment",
                    "invalidValueReplacement",
                ],
                &[],
            )?;
            if is_input(field)? {
                let slot = match parent {
                    None => self.input(field)?,
                    Some(parent) => self.treated(field, parent)?,
                };
                names.insert(field.need("name")?, Entry::Ready(slot));
            }
        }
        if parent.is_none() {
            for (name, element) in &self.shared {
                names.entry(*name).or_insert(Entry::Waiting(*element));
            }
        }
        if let Some(transformations) = model.child("LocalTransformations") {
            transformations.check(&[], &["DerivedField"])?;
            for element in transformations.all("DerivedField") {
                names.insert(element.need("name")?, Entry::Waiting(element));
            }
        }
        self.scopes.push(Scope { names });
        Ok(ScopeId(self.scopes.len() - 1))
    }

    /// A field of the row.
    fn input(&mut self, element: Element<'d>) -> Result<Slot, ParseError> {
        let name = element.need("name")?;
        let Some(field) = self.dictionary.get(name) else {
            return Err(element.wrong(format!(
                "names the field `{name}`, which is not in the DataDictionary"
            )));
        };
        let mut kind = field.kind.clone();
        if let Some(op) = OpType::of(element)? {
            kind.op = op;
        }
        let treatment = Treatment::parse(element, &kind, Some(field))?;
        let number = self.inputs.len();
        self.inputs.push(name.into());
        Ok(self.add(Definition::Input { number, treatment }, kind))
    }

    /// A field of the model around.
    fn treated(&mut self, element: Element<'d>, parent: ScopeId) -> Result<Slot, ParseError> {
        let name = element.need("name")?;
        let slot = self.field(parent, name, element)?;
        if Treatment::is_default(element) && element.get("optype").is_none() {
            return Ok(slot);
        }
        let mut kind = self.program.fields[slot].kind.clone();
        if let Some(op) = OpType::of(element)? {
            kind.op = op;
        }
        let treatment = Treatment::parse(element, &kind, self.dictionary.get(name))?;
        Ok(self.add(Definition::Treated { slot, treatment }, kind))
    }

    /// Adds a field that has a value of its own.
    pub fn add(&mut self, definition: Definition, kind: FieldType) -> Slot {
        self.program.fields.push(Field { definition, kind });
        self.program.fields.len() - 1
    }

    /// Gives a name to a field, unless it has one already.
    pub fn name(&mut self, scope: ScopeId, name: &'d str, slot: Slot) {
        self.scopes[scope.0]
            .names
            .entry(name)
            .or_insert(Entry::Ready(slot));
    }

    /// The field that a name means in a scope.
    pub fn field(&mut self, scope: ScopeId, name: &str, element: Element<'d>) -> Result<Slot, ParseError> {
        let names = &self.scopes[scope.0].names;
        let Some((name, entry)) = names.get_key_value(name).map(|(name, entry)| (*name, *entry)) else {
            if scope.0 > 0 && self.shared.contains_key(name) {
                return self.field(ScopeId(0), name, element);
            }
            return Err(ParseError::Field {
                line: element.line(),
                element: element.name().to_owned(),
                field: crate::error::begin(name),
            });
        };
        match entry {
            Entry::Ready(slot) => Ok(slot),
            Entry::Open => {
                Err(element.wrong(format!("asks for the field `{name}`, which is made of itself")))
            }
            Entry::Waiting(derived) => {
                self.scopes[scope.0].names.insert(name, Entry::Open);
                let slot = self.deeper(derived, |compiler| compiler.derived(scope, derived))?;
                self.scopes[scope.0].names.insert(name, Entry::Ready(slot));
                Ok(slot)
            }
        }
    }

    /// What is known of a field.
    pub fn kind(&self, slot: Slot) -> &FieldType {
        &self.program.fields[slot].kind
    }

    /// The field that the attribute of an element names.
    pub fn field_of(
        &mut self,
        scope: ScopeId,
        element: Element<'d>,
        attribute: &str,
    ) -> Result<Slot, ParseError> {
        self.field(scope, element.need(attribute)?, element)
    }

    /// Adds a derived field.
    pub fn derived(&mut self, scope: ScopeId, element: Element<'d>) -> Result<Slot, ParseError> {
        let (inside, kind) = derived_kind(element)?;
        let expression = expression::parse(self, scope, inside, kind.data, &[])?;
        let name = element.get("name").unwrap_or(element.name()).into();
        Ok(self.add(Definition::Derived { name, expression }, kind))
    }

    /// A function that the document defines.
    pub fn function(&mut self, name: &str, element: Element<'d>) -> Result<Defined, ParseError> {
        let Some((name, function)) = self.functions.get_key_value(name).map(|(name, f)| (*name, *f)) else {
            return Err(ParseError::Function {
                line: element.line(),
                function: crate::error::begin(name),
            });
        };
        match function {
            Function::Ready(defined) => Ok(defined),
            Function::Open => Err(element.wrong(format!("calls the function `{name}`, which calls itself"))),
            Function::Waiting(definition) => {
                self.functions.insert(name, Function::Open);
                let defined = self.deeper(definition, |compiler| compiler.define(definition))?;
                self.functions.insert(name, Function::Ready(defined));
                Ok(defined)
            }
        }
    }

    fn define(&mut self, element: Element<'d>) -> Result<Defined, ParseError> {
        let mut children = vec!["ParameterField"];
        children.extend(expression::KINDS);
        element.check(&["name", "optype", "dataType"], &children)?;
        let mut parameters = Vec::new();
        for parameter in element.all("ParameterField") {
            parameter.check(&["name", "optype", "dataType", "displayName"], &[])?;
            parameters.push((parameter.need("name")?, DataType::of(parameter)?));
        }
        let inside = expression::find(element)?;
        let data = DataType::of(element)?;
        // A function knows its parameters alone: no field is in this scope.
        let nothing = self.nothing();
        let before = std::mem::take(&mut self.cost);
        let body = expression::parse(self, nothing, inside, data.unwrap_or(DataType::Text), &parameters)?;
        self.program.functions.push(match data {
            Some(data) => Expression::cast(body, data, element.need("name")?),
            None => body,
        });
        let cost = std::mem::replace(&mut self.cost, before);
        if cost > LONGEST {
            return Err(element.wrong(format!("evaluates more than {LONGEST} expressions in a call")));
        }
        Ok(Defined {
            cost,
            number: self.program.functions.len() - 1,
            parameters: parameters.len(),
        })
    }

    /// Counts an expression.
    pub fn count(&mut self) {
        self.cost = self.cost.saturating_add(1);
    }

    /// Counts what a call evaluates.
    pub fn count_call(&mut self, function: Defined) {
        self.cost = self.cost.saturating_add(function.cost);
    }

    /// A scope without names.
    fn nothing(&mut self) -> ScopeId {
        self.scopes.push(Scope {
            names: HashMap::new(),
        });
        ScopeId(self.scopes.len() - 1)
    }
}

/// The expression of a derived field, and what the field is.
pub fn derived_kind(element: Element<'_>) -> Result<(Element<'_>, FieldType), ParseError> {
    let mut children = vec!["Value", "Interval"];
    children.extend(expression::KINDS);
    element.check(&["name", "displayName", "optype", "dataType"], &children)?;
    let data = DataType::of(element)?.ok_or_else(|| element.missing("attribute `dataType`"))?;
    let op = OpType::of(element)?.ok_or_else(|| element.missing("attribute `optype`"))?;
    let mut kind = FieldType::new(data, op);
    let values = element.all("Value").map(|entry| {
        entry.check(&["value", "displayValue", "property"], &[])?;
        data.read(entry, "value", entry.need("value")?)
    });
    kind.values = values.collect::<Result<Vec<_>, _>>()?.into();
    Ok((expression::find(element)?, kind))
}

/// Whether values of a `MiningField` go into the model.
fn is_input(element: Element<'_>) -> Result<bool, ParseError> {
    let usages = [
        ("active", true),
        ("predicted", false),
        ("target", false),
        ("supplementary", true),
        ("group", true),
        ("order", true),
        ("frequencyWeight", false),
        ("analysisWeight", false),
    ];
    Ok(element.one_of("usageType", &usages)?.unwrap_or(true))
}
