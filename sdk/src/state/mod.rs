//! State and timers of keys: typed fields of a [`StatefulDoFn`](crate::StatefulDoFn).
//!
//! Each key has its own state in each window. A field is a handle: it names the state and knows its type; what is
//! stored is read and written through the context of the call.
//!
//! ```
//! use purlin::prelude::*;
//!
//! /// Numbers the values of each key.
//! #[derive(Clone)]
//! struct Number {
//!     next: ValueState<u64>,
//! }
//!
//! impl StatefulDoFn for Number {
//!     type Key = String;
//!     type Value = String;
//!     type Out = (u64, String);
//!     purlin::fields!(next);
//!
//!     fn process(
//!         &mut self,
//!         _key: String,
//!         value: String,
//!         ctx: &mut KeyedContext<'_, (u64, String)>,
//!     ) -> DoFnResult {
//!         let number = self.next.read(ctx)?.unwrap_or(1);
//!         self.next.write(ctx, &(number + 1))?;
//!         ctx.output((number, value));
//!         Ok(())
//!     }
//! }
//!
//! let p = Pipeline::new();
//! p.apply(Create::new([("a".to_string(), "x".to_string())]))
//!     .stateful_par_do("Number", Number { next: ValueState::new("next") });
//! p.run(&PipelineOptions::default())?;
//! # Ok::<(), RunError>(())
//! ```

mod bags;
mod maps;
mod ordered;
mod timer;

use rustc_hash::FxHasher;
use std::any::TypeId;
use std::hash::{BuildHasher, BuildHasherDefault};

pub use bags::{BagState, CombiningState, SetState, ValueState};
pub use maps::{MapState, MultimapState};
pub use ordered::OrderedListState;
pub use timer::{FiredTimer, Timer, TimerRequest};

pub(crate) use crate::stage::FieldKind;
use crate::stage::KeyedState;
pub use crate::stage::{FieldSpec, TimeDomain};

/// A context that knows the key and window whose state is meant.
pub trait Keyed {
    /// The state of the key at hand.
    #[doc(hidden)]
    fn keyed(&mut self) -> &mut KeyedState;
}

/// A state or timer that a [`StatefulDoFn`](crate::StatefulDoFn) declares.
pub trait Field {
    /// What runners are told of it.
    #[doc(hidden)]
    fn spec(&self) -> FieldSpec;
}

/// The fields that a DoFn declares; see [`fields!`](crate::fields).
#[derive(Debug, Default)]
pub struct Fields {
    specs: Vec<FieldSpec>,
}

impl Fields {
    /// Declares a state or timer.
    pub fn add(&mut self, field: &impl Field) -> &mut Fields {
        self.specs.push(field.spec());
        self
    }

    pub(crate) fn into_specs(self) -> Vec<FieldSpec> {
        self.specs
    }
}

/// Declares the states and timers of a [`StatefulDoFn`](crate::StatefulDoFn) inside its `impl`: the names of the
/// struct's fields.
///
/// ```
/// use purlin::prelude::*;
///
/// #[derive(Clone)]
/// struct Buffer {
///     items: BagState<i64>,
///     flush: Timer,
/// }
///
/// impl StatefulDoFn for Buffer {
///     type Key = String;
///     type Value = i64;
///     type Out = Vec<i64>;
///     purlin::fields!(items, flush);
///
///     fn process(
///         &mut self,
///         _key: String,
///         value: i64,
///         ctx: &mut KeyedContext<'_, Vec<i64>>,
///     ) -> DoFnResult {
///         self.items.add(ctx, &value)?;
///         let end = ctx.window().max_timestamp();
///         self.flush.set(ctx, end)
///     }
///
///     fn on_timer(
///         &mut self,
///         _key: String,
///         _timer: &FiredTimer,
///         ctx: &mut KeyedContext<'_, Vec<i64>>,
///     ) -> DoFnResult {
///         let items = self.items.read(ctx)?;
///         self.items.clear(ctx)?;
///         ctx.output(items);
///         Ok(())
///     }
/// }
/// ```
#[macro_export]
macro_rules! fields {
    ($($field:ident),* $(,)?) => {
        fn fields(&self, all: &mut $crate::state::Fields) {
            $(all.add(&self.$field);)*
        }
    };
}

/// The id of a handle: another name or another type is another handle.
pub(crate) fn field_id<H: 'static>(name: &str) -> u64 {
    BuildHasherDefault::<FxHasher>::default().hash_one((name, TypeId::of::<H>()))
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident<$($t:ident),+>) => {
        $(#[$doc])*
        pub struct $name<$($t),+> {
            id: u64,
            name: std::sync::Arc<str>,
            queryable: bool,
            types: std::marker::PhantomData<fn() -> ($($t,)+)>,
        }

        impl<$($t),+> Clone for $name<$($t),+> {
            fn clone(&self) -> Self {
                $name {
                    id: self.id,
                    name: self.name.clone(),
                    queryable: self.queryable,
                    types: std::marker::PhantomData,
                }
            }
        }

        impl<$($t),+> std::fmt::Debug for $name<$($t),+> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({})", stringify!($name), self.name)
            }
        }

        impl<$($t: 'static),+> $name<$($t),+> {
            /// The handle of a state of this name. Names of one DoFn's states and timers must differ.
            pub fn new(name: &str) -> Self {
                $name {
                    id: $crate::state::field_id::<Self>(name),
                    name: name.into(),
                    queryable: false,
                    types: std::marker::PhantomData,
                }
            }

            /// As `new`, of a state that others can read while the job runs, by HTTP: Purlin's job service on its web port, and an
            /// embedded run with `--state_port`. Runners of others pass over it.
            pub fn queryable(name: &str) -> Self {
                $name { queryable: true, ..Self::new(name) }
            }
        }
    };
}
use handle;
