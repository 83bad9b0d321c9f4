//! The interpreter: one instruction after the other, on a stack.

use std::collections::HashMap;
use std::rc::Rc;

use super::PickleError;
use super::find::unread;
use super::value::{Global, Id, SavedTensor, Storage, StorageType, Value};

/// libtorch takes no more.
const MAX_DIMENSIONS: usize = 64;

/// A pickle that is being read.
pub(in crate::weights) struct Machine<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    pub(super) values: Vec<Value>,
    pub(super) stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    pub(super) marks: Vec<usize>,
    pub(super) memo: HashMap<u32, Id>,
    /// Items copied out of lists so far.
    copied: usize,
    /// The storages that were named, with their numbers.
    storages: HashMap<Rc<str>, StorageType>,
}

impl<'a> Machine<'a> {
    pub fn new(bytes: &'a [u8]) -> Machine<'a> {
        Machine {
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
            storages: HashMap::new(),
        }
    }

    /// Where the pickle ended.
    pub fn position(&self) -> usize {
        self.at
    }

    pub fn value(&self, id: Id) -> &Value {
        &self.values[id]
    }

    /// What the numbers of a storage are, if a tensor named it.
    pub fn storage_type(&self, key: &str) -> Option<&StorageType> {
        self.storages.get(key)
    }

    /// Runs to the end and gives the value that is left.
    pub fn run(&mut self) -> Result<Id, PickleError> {
        loop {
            let at = self.at;
            let opcode = self.byte()?;
            match opcode {
                0x80 => drop(self.byte()?),  // PROTO
                0x95 => drop(self.take(8)?), // FRAME
                b'.' => return self.pop(),   // STOP
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),      // POP
                b'1' => drop(self.pop_mark()?), // POP_MARK
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }
                b'N' => self.push(Value::None),
                0x88 | 0x89 => self.push(Value::Bool(opcode == 0x88)),
                b'J' => self.push_int(4)?,
                b'K' => self.push_uint(1)?,
                b'M' => self.push_uint(2)?,
                0x8a => {
                    let len = self.length(1)?;
                    self.push_int(len)?;
                }
                0x8b => {
                    let len = self.length(4)?;
                    self.push_int(len)?;
                }
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Float);
                }
                b'X' => self.push_str(4)?,
                0x8c => self.push_str(1)?,
                0x8d => self.push_str(8)?,
                b'U' => self.push_str(1)?,
                b'T' => self.push_str(4)?,
                b'C' => self.push_bytes(1)?,
                b'B' => self.push_bytes(4)?,
                0x8e | 0x96 => self.push_bytes(8)?,
                b')' => self.push(Value::Tuple(Vec::new())),
                b't' => {
                    let items = self.pop_mark()?;
                    self.push(Value::Tuple(items));
                }
                0x85..=0x87 => {
                    let first = self.stack.len().checked_sub(usize::from(opcode) - 0x84);
                    let first = first
                        .filter(|&first| first >= self.floor())
                        .ok_or(self.malformed("a tuple's items"))?;
                    let items = self.stack.split_off(first);
                    self.push(Value::Tuple(items));
                }
                b']' => self.push(Value::List(Vec::new())),
                b'l' => {
                    let items = self.pop_mark()?;
                    self.push(Value::List(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.append(items)?;
                }
                b'}' => self.push(Value::Dict(Vec::new())),
                b'd' => {
                    let items = self.pop_mark()?;
                    self.push(Value::Dict(Vec::new()));
                    self.set_items(items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set_items(vec![key, value])?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set_items(items)?;
                }
                0x8f => self.push(Value::Set),
                0x90 => drop(self.pop_mark()?), // ADDITEMS
                // The text instructions of protocols 0 and 1.
                b'I' | b'L' => self.push_text_int()?,
                b'F' => {
                    self.line()?;
                    self.push(Value::Float);
                }
                b'S' | b'V' => {
                    let text = self.line()?.trim_matches(['\'', '"']).into();
                    self.push(Value::Str(text));
                }
                b'P' => {
                    self.line()?;
                    self.push_object("a persistent id".into());
                }
                b'p' => {
                    let index = self.index()?;
                    self.remember(index)?;
                }
                b'g' => {
                    let index = self.index()?;
                    self.recall(index)?;
                }
                b'i' => {
                    let class = Global::named(self.line()?, self.line()?).name();
                    self.pop_mark()?;
                    self.push_object(class);
                }
                b'o' => {
                    let items = self.pop_mark()?;
                    let class = items.first().map(|&class| self.called(class));
                    self.push_object(class.ok_or(self.malformed("a class"))?);
                }
                0x91 => {
                    self.pop_mark()?;
                    self.push(Value::Set);
                }
                b'c' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    self.push(Value::Global(Global::named(module, name)));
                }
                0x93 => {
                    let (name, module) = (self.pop_str()?, self.pop_str()?);
                    self.push(Value::Global(Global::named(&module, &name)));
                }
                b'R' | 0x81 => {
                    let arguments = self.pop()?;
                    let function = self.pop()?;
                    self.call(function, arguments)?;
                }
                0x92 => {
                    // NEWOBJ_EX: a class with positional and named arguments.
                    self.pop()?;
                    self.pop()?;
                    let class = self.pop()?;
                    self.push_object(self.called(class));
                }
                b'b' => self.build()?,
                b'q' => {
                    let index = self.byte()?;
                    self.remember(index.into())?;
                }
                b'r' => {
                    let index = self.u32()?;
                    self.remember(index)?;
                }
                0x94 => {
                    let index = u32::try_from(self.memo.len()).map_err(|_| self.malformed("fewer memos"))?;
                    self.remember(index)?;
                }
                b'h' => {
                    let index = self.byte()?;
                    self.recall(index.into())?;
                }
                b'j' => {
                    let index = self.u32()?;
                    self.recall(index)?;
                }
                b'Q' => self.load_persistent()?,
                _ => return Err(PickleError::Opcode { opcode, at }),
            }
        }
    }

    /// `REDUCE` and `NEWOBJ`: a function or class with its arguments. Those that are not known give an opaque value.
    fn call(&mut self, function: Id, arguments: Id) -> Result<(), PickleError> {
        let Value::Tuple(arguments) = &self.values[arguments] else {
            return Err(self.malformed("a function and its arguments"));
        };
        let arguments = arguments.as_slice();
        let function = match &self.values[function] {
            Value::Global(global) => global,
            _ => &Global::Other(self.called(function)),
        };
        let made = match (function, arguments) {
            (Global::RebuildFromType, &[function, class, inner, ..]) => {
                match (&self.values[function], &self.values[class], &self.values[inner]) {
                    (Value::Global(Global::RebuildFromType), ..) => {
                        return Err(self.malformed("a function that makes a tensor"));
                    }
                    (
                        Value::Global(function),
                        Value::Global(Global::TensorClass),
                        Value::Tuple(arguments),
                    ) => self.made(function, arguments)?,
                    _ => Made::New(Value::Unread(
                        format!("a tensor of the class {}", self.called(class)).into(),
                    )),
                }
            }
            _ => self.made(function, arguments)?,
        };
        match made {
            Made::New(value) => self.push(value),
            Made::Copy(list) => {
                let pairs = self.pairs(list)?;
                self.push(Value::Dict(pairs));
            }
        }
        Ok(())
    }

    /// What a call gives.
    fn made(&self, function: &Global, arguments: &[Id]) -> Result<Made, PickleError> {
        Ok(Made::New(match (function, arguments) {
            (Global::Dict, []) | (Global::DefaultDict, [] | [_]) => Value::Dict(Vec::new()),
            (Global::Dict, &[items]) | (Global::DefaultDict, &[_, items]) => return Ok(Made::Copy(items)),
            (Global::RebuildParameter | Global::TensorClass, &[tensor, ..]) => match &self.values[tensor] {
                Value::Tensor(tensor) => Value::Tensor(tensor.clone()),
                Value::Unread(what) => Value::Unread(what.clone()),
                other => Value::Unread(format!("a parameter made of {}", other.what()).into()),
            },
            (Global::RebuildTensor, &[storage, offset, shape, strides, ref rest @ ..]) => {
                self.tensor([storage, offset, shape, strides], rest.get(2).copied())?
            }
            (Global::RebuildWithDtype, &[_, _, _, _, _, _, dtype, ..]) => {
                Value::Unread(unread(&self.called(dtype)).into())
            }
            (Global::UnreadTensor(what), _) => Value::Unread((*what).into()),
            (other, _) => Value::Object {
                class: other.name(),
                items: Vec::new(),
            },
        }))
    }

    /// A tensor of `[storage, offset, shape, strides]`. The metadata may change what its numbers mean: the negative bit is applied
    /// when the tensor is read, and a tensor with any other is not read.
    fn tensor(
        &self,
        [storage, offset, shape, strides]: [Id; 4],
        metadata: Option<Id>,
    ) -> Result<Value, PickleError> {
        let (Value::Storage(storage), &Value::Int(offset)) = (&self.values[storage], &self.values[offset])
        else {
            return Err(self.malformed("a tensor's storage and offset"));
        };
        let offset = offset
            .checked_add(storage.offset)
            .ok_or(self.malformed("a tensor's offset"))?;
        let (shape, strides) = (self.integers(shape)?, self.integers(strides)?);
        if shape.len() != strides.len() {
            return Err(self.malformed("as many strides as dimensions"));
        }
        let mut negated = false;
        let marks = match metadata.map(|metadata| &self.values[metadata]) {
            None | Some(Value::None) => &[],
            Some(other) => other.items().ok_or(self.malformed("a tensor's metadata"))?,
        };
        for &(key, value) in marks {
            match (&self.values[key], &self.values[value]) {
                (Value::Str(key), &Value::Bool(set)) if &**key == "neg" => negated = set,
                (Value::Str(key), Value::Bool(false)) if &**key == "conj" => {}
                (Value::Str(key), _) => {
                    return Ok(Value::Unread(
                        format!("a tensor with the mark {key:?}, which is not read").into(),
                    ));
                }
                _ => return Err(self.malformed("a tensor's metadata")),
            }
        }
        Ok(Value::Tensor(Box::new(SavedTensor {
            storage: storage.clone(),
            offset,
            shape,
            strides,
            negated,
        })))
    }

    /// `BUILD`: the state of an object. A state dict carries `_metadata` this way and tensors carry attributes, which inference does
    /// not need; but a tuple of four is a tensor's place in a storage, set after it was made.
    fn build(&mut self) -> Result<(), PickleError> {
        let state = self.pop()?;
        let object = self.top()?;
        let is_place = matches!(&self.values[state], Value::Tuple(state) if state.len() >= 4);
        if matches!(self.values[object], Value::Tensor(_)) && is_place {
            self.values[object] = Value::Unread("a tensor whose numbers were set after it was made".into());
        }
        Ok(())
    }

    /// A persistent id: `('storage', type, key, device, elements)`, before 1.6 with a view `(key, offset, elements)` or None after it;
    /// or `('module', class, ...)` with a model's source.
    fn load_persistent(&mut self) -> Result<(), PickleError> {
        let id = self.pop()?;
        let Value::Tuple(parts) = &self.values[id] else {
            return Err(self.malformed("a storage's description"));
        };
        let parts = parts.clone();
        let tag = parts.first().map(|&tag| &self.values[tag]);
        match (tag, parts.as_slice()) {
            (Some(Value::Str(tag)), &[_, class, ..]) if &**tag == "module" => self.stack.push(class),
            (Some(Value::Str(tag)), &[_, class, key, _device, elements, ref view @ ..])
                if &**tag == "storage" =>
            {
                let (Value::Global(Global::Storage(numbers)), Value::Str(key), &Value::Int(elements)) =
                    (&self.values[class], &self.values[key], &self.values[elements])
                else {
                    return Err(self.malformed("a storage"));
                };
                let offset = match view.first().map(|&view| &self.values[view]) {
                    None | Some(Value::None) => 0,
                    Some(Value::Tuple(view)) => match view.get(1).map(|&offset| &self.values[offset]) {
                        Some(&Value::Int(offset)) => offset,
                        _ => return Err(self.malformed("a storage's offset in another")),
                    },
                    Some(_) => return Err(self.malformed("a view on a storage")),
                };
                let storage = Storage {
                    key: key.clone(),
                    numbers: numbers.clone(),
                    offset,
                    elements,
                };
                self.storages.insert(key.clone(), numbers.clone());
                self.push(Value::Storage(storage));
            }
            _ => return Err(self.malformed("a storage")),
        }
        Ok(())
    }

    /// The name of a class or function, for messages.
    fn called(&self, function: Id) -> Rc<str> {
        match &self.values[function] {
            Value::Global(global) => global.name(),
            Value::Object { class, .. } => class.clone(),
            other => other.what().into(),
        }
    }

    fn push_object(&mut self, class: Rc<str>) {
        self.push(Value::Object {
            class,
            items: Vec::new(),
        });
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), PickleError> {
        let list = self.top()?;
        match &mut self.values[list] {
            Value::List(list) => list.extend(items),
            Value::Object { .. } => {}
            _ => return Err(self.malformed("a list to append to")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Id>) -> Result<(), PickleError> {
        let dict = self.top()?;
        match &mut self.values[dict] {
            Value::Dict(dict) | Value::Object { items: dict, .. } if items.len().is_multiple_of(2) => {
                dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])))
            }
            _ => return Err(self.malformed("a dict and its items")),
        }
        Ok(())
    }

    /// The items of a list of pairs, as old pickles give an OrderedDict its items, or of a dict.
    fn pairs(&mut self, from: Id) -> Result<Vec<(Id, Id)>, PickleError> {
        let len = match &self.values[from] {
            Value::List(items) => items.len(),
            other => other.items().unwrap_or_default().len(),
        };
        // What is remembered can be named again and again: what it is copied into must not outgrow the file.
        self.copied = self.copied.saturating_add(len);
        if self.copied > self.bytes.len() {
            return Err(self.malformed("fewer copies of a list"));
        }
        let items = match &self.values[from] {
            Value::List(items) => items,
            Value::Dict(items) | Value::Object { items, .. } => return Ok(items.clone()),
            _ => return Err(self.malformed("a list of pairs")),
        };
        let pair = |&item: &Id| match &self.values[item] {
            Value::Tuple(pair) | Value::List(pair) => match pair.as_slice() {
                &[key, value] => Ok((key, value)),
                _ => Err(self.malformed("a pair")),
            },
            _ => Err(self.malformed("a pair")),
        };
        items.iter().map(pair).collect()
    }

    fn integers(&self, tuple: Id) -> Result<Vec<i64>, PickleError> {
        let Value::Tuple(items) = &self.values[tuple] else {
            return Err(self.malformed("a tuple of integers"));
        };
        if items.len() > MAX_DIMENSIONS {
            return Err(self.malformed("at most 64 dimensions"));
        }
        let integer = |&item: &Id| match self.values[item] {
            Value::Int(value) => Ok(value),
            _ => Err(self.malformed("an integer")),
        };
        items.iter().map(integer).collect()
    }

    pub(super) fn malformed(&self, what: &'static str) -> PickleError {
        PickleError::Malformed { at: self.at, what }
    }
}

/// What a call gives.
enum Made {
    New(Value),
    /// A dict with the items of this list or dict.
    Copy(Id),
}
