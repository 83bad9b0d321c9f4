//! Reads the pickle of a saved state dict, and nothing but that.
//!
//! A pickle is a program that may import and call anything. This interpreter knows the few globals that a state dict is made of and
//! takes every other as an opaque value: it calls nothing, and its memory is bounded by the file's length, since values are built
//! from the stack's items and repeated ones are shared by index. What is opaque is no harm unless the network needs it.

mod find;
mod machine;
mod reader;
mod value;

use tch::Kind;
use thiserror::Error;

pub(super) use machine::Machine;
pub(super) use value::{SavedTensor, Value};

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
    /// A Python object stands where the state dict should. Nothing was executed.
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
        what: String,
    },
    /// A checkpoint with more than one state dict.
    #[error("it holds several state dicts, under the keys {}: choose one with --model_state_dict_key", keys.join(", "))]
    Ambiguous {
        /// Their keys.
        keys: Vec<String>,
    },
    /// No dict under the key that was asked for.
    #[error(
        "it holds no dict under the key {key:?} that --model_state_dict_key names; there it holds the keys {}",
        keys.join(", ")
    )]
    NoSuchKey {
        /// The key asked for.
        key: String,
        /// Those that are there, the first of them.
        keys: Vec<String>,
    },
}

/// What a file says it holds.
#[derive(Debug)]
pub(super) struct Saved {
    pub tensors: Vec<(String, SavedTensor, Kind)>,
    /// Names that hold no tensor that can be read, and what they hold.
    pub others: Vec<(String, String)>,
}

/// Reads a state dict, or the one in a checkpoint: under `key` if that is given, else under one of the usual keys.
pub(super) fn read_state_dict(bytes: &[u8], key: Option<&str>) -> Result<Saved, PickleError> {
    let mut machine = Machine::new(bytes);
    let top = machine.run()?;
    machine.state_dict(top, key)
}
