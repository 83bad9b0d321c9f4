//! Combiners in steps, so that what can be combined before the grouping is: they are "lifted" above it.
//!
//! Beam's runners for Flink and Spark execute the steps but do not make them: they leave that to SDKs, of which Python's
//! alone does it.

use std::collections::HashMap;

use prost::Message as _;
use purlin_proto::pipeline::{CombinePayload, Components, FunctionSpec, PTransform, Pipeline};
use purlin_proto::urns::coders as coder_urns;
use purlin_proto::urns::transforms as urns;

use super::leaves::{name_of, urn};
use super::rewrite::{coder, environment_of, pair, reachable, remove_unreachable, single, unused};
use super::{roots, windowing};

/// Replaces the parts of each `beam:transform:combine_per_key:v1`, which combine whole groups, by the four steps
/// Precombine, Group, Merge and ExtractOutputs, where Beam's rules allow it: one input and one output, a coder of
/// accumulators, a trigger that does not count elements. A combiner without parts that cannot be lifted gets two, Group
/// and Combine.
///
/// The composite stays around the steps, and what the replaced parts alone needed is removed. What is lifted already, or
/// malformed, is left as it is.
pub fn lift(pipeline: &mut Pipeline) {
    let Some(mut components) = pipeline.components.take() else {
        return;
    };
    let roots = roots(pipeline, &components);
    let before = reachable(&components, &roots);
    // A script's late and timely elements come in one bundle, and its panes tell them apart: they are combined after the
    // grouping has looked at each.
    let scripted = components
        .transforms
        .values()
        .any(|proto| urn(proto) == urns::TEST_STREAM);
    let mut lifted = false;
    for id in &before {
        let Some(combine) = Combine::find(&components, id) else {
            continue;
        };
        if !scripted && combine.can_be_lifted(&components) {
            combine.lift(&mut components);
        } else if combine.is_leaf {
            combine.group_and_combine(&mut components);
        } else {
            continue;
        }
        lifted = true;
    }
    if lifted {
        remove_unreachable(&mut components, &roots, &before);
    }
    pipeline.components = Some(components);
}

/// A combiner of values per key.
struct Combine {
    id: String,
    name: String,
    spec: FunctionSpec,
    environment: String,
    annotations: HashMap<String, bytes::Bytes>,
    is_leaf: bool,
    input: String,
    output: String,
    /// Coders.
    key: String,
    value: String,
    accumulator: String,
}

impl Combine {
    /// None where this is no combiner, a malformed one, or one that is taken apart already.
    fn find(components: &Components, id: &str) -> Option<Combine> {
        let proto = components.transforms.get(id)?;
        if urn(proto) != urns::COMBINE_PER_KEY {
            return None;
        }
        let spec = proto.spec.clone()?;
        let payload = CombinePayload::decode(&spec.payload[..]).ok()?;
        let (input, output) = single(proto)?;
        let (key, value) = pair(components, &components.pcollections.get(&input)?.coder_id)?;
        components.pcollections.get(&output)?;
        let mut parts = proto
            .subtransforms
            .iter()
            .filter_map(|sub| components.transforms.get(sub));
        if parts.any(|part| urn(part) == urns::COMBINE_PER_KEY_PRECOMBINE) {
            return None;
        }
        Some(Combine {
            id: id.to_owned(),
            name: name_of(id, proto).to_owned(),
            spec,
            environment: environment_of(components, id),
            annotations: proto.annotations.clone(),
            is_leaf: proto.subtransforms.is_empty(),
            input,
            output,
            key,
            value,
            accumulator: payload.accumulator_coder_id,
        })
    }

    fn can_be_lifted(&self, components: &Components) -> bool {
        let strategy = components
            .pcollections
            .get(&self.input)
            .and_then(|input| components.windowing_strategies.get(&input.windowing_strategy_id));
        let windowing = strategy.map(windowing::windowing);
        !self.accumulator.is_empty()
            && windowing.is_some_and(|windowing| windowing.is_ok_and(|w| w.trigger.allows_lifting()))
    }

    fn lift(&self, components: &mut Components) {
        let keyed = coder(
            components,
            coder_urns::KV,
            vec![self.key.clone(), self.accumulator.clone()],
        );
        let grouped = self.grouped_coder(components, &self.accumulator);
        let precombined = self.collection(components, &self.input, "precombined", &keyed);
        let grouped = self.collection(components, &self.output, "grouped", &grouped);
        let merged = self.collection(components, &self.output, "merged", &keyed);
        let merge = urns::COMBINE_PER_KEY_MERGE_ACCUMULATORS;
        let extract = urns::COMBINE_PER_KEY_EXTRACT_OUTPUTS;
        self.put(
            components,
            [
                (
                    "Precombine",
                    urns::COMBINE_PER_KEY_PRECOMBINE,
                    &self.input,
                    &precombined,
                ),
                ("Group", urns::GROUP_BY_KEY, &precombined, &grouped),
                ("Merge", merge, &grouped, &merged),
                ("ExtractOutputs", extract, &merged, &self.output),
            ],
        );
    }

    /// For a combiner that its SDK did not expand: whole groups are combined.
    fn group_and_combine(&self, components: &mut Components) {
        let grouped = self.grouped_coder(components, &self.value);
        let grouped = self.collection(components, &self.output, "grouped", &grouped);
        let combine = urns::COMBINE_GROUPED_VALUES;
        self.put(
            components,
            [
                ("Group", urns::GROUP_BY_KEY, &self.input, &grouped),
                ("Combine", combine, &grouped, &self.output),
            ],
        );
    }

    /// The coder of a key and many of these.
    fn grouped_coder(&self, components: &mut Components, of: &str) -> String {
        let iterable = coder(components, coder_urns::ITERABLE, vec![of.to_owned()]);
        coder(components, coder_urns::KV, vec![self.key.clone(), iterable])
    }

    /// A collection like another one, of another coder.
    fn collection(&self, components: &mut Components, like: &str, suffix: &str, coder: &str) -> String {
        let name = format!("{}/{suffix}", self.id);
        let id = unused(&components.pcollections, name.clone());
        let mut collection = components.pcollections.get(like).cloned().unwrap_or_default();
        collection.unique_name = name;
        collection.coder_id = coder.to_owned();
        components.pcollections.insert(id.clone(), collection);
        id
    }

    /// Makes these steps, each of a name, a URN, an input and an output, the parts of the composite.
    fn put<const N: usize>(&self, components: &mut Components, steps: [(&str, &str, &String, &String); N]) {
        let mut parts = Vec::with_capacity(N);
        for (step, urn, input, output) in steps {
            // What the runner does itself has neither a payload nor an environment.
            let native = urn == urns::GROUP_BY_KEY;
            let id = format!("{}/{}", self.id, step.to_lowercase());
            let id = unused(&components.transforms, id);
            let made = PTransform {
                unique_name: format!("{}/{step}", self.name),
                spec: Some(FunctionSpec {
                    urn: urn.to_owned(),
                    payload: if native {
                        bytes::Bytes::new()
                    } else {
                        self.spec.payload.clone()
                    },
                }),
                inputs: HashMap::from([("in".to_owned(), input.clone())]),
                outputs: HashMap::from([("out".to_owned(), output.clone())]),
                environment_id: if native {
                    String::new()
                } else {
                    self.environment.clone()
                },
                annotations: self.annotations.clone(),
                ..PTransform::default()
            };
            components.transforms.insert(id.clone(), made);
            parts.push(id);
        }
        if let Some(composite) = components.transforms.get_mut(&self.id) {
            composite.subtransforms = parts;
        }
    }
}
