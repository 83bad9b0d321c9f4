//! What engine, runner and SDK must agree on: time, windows, window functions, triggers, panes and Beam's coders.
//!
//! Everything here is pure: bytes in, bytes out. There are two views of an encoding:
//!
//! - [`Coder`] is what a runner knows of an encoding's structure. It finds where a value ends ([`Coder::skip`]),
//!   where a key ends inside a pair ([`Coder::split_kv`]) and where each element of a data buffer starts
//!   ([`Walker`]), without making objects of the values.
//! - [`Element`] is a Rust type that knows its own coder; the SDK encodes and decodes user data through it.
//!
//! [`Value`] stands between them: dynamic data of any standard coder, rows included.
//!
//! Beam's two contexts are the parameter `nested`: in the outer context (`nested == false`) a value may run to the
//! end of the input, in the nested one it must tell its own end. Elements on the data plane, keys, and everything
//! inside another coder except the last component of a pair are nested.
//!
//! ```
//! use purlin_model::{Coder, Element};
//!
//! let mut encoded = Vec::new();
//! ("abc".to_string(), 10i64).encode(&mut encoded, true);
//! assert_eq!(encoded, b"\x03abc\x0a");
//!
//! let coder = Coder::kv(Coder::Utf8, Coder::VarInt);
//! let (key, value) = coder.split_kv(&encoded)?;
//! assert_eq!((key, value), (&b"\x03abc"[..], &b"\x0a"[..]));
//! # Ok::<(), purlin_model::DecodeError>(())
//! ```

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
// What a client, a worker or a file says is answered with an error, never with a panic; and programs say what they have to say in
// their logs.
#![cfg_attr(
    not(test),
    warn(
        clippy::expect_used,
        clippy::panic,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

extern crate alloc;

pub mod backed;
pub mod coder;
pub mod error;
pub mod metric;
pub mod pane;
pub mod schema;
pub mod spec;
pub mod state_rules;
pub mod strategy;
pub mod time;
pub mod timer;
pub mod trigger;
pub mod typed;
pub mod urns;
pub mod value;
pub mod walk;
pub mod window;
pub mod window_fn;
pub mod windowed;
pub mod wire;

pub use coder::Coder;
pub use error::{CoderError, DecodeError, EncodeError, SchemaError};
pub use pane::{PaneInfo, Timing};
pub use schema::{Field, FieldKind, FieldType, LogicalArgument, LogicalType, Schema};
pub use spec::CoderSpec;
pub use strategy::{Accumulation, PaneEmission, TimestampCombiner};
pub use time::Timestamp;
pub use timer::{Timer, TimerCoder, TimerFiring};
pub use trigger::{AfterEndOfWindow, TimestampTransform, Trigger};
pub use typed::{Element, Serde};
pub use value::Value;
pub use walk::{WalkedElement, Walker};
pub use window::{Window, WindowCoder, Windows};
pub use window_fn::{CustomWindows, WindowFn, expiry};
pub use windowed::{Header, ParamWindowedValueCoder, WindowedValueCoder, WindowedValueRef};
