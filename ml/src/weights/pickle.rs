//! Reads the pickle of a saved state dict, and nothing but that.
//!
//! A pickle is a program that may import and call anything. This interpreter knows the few globals that a state dict is made of and
//! refuses every other by name; it calls nothing, and its memory is bounded by the file's length, since values are built from the
//! stack's items and repeated ones are shared by index.

use std::collections::HashMap;
use std::rc::Rc;

use tch::Kind;
use thiserror::Error;

/// What is wrong with a pickle.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PickleError {
    /// The bytes end before the program does.
    #[error("its description of tensors is cut off")]
    Truncated,
    /// An instruction that `torch.save` does not write.
    #[error("its description of tensors has the unknown instruction {opcode:#04x} at byte {at}")]
    Opcode {
        /// The instruction.
        opcode: u8,
        /// Its place.
        at: usize,
    },
    /// An instruction that does not fit what came before.
    #[error("its description of tensors is damaged at byte {at}: {what}")]
    Malformed {
        /// The place.
        at: usize,
        /// What was expected.
        what: &'static str,
    },
    /// A class or function that no state dict needs. Nothing was executed.
    #[error(
        "it holds the Python object {name}, which is more than tensors, and was not read: save the weights alone, with \
         torch.save(model.state_dict(), path)"
    )]
    Global {
        /// Module and name.
        name: String,
    },
    /// The file holds something else than a dict of tensors.
    #[error(
        "it holds {what} rather than a dict of tensors: save it with torch.save(model.state_dict(), path)"
    )]
    NotAStateDict {
        /// What it holds.
        what: &'static str,
    },
}

/// A storage: a run of numbers in a member of the archive.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    pub key: Rc<str>,
    pub kind: Kind,
    pub elements: i64,
}

/// A strided view on a storage.
#[derive(Debug, Clone)]
pub(super) struct SavedTensor {
    pub storage: Storage,
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

/// What a file says it holds.
#[derive(Debug)]
pub(super) struct Saved {
    pub tensors: Vec<(String, SavedTensor)>,
    /// Names that hold no tensor, and what they hold.
    pub others: Vec<(String, &'static str)>,
}

/// Keys under which training scripts keep the state dict in a checkpoint.
const NESTED: [&str; 3] = ["state_dict", "model", "model_state_dict"];

/// Reads a state dict, or one nested in a checkpoint under `state_dict` or `model`.
pub(super) fn read_state_dict(bytes: &[u8]) -> Result<Saved, PickleError> {
    let mut machine = Machine {
        bytes,
        at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        copied: 0,
    };
    let mut top = machine.run()?;
    // Checkpoints nest once, some frameworks twice.
    for _ in 0..3 {
        let Some(Value::Dict(items)) = machine.values.get(top) else {
            break;
        };
        let nested = NESTED.iter().find_map(|key| {
            items
                .iter()
                .find_map(|&(k, v)| match (&machine.values[k], &machine.values[v]) {
                    (Value::Str(name), Value::Dict(_)) if &**name == *key => Some(v),
                    _ => None,
                })
        });
        let Some(inner) = nested else { break };
        top = inner;
    }
    let Some(Value::Dict(items)) = machine.values.get(top) else {
        return Err(PickleError::NotAStateDict {
            what: machine.values.get(top).map_or("nothing", Value::what),
        });
    };
    let mut saved = Saved {
        tensors: Vec::new(),
        others: Vec::new(),
    };
    for &(key, value) in items {
        let Value::Str(name) = &machine.values[key] else {
            return Err(PickleError::NotAStateDict {
                what: "a dict whose keys are not names",
            });
        };
        match &machine.values[value] {
            Value::Tensor(tensor) => saved.tensors.push((name.to_string(), tensor.clone())),
            other => saved.others.push((name.to_string(), other.what())),
        }
    }
    Ok(saved)
}

/// The globals that are known.
#[derive(Debug, Clone, Copy)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Kind),
}

impl Global {
    fn known(module: &str, name: &str) -> Option<Global> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch" | "torch.storage" | "torch.cuda", storage) => Global::Storage(match storage {
                "DoubleStorage" => Kind::Double,
                "FloatStorage" => Kind::Float,
                "HalfStorage" => Kind::Half,
                "BFloat16Storage" => Kind::BFloat16,
                "LongStorage" => Kind::Int64,
                "IntStorage" => Kind::Int,
                "ShortStorage" => Kind::Int16,
                "CharStorage" => Kind::Int8,
                "ByteStorage" => Kind::Uint8,
                "BoolStorage" => Kind::Bool,
                _ => return None,
            }),
            _ => return None,
        })
    }
}

/// libtorch takes no more.
const MAX_DIMENSIONS: usize = 64;

/// An index into `Machine::values`.
type Id = usize;

#[derive(Debug)]
enum Value {
    None,
    Bool,
    Int(i64),
    Float,
    Str(Rc<str>),
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Set,
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage),
    Tensor(SavedTensor),
}

impl Value {
    fn what(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool => "a bool",
            Value::Int(_) => "a number",
            Value::Float => "a float",
            Value::Str(_) => "a string",
            Value::Bytes => "bytes",
            Value::Tuple(_) => "a tuple",
            Value::List(_) => "a list",
            Value::Set => "a set",
            Value::Dict(_) => "a dict",
            Value::Global(_) => "a class",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a single tensor",
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Items copied out of lists so far.
    copied: usize,
}

impl<'a> Machine<'a> {
    /// Runs to the end and gives the value that is left.
    fn run(&mut self) -> Result<Id, PickleError> {
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
                0x88 | 0x89 => self.push(Value::Bool),
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
                0x91 => {
                    self.pop_mark()?;
                    self.push(Value::Set);
                }
                b'c' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    self.push_global(module, name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop_str()?, self.pop_str()?);
                    self.push_global(&module, &name)?;
                }
                b'R' | 0x81 => self.call()?,
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

    /// `REDUCE` and `NEWOBJ`: a known function with its arguments.
    fn call(&mut self) -> Result<(), PickleError> {
        let arguments = self.pop()?;
        let function = self.pop()?;
        let (Value::Tuple(arguments), Value::Global(function)) =
            (&self.values[arguments], &self.values[function])
        else {
            return Err(self.malformed("a function and its arguments"));
        };
        let made = match (*function, arguments.as_slice()) {
            (Global::OrderedDict, []) => Value::Dict(Vec::new()),
            (Global::OrderedDict, &[list]) => Value::Dict(self.pairs(list)?),
            (Global::RebuildParameter, [tensor, ..]) => match &self.values[*tensor] {
                Value::Tensor(tensor) => Value::Tensor(tensor.clone()),
                _ => return Err(self.malformed("a parameter's tensor")),
            },
            (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                let (Value::Storage(storage), &Value::Int(offset)) =
                    (&self.values[*storage], &self.values[*offset])
                else {
                    return Err(self.malformed("a tensor's storage and offset"));
                };
                let (shape, strides) = (self.integers(*shape)?, self.integers(*strides)?);
                if shape.len() != strides.len() {
                    return Err(self.malformed("as many strides as dimensions"));
                }
                Value::Tensor(SavedTensor {
                    storage: storage.clone(),
                    offset,
                    shape,
                    strides,
                })
            }
            _ => return Err(self.malformed("a tensor's or dict's arguments")),
        };
        self.push(made);
        Ok(())
    }

    /// `BUILD`: attributes of an object. A state dict carries `_metadata` this way, which inference does not need.
    fn build(&mut self) -> Result<(), PickleError> {
        self.pop()?;
        let object = self.top()?;
        match self.values[object] {
            Value::Dict(_) | Value::Tensor(_) => Ok(()),
            _ => Err(self.malformed("a dict with attributes")),
        }
    }

    /// A persistent id: `('storage', type, key, device, elements)`.
    fn load_persistent(&mut self) -> Result<(), PickleError> {
        let id = self.pop()?;
        let Value::Tuple(parts) = &self.values[id] else {
            return Err(self.malformed("a storage's description"));
        };
        let &[tag, class, key, _device, elements] = parts.as_slice() else {
            return Err(self.malformed("a storage's five parts"));
        };
        let storage = match (
            &self.values[tag],
            &self.values[class],
            &self.values[key],
            &self.values[elements],
        ) {
            (
                Value::Str(tag),
                Value::Global(Global::Storage(kind)),
                Value::Str(key),
                &Value::Int(elements),
            ) if &**tag == "storage" => Storage {
                key: key.clone(),
                kind: *kind,
                elements,
            },
            _ => return Err(self.malformed("a storage")),
        };
        self.push(Value::Storage(storage));
        Ok(())
    }

    fn push_global(&mut self, module: &str, name: &str) -> Result<(), PickleError> {
        match Global::known(module, name) {
            Some(global) => {
                self.push(Value::Global(global));
                Ok(())
            }
            None => Err(PickleError::Global {
                name: format!("{module}.{name}"),
            }),
        }
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), PickleError> {
        let list = self.top()?;
        match &mut self.values[list] {
            Value::List(list) => list.extend(items),
            _ => return Err(self.malformed("a list to append to")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Id>) -> Result<(), PickleError> {
        let dict = self.top()?;
        match &mut self.values[dict] {
            Value::Dict(dict) if items.len().is_multiple_of(2) => {
                dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])))
            }
            _ => return Err(self.malformed("a dict and its items")),
        }
        Ok(())
    }

    /// A list of pairs, as old pickles give an OrderedDict its items.
    fn pairs(&mut self, list: Id) -> Result<Vec<(Id, Id)>, PickleError> {
        let Value::List(items) = &self.values[list] else {
            return Err(self.malformed("a list of pairs"));
        };
        // A remembered list can be named again and again: what it is copied into must not outgrow the file.
        self.copied = self.copied.saturating_add(items.len());
        if self.copied > self.bytes.len() {
            return Err(self.malformed("fewer copies of a list"));
        }
        let Value::List(items) = &self.values[list] else {
            return Err(self.malformed("a list of pairs"));
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

    fn malformed(&self, what: &'static str) -> PickleError {
        PickleError::Malformed { at: self.at, what }
    }

    // The stack.

    fn push(&mut self, value: Value) {
        self.values.push(value);
        self.stack.push(self.values.len() - 1);
    }

    /// Below this height lie the items before the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id, PickleError> {
        match self.stack.last() {
            Some(&top) if self.stack.len() > self.floor() => Ok(top),
            _ => Err(self.malformed("a value on the stack")),
        }
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_str(&mut self) -> Result<Rc<str>, PickleError> {
        let id = self.pop()?;
        match &self.values[id] {
            Value::Str(text) => Ok(text.clone()),
            _ => Err(self.malformed("a name")),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or(self.malformed("a mark"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn remember(&mut self, index: u32) -> Result<(), PickleError> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), PickleError> {
        let id = *self
            .memo
            .get(&index)
            .ok_or(self.malformed("a remembered value"))?;
        self.stack.push(id);
        Ok(())
    }

    // The bytes.

    fn take(&mut self, len: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(len).ok_or(PickleError::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(PickleError::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, PickleError> {
        let bytes = self.take(4)?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u32::from(byte)))
    }

    /// A length of `width` bytes, little-endian.
    fn length(&mut self, width: usize) -> Result<usize, PickleError> {
        let bytes = self.take(width)?;
        let value = bytes
            .iter()
            .rev()
            .fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        usize::try_from(value).map_err(|_| PickleError::Truncated)
    }

    /// A text line, as `GLOBAL` has them.
    fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or(PickleError::Truncated)?;
        let line = self.take(len)?;
        self.at += 1;
        std::str::from_utf8(line).map_err(|_| self.malformed("UTF-8 text"))
    }

    /// A two's complement integer of `width` bytes, little-endian.
    fn push_int(&mut self, width: usize) -> Result<(), PickleError> {
        let bytes = self.take(width)?;
        if width > 8 {
            // Numbers beyond 64 bits occur in checkpoints (seeds, say), never in tensors.
            self.push(Value::Float);
            return Ok(());
        }
        let negative = bytes.last().is_some_and(|&byte| byte & 0x80 != 0);
        let start = if negative { -1i64 } else { 0 };
        let value = bytes
            .iter()
            .rev()
            .fold(start, |value, &byte| value << 8 | i64::from(byte));
        self.push(Value::Int(value));
        Ok(())
    }

    fn push_uint(&mut self, width: usize) -> Result<(), PickleError> {
        let value = self.length(width)? as i64;
        self.push(Value::Int(value));
        Ok(())
    }

    fn push_str(&mut self, width: usize) -> Result<(), PickleError> {
        let len = self.length(width)?;
        let bytes = self.take(len)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.malformed("UTF-8 text"))?;
        self.push(Value::Str(text.into()));
        Ok(())
    }

    fn push_bytes(&mut self, width: usize) -> Result<(), PickleError> {
        let len = self.length(width)?;
        self.take(len)?;
        self.push(Value::Bytes);
        Ok(())
    }
}
