//! The document: its elements with their lines, in one array.

use std::collections::HashSet;
use std::sync::Arc;

use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};

use crate::error::{ParseError, begin};

/// All elements of a document, without what PMML calls extensions.
#[derive(Debug)]
pub struct Document {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    name: Arc<str>,
    line: usize,
    attributes: Vec<(Arc<str>, String)>,
    children: Vec<usize>,
    text: String,
}

/// An element.
#[derive(Debug, Clone, Copy)]
pub struct Element<'d> {
    document: &'d Document,
    number: usize,
}

/// How far the lines were counted.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl Lines<'_> {
    fn of(&mut self, position: u64) -> usize {
        let position = usize::try_from(position)
            .unwrap_or(usize::MAX)
            .min(self.text.len());
        if position > self.at {
            let passed = &self.text.as_bytes()[self.at..position];
            self.line += memchr::memchr_iter(b'\n', passed).count();
            self.at = position;
        }
        self.line
    }
}

impl Document {
    /// Reads a document.
    pub fn parse(text: &str) -> Result<Document, ParseError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut reader = Reader::from_str(text);
        let mut lines = Lines { text, at: 0, line: 1 };
        let mut tree = Tree::default();
        // So many elements are open within an extension.
        let mut extension = 0;
        loop {
            let line = lines.of(reader.buffer_position());
            let event = reader.read_event().map_err(|error| ParseError::Xml {
                line: lines.of(reader.error_position()),
                problem: error.to_string(),
            })?;
            match event {
                Event::Start(_) if extension > 0 => extension += 1,
                Event::End(_) if extension > 0 => extension -= 1,
                Event::Eof => break,
                _ if extension > 0 => {}
                Event::Start(start) if name(&start, line)? == "Extension" => extension = 1,
                Event::Empty(start) if name(&start, line)? == "Extension" => {}
                Event::Start(start) => {
                    let number = tree.add(&start, line)?;
                    tree.open.push(number);
                }
                Event::Empty(start) => {
                    tree.add(&start, line)?;
                }
                Event::End(_) => {
                    tree.open.pop();
                }
                Event::Text(text) => {
                    let text = text.xml10_content().map_err(|error| broken(line, error))?;
                    tree.append(&text);
                }
                Event::CData(text) => {
                    let text = text.xml10_content().map_err(|error| broken(line, error))?;
                    tree.append(&text);
                }
                Event::GeneralRef(reference) => {
                    let character = reference
                        .resolve_char_ref()
                        .map_err(|error| broken(line, error))?;
                    let name = reference.decode().map_err(|error| broken(line, error))?;
                    let text = match character {
                        Some(character) => character.to_string(),
                        None => resolve_predefined_entity(&name)
                            .ok_or_else(|| broken(line, format!("the entity `{name}` is not known")))?
                            .to_owned(),
                    };
                    tree.append(&text);
                }
                Event::Decl(_) | Event::PI(_) | Event::Comment(_) | Event::DocType(_) => {}
            }
        }
        let line = lines.of(u64::MAX);
        if let Some(number) = tree.open.last() {
            let name = &tree.nodes[*number].name;
            return Err(broken(line, format!("it ends within `{name}`: it was cut off")));
        }
        match tree.nodes.is_empty() {
            true => Err(broken(line, "it has no element")),
            false => Ok(Document { nodes: tree.nodes }),
        }
    }

    /// The outermost element.
    pub fn root(&self) -> Element<'_> {
        Element {
            document: self,
            number: 0,
        }
    }
}

fn broken(line: usize, problem: impl ToString) -> ParseError {
    ParseError::Xml {
        line,
        problem: problem.to_string(),
    }
}

fn name<'s>(start: &'s BytesStart<'_>, line: usize) -> Result<&'s str, ParseError> {
    std::str::from_utf8(start.local_name().into_inner()).map_err(|error| broken(line, error))
}

/// A document that is being read.
#[derive(Default)]
struct Tree {
    nodes: Vec<Node>,
    /// The elements that have not ended yet, from the outermost on.
    open: Vec<usize>,
    /// Names are few, and kept once.
    names: HashSet<Arc<str>>,
}

impl Tree {
    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.names.insert(Arc::clone(&name));
        name
    }

    /// Adds an element to the innermost open one.
    fn add(&mut self, start: &BytesStart<'_>, line: usize) -> Result<usize, ParseError> {
        let number = self.nodes.len();
        match self.open.last() {
            Some(parent) => self.nodes[*parent].children.push(number),
            None if number > 0 => return Err(broken(line, "a second outermost element")),
            None => {}
        }
        let mut attributes = Vec::new();
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| broken(line, error))?;
            let key = std::str::from_utf8(attribute.key.as_ref()).map_err(|error| broken(line, error))?;
            // Namespaces and schema locations say nothing of the model.
            if key == "xmlns" || key.contains(':') {
                continue;
            }
            let value = attribute.normalized_value(XmlVersion::Implicit1_0);
            let value = value.map_err(|error| broken(line, error))?;
            attributes.push((self.name(key), value.into_owned()));
        }
        let name = self.name(name(start, line)?);
        self.nodes.push(Node {
            name,
            line,
            attributes,
            children: Vec::new(),
            text: String::new(),
        });
        Ok(number)
    }

    fn append(&mut self, text: &str) {
        // Between elements there are only spaces.
        if let Some(number) = self.open.last() {
            self.nodes[*number].text.push_str(text);
        }
    }
}

impl<'d> Element<'d> {
    /// The name, without its namespace.
    pub fn name(self) -> &'d str {
        &self.node().name
    }

    /// The line on which it begins, from 1.
    pub fn line(self) -> usize {
        self.node().line
    }

    /// The text in it.
    pub fn text(self) -> &'d str {
        &self.node().text
    }

    /// The elements in it.
    pub fn children(self) -> impl Iterator<Item = Element<'d>> + Clone + use<'d> {
        let document = self.document;
        let children = self.node().children.iter();
        children.map(move |number| Element {
            document,
            number: *number,
        })
    }

    /// The elements of a name in it.
    pub fn all(self, name: &'static str) -> impl Iterator<Item = Element<'d>> + Clone + use<'d> {
        self.children().filter(move |child| child.name() == name)
    }

    /// The first element of a name in it.
    pub fn child(self, name: &'static str) -> Option<Element<'d>> {
        self.all(name).next()
    }

    /// The first element of a name in it, which must be there.
    pub fn need_child(self, name: &'static str) -> Result<Element<'d>, ParseError> {
        self.child(name)
            .ok_or_else(|| self.missing(format!("element `{name}`")))
    }

    /// Whether all attributes and all elements in it are known.
    pub fn check(self, attributes: &[&str], children: &[&str]) -> Result<Element<'d>, ParseError> {
        for (attribute, _) in &self.node().attributes {
            if !attributes.contains(&&**attribute) {
                return Err(ParseError::UnknownAttribute {
                    line: self.line(),
                    element: self.name().to_owned(),
                    attribute: begin(attribute),
                });
            }
        }
        match self.children().find(|child| !children.contains(&child.name())) {
            None => Ok(self),
            Some(child) => Err(child.unknown(self)),
        }
    }

    /// The error of an element that is not known.
    pub fn unknown(self, parent: Element<'_>) -> ParseError {
        ParseError::UnknownElement {
            line: self.line(),
            element: begin(self.name()),
            parent: parent.name().to_owned(),
        }
    }

    /// The error of something that is not there.
    pub fn missing(self, what: impl Into<String>) -> ParseError {
        ParseError::Missing {
            line: self.line(),
            element: self.name().to_owned(),
            what: what.into(),
        }
    }

    /// The error of parts that do not fit.
    pub fn wrong(self, problem: impl Into<String>) -> ParseError {
        ParseError::Structure {
            line: self.line(),
            element: self.name().to_owned(),
            problem: problem.into(),
        }
    }

    /// The error of a value that cannot be.
    pub fn value(self, what: impl Into<String>, found: &str, expected: impl Into<String>) -> ParseError {
        ParseError::Value {
            line: self.line(),
            element: self.name().to_owned(),
            what: what.into(),
            found: begin(found),
            expected: expected.into(),
        }
    }

    /// An attribute.
    pub fn get(self, name: &str) -> Option<&'d str> {
        let mut attributes = self.node().attributes.iter();
        attributes
            .find(|(key, _)| **key == *name)
            .map(|(_, value)| value.as_str())
    }

    /// An attribute that must be there.
    pub fn need(self, name: &str) -> Result<&'d str, ParseError> {
        self.get(name)
            .ok_or_else(|| self.missing(format!("attribute `{name}`")))
    }

    /// An attribute that is a number.
    pub fn number_of(self, name: &str) -> Result<Option<f64>, ParseError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let number = text
            .trim()
            .parse()
            .map_err(|_| self.value(name, text, "a number"))?;
        Ok(Some(number))
    }

    /// An attribute that is a number and must be there.
    pub fn need_number(self, name: &str) -> Result<f64, ParseError> {
        self.need(name)?;
        self.number_of(name).map(Option::unwrap_or_default)
    }

    /// An attribute that is yes or no.
    pub fn flag(self, name: &str) -> Result<Option<bool>, ParseError> {
        let flag = |text| match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            text => Err(self.value(name, text, "`true` or `false`")),
        };
        self.get(name).map(flag).transpose()
    }

    /// An attribute that is one of some words.
    pub fn one_of<T: Copy>(self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, ParseError> {
        let Some(found) = self.get(name) else {
            return Ok(None);
        };
        match words.iter().find(|(word, _)| *word == found) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => {
                let words: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
                Err(self.value(name, found, words.join(", ")))
            }
        }
    }

    fn node(self) -> &'d Node {
        &self.document.nodes[self.number]
    }
}
