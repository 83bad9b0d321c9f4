//! A pickle's bytes and its stack.

use std::rc::Rc;

use super::PickleError;
use super::machine::Machine;
use super::value::{Id, Value};

impl<'a> Machine<'a> {
    // The stack.

    pub(super) fn push(&mut self, value: Value) {
        self.values.push(value);
        self.stack.push(self.values.len() - 1);
    }

    /// Below this height lie the items before the last mark.
    pub(super) fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn top(&self) -> Result<Id, PickleError> {
        match self.stack.last() {
            Some(&top) if self.stack.len() > self.floor() => Ok(top),
            _ => Err(self.malformed("a value on the stack")),
        }
    }

    pub(super) fn pop(&mut self) -> Result<Id, PickleError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    pub(super) fn pop_str(&mut self) -> Result<Rc<str>, PickleError> {
        let id = self.pop()?;
        match &self.values[id] {
            Value::Str(text) => Ok(text.clone()),
            _ => Err(self.malformed("a name")),
        }
    }

    pub(super) fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or(self.malformed("a mark"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    pub(super) fn remember(&mut self, index: u32) -> Result<(), PickleError> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    pub(super) fn recall(&mut self, index: u32) -> Result<(), PickleError> {
        let id = *self
            .memo
            .get(&index)
            .ok_or(self.malformed("a remembered value"))?;
        self.stack.push(id);
        Ok(())
    }

    // The bytes.

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(len).ok_or(PickleError::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(PickleError::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, PickleError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32, PickleError> {
        let bytes = self.take(4)?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u32::from(byte)))
    }

    /// A length of `width` bytes, little-endian.
    pub(super) fn length(&mut self, width: usize) -> Result<usize, PickleError> {
        let bytes = self.take(width)?;
        let value = bytes
            .iter()
            .rev()
            .fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        usize::try_from(value).map_err(|_| PickleError::Truncated)
    }

    /// A text line, as `GLOBAL` has them.
    pub(super) fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or(PickleError::Truncated)?;
        let line = self.take(len)?;
        self.at += 1;
        std::str::from_utf8(line).map_err(|_| self.malformed("UTF-8 text"))
    }

    /// A number in text, as protocols 0 and 1 have them; `00` and `01` are bools.
    pub(super) fn push_text_int(&mut self) -> Result<(), PickleError> {
        let value = match self.line()? {
            "00" => Value::Bool(false),
            "01" => Value::Bool(true),
            number => number
                .trim_end_matches('L')
                .parse()
                .map_or(Value::Float, Value::Int),
        };
        self.push(value);
        Ok(())
    }

    /// A memo's number in text.
    pub(super) fn index(&mut self) -> Result<u32, PickleError> {
        let line = self.line()?;
        line.parse().map_err(|_| self.malformed("a memo's number"))
    }

    /// A two's complement integer of `width` bytes, little-endian.
    pub(super) fn push_int(&mut self, width: usize) -> Result<(), PickleError> {
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

    pub(super) fn push_uint(&mut self, width: usize) -> Result<(), PickleError> {
        let value = self.length(width)? as i64;
        self.push(Value::Int(value));
        Ok(())
    }

    pub(super) fn push_str(&mut self, width: usize) -> Result<(), PickleError> {
        let len = self.length(width)?;
        let bytes = self.take(len)?;
        // What is no text is no name of a tensor either.
        self.push(match std::str::from_utf8(bytes) {
            Ok(text) => Value::Str(text.into()),
            Err(_) => Value::Bytes,
        });
        Ok(())
    }

    pub(super) fn push_bytes(&mut self, width: usize) -> Result<(), PickleError> {
        let len = self.length(width)?;
        self.take(len)?;
        self.push(Value::Bytes);
        Ok(())
    }
}
