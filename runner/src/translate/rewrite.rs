//! What passes over a pipeline proto share: they put other transforms in the place of some, and leave nothing behind.

use std::collections::{HashMap, HashSet};

use purlin_proto::pipeline::{Coder, Components, FunctionSpec, PTransform};
use purlin_proto::urns::coders as urns;

/// Transforms that [`environment_of`] looks at, at most: more are a forged pipeline's.
const MAX_PARTS: usize = 200;

/// The only input and the only output of a transform; none where it has more or fewer.
pub(super) fn single(proto: &PTransform) -> Option<(String, String)> {
    let (1, 1) = (proto.inputs.len(), proto.outputs.len()) else {
        return None;
    };
    Some((
        proto.inputs.values().next()?.clone(),
        proto.outputs.values().next()?.clone(),
    ))
}

/// A URN and its payload.
pub(super) fn spec(urn: &str, payload: Vec<u8>) -> Option<FunctionSpec> {
    Some(FunctionSpec {
        urn: urn.to_owned(),
        payload: payload.into(),
    })
}

/// This id, or one like it, which the map does not have yet.
pub(super) fn unused<V>(taken: &HashMap<String, V>, mut id: String) -> String {
    while taken.contains_key(&id) {
        id.push('_');
    }
    id
}

/// The coders of key and value, where this is the coder of a pair.
pub(super) fn pair(components: &Components, id: &str) -> Option<(String, String)> {
    let coder = components.coders.get(id)?;
    match coder.component_coder_ids.as_slice() {
        [key, value] if coder.spec.as_ref()?.urn == urns::KV => Some((key.clone(), value.clone())),
        _ => None,
    }
}

/// The id of a coder of these parts, which is added where the pipeline has none that an earlier call added.
pub(super) fn coder(components: &mut Components, urn: &str, parts: Vec<String>) -> String {
    let short = urn.trim_start_matches("beam:coder:").trim_end_matches(":v1");
    let coder = Coder {
        spec: spec(urn, Vec::new()),
        component_coder_ids: parts,
    };
    let first = coder.component_coder_ids.first().map_or("", String::as_str);
    let mut id = format!("purlin:{short}:{}", first.trim_start_matches("purlin:"));
    while components.coders.get(&id).is_some_and(|taken| *taken != coder) {
        id.push('_');
    }
    components.coders.insert(id.clone(), coder);
    id
}

/// The environment of a transform; of a composite that names none, the first that one of its parts names.
pub(super) fn environment_of(components: &Components, id: &str) -> String {
    let mut at = vec![id];
    let mut looked_at = 0;
    while let Some(id) = at.pop() {
        let Some(proto) = components.transforms.get(id) else {
            continue;
        };
        if !proto.environment_id.is_empty() {
            return proto.environment_id.clone();
        }
        looked_at += 1;
        if looked_at < MAX_PARTS {
            at.extend(proto.subtransforms.iter().map(String::as_str));
        }
    }
    String::new()
}

/// The transforms below these roots, parents before their parts, in the order of the pipeline.
pub(super) fn reachable(components: &Components, roots: &[String]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut seen = HashSet::new();
    let mut to_visit: Vec<&String> = roots.iter().rev().collect();
    while let Some(id) = to_visit.pop() {
        if let Some((id, proto)) = components.transforms.get_key_value(id)
            && seen.insert(id)
        {
            order.push(id.clone());
            to_visit.extend(proto.subtransforms.iter().rev());
        }
    }
    order
}

/// Removes those of `before` that the roots do not reach any more, with the PCollections that they alone name: runners
/// that look at all components would take them for part of the pipeline.
pub(super) fn remove_unreachable(components: &mut Components, roots: &[String], before: &[String]) {
    let still: HashSet<String> = reachable(components, roots).into_iter().collect();
    let gone = before.iter().filter(|id| !still.contains(*id));
    let gone: Vec<PTransform> = gone.filter_map(|id| components.transforms.remove(id)).collect();
    let named: HashSet<&String> = components.transforms.values().flat_map(collections).collect();
    for id in gone.iter().flat_map(collections) {
        if !named.contains(id) {
            components.pcollections.remove(id);
        }
    }
}

fn collections(proto: &PTransform) -> impl Iterator<Item = &String> {
    proto.inputs.values().chain(proto.outputs.values())
}
