//! Finds the state dict in what a file holds.

use std::collections::{HashMap, HashSet};

use super::value::{Id, Value};
use super::{Machine, PickleError, Saved};

/// Keys under which training scripts keep a state dict in a checkpoint.
const WRAPPERS: [&str; 15] = [
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
    "network",
    "params",
    "weights",
    "ema",
    "model_ema",
    "params_ema",
    "state_dict_ema",
    "ema_state_dict",
    "model_state",
    "net_state_dict",
];

/// Checkpoints nest once, some frameworks two or three times.
const MAX_NESTING: usize = 4;

/// So many keys stand in a message.
const LISTED: usize = 12;

impl Machine<'_> {
    /// The tensors by name of the state dict in `top`: under `key` if that is given, else under one of the usual keys, or `top` itself.
    pub(in crate::weights) fn state_dict(&self, top: Id, key: Option<&str>) -> Result<Saved, PickleError> {
        let mut dict = match key {
            Some(key) => self.under_key(top, key)?,
            None => top,
        };
        for _ in 0..MAX_NESTING {
            match self.wrapped(dict)? {
                Some(inner) => dict = inner,
                None => break,
            }
        }
        if !self.has_tensors(dict)
            && let Some(inner) = self.only_child(dict)?
        {
            dict = inner;
        }
        self.saved(dict)
    }

    fn saved(&self, dict: Id) -> Result<Saved, PickleError> {
        let value = &self.values[dict];
        let Some(items) = value.items() else {
            return Err(match value {
                Value::Object { class, .. } => PickleError::Global {
                    name: class.to_string(),
                },
                other => PickleError::NotAStateDict { what: other.what() },
            });
        };
        let mut saved = Saved {
            tensors: Vec::new(),
            others: Vec::new(),
        };
        let named = self.named(items);
        if named.is_empty() && !items.is_empty() {
            return Err(PickleError::NotAStateDict {
                what: "a dict whose keys are not names".to_owned(),
            });
        }
        for &(name, id) in &named {
            let name = name.to_owned();
            match &self.values[id] {
                Value::Tensor(tensor) => match tensor.storage.numbers.kind {
                    Some(kind) => saved.tensors.push((name, (**tensor).clone(), kind)),
                    None => saved.others.push((name, unread(&tensor.storage.numbers.name))),
                },
                other => saved.others.push((name, other.what())),
            }
        }
        // A whole model was saved rather than its weights.
        if !self.has_tensors(dict) {
            let model = named.iter().find_map(|&(name, id)| match &self.values[id] {
                Value::Object { class, .. } if WRAPPERS.contains(&name) => Some(class.to_string()),
                _ => None,
            });
            if let Some(name) = model {
                return Err(PickleError::Global { name });
            }
        }
        Ok(saved)
    }

    /// The items with names for keys, in their order; of a key that comes twice the last counts, as in Python.
    fn named(&self, items: &[(Id, Id)]) -> Vec<(&str, Id)> {
        let mut places = HashMap::new();
        let mut named: Vec<(&str, Id)> = Vec::new();
        for &(key, value) in items {
            if let Value::Str(name) = &self.values[key] {
                let place = *places.entry(&**name).or_insert(named.len());
                match named.get_mut(place) {
                    Some(item) => item.1 = value,
                    None => named.push((name, value)),
                }
            }
        }
        named
    }

    fn children(&self, dict: Id) -> Vec<(&str, Id)> {
        self.values[dict]
            .items()
            .map(|items| self.named(items))
            .unwrap_or_default()
    }

    /// Follows a key; `a.b` is `b` in the dict under `a`, unless there is a key of that very name.
    fn under_key(&self, top: Id, key: &str) -> Result<Id, PickleError> {
        let mut dict = top;
        let mut rest = key;
        loop {
            let children = self.children(dict);
            let is_dict = |id: Id| self.values[id].items().is_some();
            if let Some(&(_, id)) = children.iter().find(|&&(name, id)| name == rest && is_dict(id)) {
                return Ok(id);
            }
            let step = children.iter().find_map(|&(name, id)| {
                let after = rest.strip_prefix(name)?.strip_prefix('.')?;
                is_dict(id).then_some((id, after))
            });
            match step {
                Some((id, after)) => (dict, rest) = (id, after),
                None => {
                    let names = children.iter().map(|(name, _)| (*name).to_owned());
                    return Err(PickleError::NoSuchKey {
                        key: key.to_owned(),
                        keys: names.take(LISTED).collect(),
                    });
                }
            }
        }
    }

    /// What lies under the one usual key of `dict` that leads to tensors.
    fn wrapped(&self, dict: Id) -> Result<Option<Id>, PickleError> {
        let children = self.children(dict);
        let usual = WRAPPERS.iter().filter_map(|wrapper| {
            children
                .iter()
                .copied()
                .find(|(name, id)| name == wrapper && self.leads_to_tensors(*id))
        });
        one_of(usual.collect())
    }

    /// The one dict in `dict` that holds tensors itself, whatever its key.
    fn only_child(&self, dict: Id) -> Result<Option<Id>, PickleError> {
        let mut known = HashMap::new();
        let mut children = self.children(dict);
        children.retain(|&(_, id)| *known.entry(id).or_insert_with(|| self.has_tensors(id)));
        one_of(children)
    }

    /// Whether some of its items are tensors.
    fn has_tensors(&self, dict: Id) -> bool {
        let tensor = |id: Id| matches!(self.values[id], Value::Tensor(_) | Value::Unread(_));
        let items = self.values[dict].items().unwrap_or_default();
        items.iter().any(|&(_, value)| tensor(value))
    }

    /// Whether it, or a dict in it at any depth, holds tensors.
    fn leads_to_tensors(&self, dict: Id) -> bool {
        let mut seen = HashSet::from([dict]);
        let mut open = vec![dict];
        while let Some(dict) = open.pop() {
            if self.has_tensors(dict) {
                return true;
            }
            let items = self.values[dict].items().unwrap_or_default();
            open.extend(items.iter().map(|&(_, id)| id).filter(|&id| seen.insert(id)));
        }
        false
    }
}

/// The one candidate, if they are all the same dict.
fn one_of(candidates: Vec<(&str, Id)>) -> Result<Option<Id>, PickleError> {
    match candidates.as_slice() {
        [] => Ok(None),
        &[(_, first), ref more @ ..] if more.iter().all(|&(_, id)| id == first) => Ok(Some(first)),
        several => Err(PickleError::Ambiguous {
            keys: several
                .iter()
                .map(|(name, _)| (*name).to_owned())
                .take(LISTED)
                .collect(),
        }),
    }
}

/// How messages call a tensor whose number format is not read.
pub(super) fn unread(numbers: &str) -> String {
    format!("a tensor of {numbers} numbers, which are not read")
}
