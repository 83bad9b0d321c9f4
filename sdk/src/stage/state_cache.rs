//! What a worker knows of state and side inputs from earlier bundles.

use std::any::Any;
use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use purlin_model::Window;
use purlin_proto::fn_execution::{StateKey, state_key};
use rustc_hash::{FxHashMap, FxHashSet};

use super::finalize::Finalizers;

pub(crate) type AnyValue = Arc<dyn Any + Send + Sync>;

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct SideKey {
    pub transform: String,
    pub tag: String,
    pub window: Window,
}

/// So many side-input windows are kept; one that is gone is read again.
const SIDE_INPUTS: usize = 4096;
/// State of about so many bytes is kept; what is gone is read again.
const STATE_BYTES: usize = 128 << 20;
/// What an entry costs besides its bytes.
const ENTRY_BYTES: usize = 96;

/// What all executors of a worker share: caches of side inputs and state, and callbacks that wait for a commit.
#[derive(Default)]
pub struct WorkerShared {
    side_inputs: Mutex<FxHashMap<SideKey, (Bytes, AnyValue)>>,
    state: Mutex<StateCache>,
    pub(crate) finalizers: Finalizers,
    /// Stages of which the last bundle has failed, by descriptor.
    failed: Mutex<FxHashSet<String>>,
}

impl WorkerShared {
    /// Calls the finalizers of a bundle whose output is durable.
    ///
    /// # Errors
    /// What the finalizers that failed say.
    pub fn finalize(&self, instruction: &str) -> Result<(), String> {
        self.finalizers.call(instruction)
    }

    /// Whether the last bundle of this stage has failed.
    pub(crate) fn has_failed(&self, stage: &str) -> bool {
        self.failed.lock().contains(stage)
    }

    /// A bundle of this stage has ended.
    pub(crate) fn ended(&self, stage: &str, failed: bool) {
        let mut all = self.failed.lock();
        match failed {
            true => all.insert(stage.to_owned()),
            false => all.remove(stage),
        };
    }

    pub(crate) fn side_input(&self, key: &SideKey, token: &Bytes) -> Option<AnyValue> {
        let values = self.side_inputs.lock();
        values
            .get(key)
            .filter(|(t, _)| t == token)
            .map(|(_, value)| value.clone())
    }

    pub(crate) fn put_side_input(&self, key: SideKey, token: Bytes, value: AnyValue) {
        let mut values = self.side_inputs.lock();
        if values.len() >= SIDE_INPUTS {
            values.clear();
        }
        values.insert(key, (token, value));
    }

    pub(crate) fn state(&self, key: &Bytes, token: &Bytes) -> Option<Bytes> {
        self.state.lock().get(key, token)
    }

    /// `None` forgets what was known.
    pub(crate) fn put_state(&self, key: Bytes, token: Bytes, data: Option<Bytes>) {
        let mut state = self.state.lock();
        match data {
            Some(data) => state.put(key, token, data, STATE_BYTES),
            None => state.forget(&key),
        }
    }
}

/// The name of a state in the cache.
pub(crate) fn cache_key(key: &state_key::Type) -> Bytes {
    let key = StateKey {
        r#type: Some(key.clone()),
    };
    key.encode_to_vec().into()
}

/// Values in two generations: when the young one holds half of the budget, it becomes the old one, and the old one,
/// which nobody has asked for since, is dropped.
#[derive(Default)]
struct StateCache {
    young: Generation,
    young_bytes: usize,
    old: Generation,
}

/// By state key: the token under which the value is good, and the value.
type Generation = FxHashMap<Bytes, (Bytes, Bytes)>;

impl StateCache {
    fn get(&mut self, key: &Bytes, token: &Bytes) -> Option<Bytes> {
        if let Some((good, data)) = self.young.get(key) {
            return (good == token).then(|| data.clone());
        }
        let (good, data) = self.old.remove(key)?;
        if good != *token {
            return None;
        }
        self.put(key.clone(), good, data.clone(), STATE_BYTES);
        Some(data)
    }

    fn put(&mut self, key: Bytes, token: Bytes, data: Bytes, budget: usize) {
        self.old.remove(&key);
        self.young_bytes += key.len() + data.len() + ENTRY_BYTES;
        if let Some((_, before)) = self.young.insert(key.clone(), (token, data)) {
            self.young_bytes = self
                .young_bytes
                .saturating_sub(key.len() + before.len() + ENTRY_BYTES);
        }
        if self.young_bytes > budget / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }

    fn forget(&mut self, key: &Bytes) {
        self.old.remove(key);
        if let Some((_, data)) = self.young.remove(key) {
            self.young_bytes = self
                .young_bytes
                .saturating_sub(key.len() + data.len() + ENTRY_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn a_value_is_good_under_its_token_only() {
        let mut cache = StateCache::default();
        cache.put(bytes("k"), bytes("1"), bytes("v"), 1000);
        assert_eq!(cache.get(&bytes("k"), &bytes("1")), Some(bytes("v")));
        assert_eq!(cache.get(&bytes("k"), &bytes("2")), None);
        cache.forget(&bytes("k"));
        assert_eq!(cache.get(&bytes("k"), &bytes("1")), None);
        assert_eq!(cache.young_bytes, 0);
    }

    #[test]
    fn what_is_used_outlives_what_is_not() {
        let mut cache = StateCache::default();
        let token = bytes("t");
        for number in 0..1000 {
            cache.put(bytes(&format!("{number}")), token.clone(), bytes("value"), 10_000);
            assert_eq!(cache.get(&bytes("0"), &token), Some(bytes("value")), "{number}");
            assert!(cache.young_bytes <= 5_000 + 200);
        }
        assert!(cache.young.len() + cache.old.len() < 110);
        assert_eq!(cache.get(&bytes("500"), &token), None);
    }
}
