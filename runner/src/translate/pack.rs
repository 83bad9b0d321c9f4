//! Combiners that Python asks to have packed: siblings per key become one, so that their input is grouped once.
//!
//! Python's portable runner does so itself for batch jobs; where it does not, a runner may, in an environment with the
//! capability `beam:combinefn:packed_python:v1` and below a transform with the annotation
//! `beam:annotation:apply_combiner_packing:v1`. There is no wire format for a packed combiner: it is a pickle that
//! names Python's own combiner of tuples and holds the pickles of its parts.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;

use bytes::Bytes;
use prost::Message as _;
use purlin_proto::pipeline::{self, Components, FunctionSpec, PTransform, Pipeline};
use purlin_proto::urns::coders as coder_urns;
use purlin_proto::urns::transforms as urns;

use super::leaves::{name_of, urn};
use super::rewrite::{coder, environment_of, pair, reachable, remove_unreachable, single, spec, unused};
use super::roots;

const CAPABILITY: &str = "beam:combinefn:packed_python:v1";
const ANNOTATION: &str = "beam:annotation:apply_combiner_packing:v1";
const PICKLED_COMBINE_FN: &str = "beam:combinefn:pickled_python:v1";
const PICKLED_DO_FN: &str = "beam:dofn:pickled_python_info:v1";
const KEY_WITH_NONE: &str = "beam:dofn:python_key_with_none:v1";
const TUPLE_CODER: &str = "beam:coder:tuple:v1";

/// Combiners in one pack, where the annotation does not say.
const LIMIT: usize = 128;
/// Composites nested deeper are a forged pipeline's, which is found out elsewhere.
const MAX_DEPTH: usize = 200;

/// Packs sibling combiners, where the pipeline asks for it. For batch jobs: Beam's runners do not pack in streaming ones.
pub fn pack(pipeline: &mut Pipeline) {
    let annotated = |proto: &PTransform| proto.annotations.contains_key(ANNOTATION);
    let Some(components) = pipeline
        .components
        .take_if(|components| components.transforms.values().any(annotated))
    else {
        return;
    };
    let roots = roots(pipeline, &components);
    let mut packer = Packer::new(components, &roots);
    packer.share_keys();
    packer.pack_all();
    let Packer {
        mut components,
        changed,
        order,
        ..
    } = packer;
    if changed {
        remove_unreachable(&mut components, &roots, &order);
    }
    pipeline.components = Some(components);
}

struct Packer {
    components: Components,
    parents: HashMap<String, String>,
    /// As in the tree of composites, from its roots.
    order: Vec<String>,
    changed: bool,
}

/// A combiner that can be packed.
struct Part {
    id: String,
    output: String,
    function: Bytes,
    accumulator: String,
}

impl Packer {
    fn new(components: Components, roots: &[String]) -> Self {
        let mut parents = HashMap::new();
        for (id, proto) in &components.transforms {
            parents.extend(proto.subtransforms.iter().map(|sub| (sub.clone(), id.clone())));
        }
        let order = reachable(&components, roots);
        Packer {
            parents,
            order,
            components,
            changed: false,
        }
    }

    /// How many combiners a pack may have here; 0 where packing is not asked for.
    fn limit(&self, id: &str) -> usize {
        let mut at = id;
        for _ in 0..MAX_DEPTH {
            let annotation = self
                .components
                .transforms
                .get(at)
                .and_then(|proto| proto.annotations.get(ANNOTATION));
            if let Some(limit) = annotation {
                let limit = std::str::from_utf8(limit)
                    .ok()
                    .and_then(|text| text.trim().parse().ok());
                return limit.unwrap_or(LIMIT);
            }
            match self.parents.get(at) {
                Some(parent) => at = parent,
                None => break,
            }
        }
        0
    }

    /// Siblings that pair the same elements with the same key of nothing: one does for all.
    fn share_keys(&mut self) {
        let mut groups: BTreeMap<(String, String, String), Vec<(String, String)>> = BTreeMap::new();
        for id in &self.order {
            let proto = &self.components.transforms[id];
            let Some((input, output)) = single(proto).filter(|_| urn(proto) == urns::PAR_DO) else {
                continue;
            };
            let pardo = proto
                .spec
                .as_ref()
                .and_then(|spec| pipeline::ParDoPayload::decode(&spec.payload[..]).ok());
            let keys = pardo
                .and_then(|pardo| pardo.do_fn)
                .is_some_and(|f| f.urn == KEY_WITH_NONE);
            let coder = self
                .components
                .pcollections
                .get(&output)
                .map(|c| c.coder_id.clone());
            if let Some(coder) = coder.filter(|_| keys && self.limit(id) > 1) {
                groups
                    .entry((input, proto.environment_id.clone(), coder))
                    .or_default()
                    .push((id.clone(), output));
            }
        }
        let mut instead: HashMap<String, String> = HashMap::new();
        for group in groups.into_values().filter(|group| group.len() > 1) {
            let ids: Vec<&str> = group.iter().map(|(id, _)| id.as_str()).collect();
            let name = self.packed_name(&ids);
            let (first, kept) = &group[0];
            for (id, output) in &group[1..] {
                instead.insert(output.clone(), kept.clone());
                self.components.pcollections.remove(output);
                self.drop_transform(id);
            }
            if let Some(proto) = self.components.transforms.get_mut(first) {
                proto.unique_name = name;
            }
            self.changed = true;
        }
        for proto in self.components.transforms.values_mut() {
            for id in proto.inputs.values_mut().chain(proto.outputs.values_mut()) {
                if let Some(kept) = instead.get(id) {
                    id.clone_from(kept);
                }
            }
        }
    }

    fn pack_all(&mut self) {
        let mut groups: BTreeMap<(String, String, usize), Vec<Part>> = BTreeMap::new();
        for id in &self.order {
            let proto = &self.components.transforms[id];
            let limit = self.limit(id);
            if limit < 2 || urn(proto) != urns::COMBINE_PER_KEY {
                continue;
            }
            // The composite may lack an environment: then it is its parts'.
            let environment = environment_of(&self.components, id);
            let capable = self
                .components
                .environments
                .get(&environment)
                .is_some_and(|e| e.capabilities.iter().any(|c| c == CAPABILITY));
            if let Some((input, part)) = self.part(id, proto).filter(|_| capable) {
                groups.entry((input, environment, limit)).or_default().push(part);
            }
        }
        for ((input, environment, limit), mut parts) in groups {
            while parts.len() > 1 {
                let rest = parts.split_off(parts.len().min(limit));
                self.pack_group(&input, &environment, &parts);
                parts = rest;
            }
        }
    }

    fn part(&self, id: &str, proto: &PTransform) -> Option<(String, Part)> {
        let (input, output) = single(proto)?;
        let payload = pipeline::CombinePayload::decode(&proto.spec.as_ref()?.payload[..]).ok()?;
        let function = payload.combine_fn.filter(|f| f.urn == PICKLED_COMBINE_FN)?;
        // A google.protobuf.BytesValue.
        let function = Bytes::decode(function.payload).ok()?;
        if payload.accumulator_coder_id.is_empty() {
            return None;
        }
        let part = Part {
            id: id.to_owned(),
            output,
            function,
            accumulator: payload.accumulator_coder_id,
        };
        Some((input, part))
    }

    fn pack_group(&mut self, input: &str, environment: &str, parts: &[Part]) {
        let ids: Vec<&str> = parts.iter().map(|part| part.id.as_str()).collect();
        let name = self.packed_name(&ids);
        let Some(input_collection) = self.components.pcollections.get(input).cloned() else {
            return;
        };
        let Some((key, _)) = pair(&self.components, &input_collection.coder_id) else {
            return;
        };
        let mut values = Vec::new();
        for part in parts {
            let collection = self.components.pcollections.get(&part.output);
            match collection.and_then(|c| pair(&self.components, &c.coder_id)) {
                Some((_, value)) => values.push(value),
                None => return,
            }
        }
        let functions: Vec<&Bytes> = parts.iter().map(|part| &part.function).collect();
        let (Some(combiner), Some(unpack)) = (
            bz2_base64(&combiner_pickle(&functions)),
            bz2_base64(&unpack_pickle()),
        ) else {
            return;
        };
        let accumulators = parts.iter().map(|part| part.accumulator.clone()).collect();
        let accumulator = coder(&mut self.components, TUPLE_CODER, accumulators);
        let value = coder(&mut self.components, TUPLE_CODER, values);
        let coder = coder(&mut self.components, coder_urns::KV, vec![key, value]);
        let packed = unused(&self.components.pcollections, format!("{input}/packed"));
        self.components.pcollections.insert(
            packed.clone(),
            pipeline::PCollection {
                unique_name: format!("{name}/Pack.out"),
                coder_id: coder,
                ..input_collection
            },
        );
        let combine = pipeline::CombinePayload {
            combine_fn: Some(FunctionSpec {
                urn: PICKLED_COMBINE_FN.to_owned(),
                payload: Bytes::from(combiner).encode_to_vec().into(),
            }),
            accumulator_coder_id: accumulator,
        };
        let pardo = pipeline::ParDoPayload {
            do_fn: Some(FunctionSpec {
                urn: PICKLED_DO_FN.to_owned(),
                payload: unpack.into(),
            }),
            ..pipeline::ParDoPayload::default()
        };
        let outputs = parts.iter().enumerate();
        let outputs = outputs.map(|(tag, part)| (tag.to_string(), part.output.clone()));
        let unpack = PTransform {
            unique_name: format!("{name}/Unpack"),
            spec: spec(urns::PAR_DO, pardo.encode_to_vec()),
            inputs: HashMap::from([("in".to_owned(), packed.clone())]),
            outputs: outputs.collect(),
            environment_id: environment.to_owned(),
            ..PTransform::default()
        };
        let pack = PTransform {
            unique_name: format!("{name}/Pack"),
            spec: spec(urns::COMBINE_PER_KEY, combine.encode_to_vec()),
            inputs: HashMap::from([("in".to_owned(), input.to_owned())]),
            outputs: HashMap::from([("None".to_owned(), packed)]),
            environment_id: environment.to_owned(),
            ..PTransform::default()
        };
        for part in parts {
            self.drop_transform(&part.id);
        }
        // In the first one's place, so that they are found where composites are walked.
        let first = parts[0].id.as_str();
        let pack_id = unused(&self.components.transforms, format!("{first}/pack"));
        self.components.transforms.insert(pack_id.clone(), pack);
        let unpack_id = unused(&self.components.transforms, format!("{first}/unpack"));
        self.components.transforms.insert(unpack_id.clone(), unpack);
        if let Some(proto) = self.components.transforms.get_mut(first) {
            proto.subtransforms = vec![pack_id, unpack_id];
        }
        self.changed = true;
    }

    /// Leaves a transform that does nothing in a transform's place.
    fn drop_transform(&mut self, id: &str) {
        if let Some(proto) = self.components.transforms.get_mut(id) {
            *proto = PTransform {
                unique_name: std::mem::take(&mut proto.unique_name),
                ..PTransform::default()
            };
        }
    }

    /// What the names have in common, `Packed`, and the rest of each in brackets.
    fn packed_name(&self, ids: &[&str]) -> String {
        let names = ids.iter().map(|id| name_of(id, &self.components.transforms[*id]));
        let names: Vec<Vec<&str>> = names.map(|name| name.split('/').collect()).collect();
        let shortest = names.iter().map(Vec::len).min().unwrap_or(0);
        let common = (0..shortest).take_while(|&at| names.iter().all(|name| name[at] == names[0][at]));
        let common = common.count();
        let rest: Vec<String> = names.iter().map(|name| name[common..].join("_")).collect();
        let prefix: Vec<&str> = names[0][..common].iter().copied().chain(["Packed"]).collect();
        format!("{}[{}]", prefix.join("/"), rest.join(", "))
    }
}

/// A pickle of Python's combiner that hands each element to several combiners; each of them comes as the SDK wrote it,
/// and is read by the SDK's own reader, whichever pickler that uses.
fn combiner_pickle(functions: &[&Bytes]) -> Vec<u8> {
    let mut out = b"\x80\x03capache_beam.transforms.combiners\nSingleInputTupleCombineFn\n(".to_vec();
    for function in functions {
        out.extend_from_slice(b"capache_beam.internal.pickler\nloads\n");
        write_bytes(function, &mut out);
        out.extend_from_slice(b"\x85R");
    }
    out.extend_from_slice(b"tR.");
    out
}

/// A pickle of what a ParDo is made of: a function that takes tuples apart, without arguments or side inputs. The
/// function is given as source text, which any version of Python reads.
fn unpack_pickle() -> Vec<u8> {
    const SOURCE: &str =
        "lambda pair: [TaggedOutput(str(i), (pair[0], value)) for i, value in enumerate(pair[1])]";
    let mut out = b"\x80\x03(capache_beam.transforms.core\nCallableWrapperDoFn\ncbuiltins\neval\n".to_vec();
    write_text(SOURCE, &mut out);
    out.push(b'}');
    write_text("TaggedOutput", &mut out);
    out.extend_from_slice(b"capache_beam.pvalue\nTaggedOutput\ns\x86R\x85R)}]Nt.");
    out
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'B');
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'X');
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The form in which Python's SDK sends pickles.
fn bz2_base64(pickle: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(pickle).ok()?;
    Some(base64(&encoder.finish().ok()?))
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let at = (bits >> (18 - 6 * digit)) & 63;
            out.push(if digit > chunk.len() {
                b'='
            } else {
                DIGITS[at as usize]
            });
        }
    }
    out
}
