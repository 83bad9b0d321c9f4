//! Hash maps without a random seed: what is in them stands in the same order in every run. Where what is done depends on
//! an order, a `BTreeMap` says which.

use rustc_hash::FxBuildHasher;

pub(crate) type FxHashMap<K, V> = hashbrown::HashMap<K, V, FxBuildHasher>;
pub(crate) type FxHashSet<T> = hashbrown::HashSet<T, FxBuildHasher>;
