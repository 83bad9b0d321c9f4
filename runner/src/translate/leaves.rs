//! From the proto's tree of composites to the flat list of what is executed.
//!
//! A composite that the runner knows wins over its subtransforms; splittable DoFns are taken apart.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use purlin_proto::pipeline::{self, FunctionSpec, PCollection, PTransform};
use purlin_proto::urns::transforms as urns;
use purlin_proto::urns::{coders as coder_urns, side_inputs};

use super::coders::Coders;
use super::error::Problems;

/// Composites nested deeper are a forged pipeline's.
const MAX_DEPTH: usize = 200;
/// A Python source that is read in one go after an Impulse.
const READ_FROM_IMPULSE: &str = "beam:transform:read_from_impulse_python:v1";
/// Old URN of an identity, still made by Python's own optimizer.
const IDENTITY: &str = "beam:dofn:identity:0.1";

/// A leaf: something that the engine or a worker executes.
pub(crate) struct Leaf {
    /// Id in the pipeline, or one made from it.
    pub id: String,
    /// The transform, as a worker gets it.
    pub proto: PTransform,
    /// What it is.
    pub op: Op,
    /// Index of its environment; none for what the engine does itself.
    pub environment: Option<usize>,
}

/// What a leaf is.
pub(crate) enum Op {
    Impulse,
    Flatten,
    GroupByKey,
    Redistribute,
    TestStream(Box<pipeline::TestStreamPayload>),
    User(Box<User>),
}

/// User code.
#[derive(Default)]
pub(crate) struct User {
    /// The payload of a ParDo, or a part of a splittable one.
    pub pardo: Option<pipeline::ParDoPayload>,
    /// Whether it processes sized elements and restrictions.
    pub splittable: bool,
    /// Id of the leaf that truncates its restrictions.
    pub truncate: Option<String>,
}

impl User {
    /// Whether a bundle holds keys whole.
    pub(super) fn stateful(&self) -> bool {
        self.pardo.as_ref().is_some_and(|pardo| {
            !pardo.state_specs.is_empty()
                || !pardo.timer_family_specs.is_empty()
                || pardo.requires_time_sorted_input
        })
    }
}

impl Leaf {
    pub(crate) fn name(&self) -> &str {
        name_of(&self.id, &self.proto)
    }

    /// The transform's id and the name of each state that it declares.
    pub(super) fn states(&self) -> Vec<(String, String)> {
        let pardo = match &self.op {
            Op::User(user) => user.pardo.as_ref(),
            _ => None,
        };
        let names = pardo.into_iter().flat_map(|pardo| pardo.state_specs.keys());
        names.map(|name| (self.id.clone(), name.clone())).collect()
    }

    fn is_side_input(&self, tag: &str) -> bool {
        match &self.op {
            Op::User(user) => user
                .pardo
                .as_ref()
                .is_some_and(|pardo| pardo.side_inputs.contains_key(tag)),
            _ => false,
        }
    }

    /// Tags and ids of the main inputs, in the order of the tags.
    pub(super) fn main_inputs(&self) -> Vec<(&str, &str)> {
        sorted(&self.proto.inputs)
            .into_iter()
            .filter(|(tag, _)| !self.is_side_input(tag))
            .collect()
    }

    /// Tags and ids of the outputs, in the order of the tags.
    pub(super) fn outputs(&self) -> Vec<(&str, &str)> {
        sorted(&self.proto.outputs)
    }
}

pub(super) fn name_of<'a>(id: &'a str, proto: &'a PTransform) -> &'a str {
    if proto.unique_name.is_empty() {
        id
    } else {
        &proto.unique_name
    }
}

pub(super) fn urn(proto: &PTransform) -> &str {
    proto.spec.as_ref().map_or("", |spec| spec.urn.as_str())
}

fn payload(proto: &PTransform) -> &[u8] {
    proto.spec.as_ref().map_or(&[], |spec| &spec.payload)
}

/// Protobuf maps have no order; plans have.
pub(super) fn sorted(map: &HashMap<String, String>) -> Vec<(&str, &str)> {
    let mut entries: Vec<_> = map
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    entries.sort_unstable();
    entries
}

/// What Python's optimizer makes with the experiment `pre_optimize=all`.
const EXECUTABLE_STAGE: &str = "beam:runner:executable_stage:v1";

/// Takes the pipeline apart.
pub(super) struct Flattener<'a> {
    pub components: &'a pipeline::Components,
    pub pcollections: HashMap<String, PCollection>,
    pub coders: Coders,
    pub leaves: Vec<Leaf>,
    pub problems: Problems,
    /// Outputs of what has problems of its own: their readers are not to blame.
    pub broken: HashSet<String>,
    seen: HashSet<&'a str>,
    ids: HashSet<String>,
}

impl<'a> Flattener<'a> {
    pub(super) fn new(components: &'a pipeline::Components, coders: Coders, problems: Problems) -> Self {
        Flattener {
            components,
            pcollections: components.pcollections.clone(),
            coders,
            leaves: Vec::new(),
            problems,
            broken: HashSet::new(),
            seen: HashSet::new(),
            ids: components.transforms.keys().cloned().collect(),
        }
    }

    /// Collects the leaves of these roots.
    pub(super) fn collect(&mut self, roots: &'a [String]) {
        for root in roots {
            self.visit(root, "", 0);
        }
    }

    fn visit(&mut self, id: &'a str, parent: &str, depth: usize) {
        let Some(proto) = self.components.transforms.get(id) else {
            let message = format!("transform \"{id}\" is not among the pipeline's components");
            return self.problems.add(parent, message);
        };
        let name = name_of(id, proto);
        if depth > MAX_DEPTH {
            return self
                .problems
                .add(name, "composites are nested more than 200 deep");
        }
        if !self.seen.insert(id) {
            let message =
                format!("transform \"{id}\" occurs twice in the tree of composites, or contains itself");
            return self.problems.add(name, message);
        }
        let before = self.problems.count();
        match urn(proto) {
            urns::IMPULSE => self.native(id, proto, Op::Impulse, 0, 1),
            urns::FLATTEN => self.native(id, proto, Op::Flatten, usize::MAX, 1),
            urns::GROUP_BY_KEY => self.native(id, proto, Op::GroupByKey, 1, 1),
            urns::RESHUFFLE | urns::REDISTRIBUTE_BY_KEY | urns::REDISTRIBUTE_ARBITRARILY
                if proto.inputs.len() == 1 && proto.outputs.len() == 1 =>
            {
                self.native(id, proto, Op::Redistribute, 1, 1);
            }
            urns::TEST_STREAM => {
                if let Some(payload) = self.decode::<pipeline::TestStreamPayload>(id, proto) {
                    self.native(id, proto, Op::TestStream(Box::new(payload)), 0, usize::MAX);
                }
            }
            urns::PAR_DO => self.par_do(id, proto),
            // All that are well-formed have got parts.
            urns::COMBINE_PER_KEY if proto.subtransforms.is_empty() => {
                let message = "a combine per key needs one input of KVs, one output and a combine payload";
                self.problems.add(name, message);
            }
            // A view is a name for its input.
            urns::CREATE_VIEW if proto.subtransforms.is_empty() && proto.inputs.len() == 1 => {
                self.native(id, proto, Op::Flatten, 1, 1);
            }
            _ if !proto.subtransforms.is_empty() => {
                for sub in &proto.subtransforms {
                    self.visit(sub, name, depth + 1);
                }
            }
            _ if is_identity(proto) => {}
            _ => self.sdk_leaf(id, proto),
        }
        if self.problems.count() > before {
            self.broken.extend(proto.outputs.values().cloned());
        }
    }

    fn decode<M: prost::Message + Default>(&mut self, id: &str, proto: &PTransform) -> Option<M> {
        match M::decode(payload(proto)) {
            Ok(message) => Some(message),
            Err(error) => {
                let message = format!("the payload of {} is malformed: {error}", urn(proto));
                self.problems.add(name_of(id, proto), message);
                None
            }
        }
    }

    fn push(&mut self, id: impl Into<String>, mut proto: PTransform, op: Op) {
        proto.subtransforms.clear();
        self.leaves.push(Leaf {
            id: id.into(),
            proto,
            op,
            environment: None,
        });
    }

    fn native(&mut self, id: &str, proto: &PTransform, op: Op, max_inputs: usize, max_outputs: usize) {
        let (inputs, outputs) = (proto.inputs.len(), proto.outputs.len());
        let enough = inputs >= max_inputs.min(1) || matches!(op, Op::Flatten);
        if inputs > max_inputs || outputs > max_outputs || !enough {
            let message = format!("{} has {inputs} inputs and {outputs} outputs", urn(proto));
            return self.problems.add(name_of(id, proto), message);
        }
        if outputs > 0 {
            self.push(id, proto.clone(), op);
        }
    }

    /// An id for a transform that is made of another one.
    fn sub_id(&mut self, id: &str, suffix: &str) -> String {
        let mut made = format!("{id}/{suffix}");
        while !self.ids.insert(made.clone()) {
            made.push('_');
        }
        made
    }

    /// A collection like another one, of another coder.
    fn sub_collection(&mut self, like: &str, name: String, coder: &str) -> String {
        let mut id = name.clone();
        while self.pcollections.contains_key(&id) {
            id.push('_');
        }
        let mut collection = self.pcollections.get(like).cloned().unwrap_or_default();
        collection.unique_name = name;
        collection.coder_id = coder.to_owned();
        self.pcollections.insert(id.clone(), collection);
        id
    }

    fn par_do(&mut self, id: &str, proto: &PTransform) {
        let Some(pardo) = self.decode::<pipeline::ParDoPayload>(id, proto) else {
            return;
        };
        if !self.check_par_do(id, proto, &pardo) {
            return;
        }
        if pardo.restriction_coder_id.is_empty() {
            let user = User {
                pardo: Some(pardo),
                ..User::default()
            };
            self.push(id, proto.clone(), Op::User(Box::new(user)));
        } else {
            self.splittable(id, proto, &pardo);
        }
    }

    fn check_par_do(&mut self, id: &str, proto: &PTransform, pardo: &pipeline::ParDoPayload) -> bool {
        let name = name_of(id, proto);
        let mut right = true;
        let mut wrong = |problems: &mut Problems, message: String| {
            problems.add(name, message);
            right = false;
        };
        let mut tags: Vec<_> = pardo.side_inputs.iter().collect();
        tags.sort_unstable_by_key(|(tag, _)| *tag);
        for (tag, side) in tags {
            if !proto.inputs.contains_key(tag) {
                wrong(
                    &mut self.problems,
                    format!("side input \"{tag}\" is not among the transform's inputs"),
                );
            }
            let access = side.access_pattern.as_ref().map_or("", |spec| spec.urn.as_str());
            if ![side_inputs::ITERABLE, side_inputs::MULTIMAP].contains(&access) {
                let known = format!("{} and {}", side_inputs::ITERABLE, side_inputs::MULTIMAP);
                wrong(
                    &mut self.problems,
                    format!("side input \"{tag}\" is accessed by \"{access}\"; supported are {known}"),
                );
            }
        }
        let main = proto
            .inputs
            .keys()
            .filter(|tag| !pardo.side_inputs.contains_key(*tag))
            .count();
        if main != 1 {
            wrong(
                &mut self.problems,
                format!("a ParDo has one main input; this one has {main}"),
            );
        }
        let expiration = &pardo.on_window_expiration_timer_family_spec;
        if !expiration.is_empty() && !pardo.timer_family_specs.contains_key(expiration) {
            wrong(
                &mut self.problems,
                format!("the timer family of on_window_expiration, \"{expiration}\", is not declared"),
            );
        }
        right
    }

    /// Pair, split and size, process: Beam's expansion of a splittable DoFn; truncate waits for a drain.
    fn splittable(&mut self, id: &str, proto: &PTransform, pardo: &pipeline::ParDoPayload) {
        let name = name_of(id, proto).to_owned();
        let main = proto
            .inputs
            .iter()
            .find(|(tag, _)| !pardo.side_inputs.contains_key(*tag));
        let Some((main_tag, main_input)) = main.map(|(tag, input)| (tag.clone(), input.clone())) else {
            return;
        };
        let Some(element) = self.pcollections.get(&main_input).map(|c| c.coder_id.clone()) else {
            let message =
                format!("input \"{main_tag}\" is PCollection \"{main_input}\", which does not exist");
            return self.problems.add(&name, message);
        };
        let paired = self
            .coders
            .make(coder_urns::KV, &[&element, &pardo.restriction_coder_id]);
        let double = self.coders.make(coder_urns::DOUBLE, &[]);
        let sized = self.coders.make(coder_urns::KV, &[&paired, &double]);
        let paired = self.sub_collection(&main_input, format!("{id}/paired"), &paired);
        let split = self.sub_collection(&main_input, format!("{id}/split"), &sized);
        let truncated = self.sub_collection(&main_input, format!("{id}/truncated"), &sized);
        let part = |suffix: &str, urn: &str, input: &str, output: Option<&str>| {
            let mut part = proto.clone();
            part.unique_name = format!("{name}/{suffix}");
            if let Some(spec) = &mut part.spec {
                spec.urn = urn.to_owned();
            }
            part.inputs.insert(main_tag.clone(), input.to_owned());
            if let Some(output) = output {
                part.outputs = HashMap::from([("out".to_owned(), output.to_owned())]);
            }
            part
        };
        // Only the last part keeps state and timers.
        let mut stateless = pardo.clone();
        stateless.state_specs.clear();
        stateless.timer_family_specs.clear();
        stateless.on_window_expiration_timer_family_spec.clear();
        stateless.requires_time_sorted_input = false;
        let user = |pardo: &pipeline::ParDoPayload| User {
            pardo: Some(pardo.clone()),
            ..User::default()
        };

        let pair = part(
            "PairWithRestriction",
            urns::PAIR_WITH_RESTRICTION,
            &main_input,
            Some(&paired),
        );
        let pair_id = self.sub_id(id, "pair");
        self.push(pair_id, pair, Op::User(Box::new(user(&stateless))));

        let splits = part(
            "SplitAndSizeRestrictions",
            urns::SPLIT_AND_SIZE_RESTRICTIONS,
            &paired,
            Some(&split),
        );
        let split_id = self.sub_id(id, "split");
        self.push(split_id, splits, Op::User(Box::new(user(&stateless))));

        let truncate_id = self.sub_id(id, "truncate");
        let capable = self.components.environments.get(&proto.environment_id);
        let capable = capable.is_some_and(|e| {
            e.capabilities
                .iter()
                .any(|c| c == urns::TRUNCATE_SIZED_RESTRICTION)
        });
        if capable {
            let truncate = part(
                "TruncateAndSizeRestrictions",
                urns::TRUNCATE_SIZED_RESTRICTION,
                &split,
                Some(&truncated),
            );
            self.push(
                truncate_id.clone(),
                truncate,
                Op::User(Box::new(user(&stateless))),
            );
        }
        let process = part(
            "Process",
            urns::PROCESS_SIZED_ELEMENTS_AND_RESTRICTIONS,
            &split,
            None,
        );
        let process_id = self.sub_id(id, "process");
        let process_user = User {
            pardo: Some(pardo.clone()),
            splittable: true,
            truncate: capable.then_some(truncate_id),
        };
        self.push(process_id, process, Op::User(Box::new(process_user)));
    }

    /// A leaf that an SDK executes and the runner needs to know little of.
    fn sdk_leaf(&mut self, id: &str, proto: &PTransform) {
        let name = name_of(id, proto);
        let urn = urn(proto);
        let pardo = match urn {
            urns::PAIR_WITH_RESTRICTION
            | urns::SPLIT_AND_SIZE_RESTRICTIONS
            | urns::TRUNCATE_SIZED_RESTRICTION
            | urns::PROCESS_SIZED_ELEMENTS_AND_RESTRICTIONS => {
                let Some(pardo) = self.decode::<pipeline::ParDoPayload>(id, proto) else {
                    return;
                };
                if !self.check_par_do(id, proto, &pardo) {
                    return;
                }
                let splittable = urn == urns::PROCESS_SIZED_ELEMENTS_AND_RESTRICTIONS;
                let user = User {
                    pardo: Some(pardo),
                    splittable,
                    truncate: None,
                };
                return self.push(id, proto.clone(), Op::User(Box::new(user)));
            }
            urns::READ => return self.read(id, proto),
            urns::ASSIGN_WINDOWS
            | urns::MAP_WINDOWS
            | urns::MERGE_WINDOWS
            | urns::TO_STRING
            | urns::COMBINE_PER_KEY_PRECOMBINE
            | urns::COMBINE_PER_KEY_MERGE_ACCUMULATORS
            | urns::COMBINE_PER_KEY_EXTRACT_OUTPUTS
            | urns::COMBINE_PER_KEY_CONVERT_TO_ACCUMULATORS
            | urns::COMBINE_GROUPED_VALUES
            | READ_FROM_IMPULSE
            | IDENTITY => None::<pipeline::ParDoPayload>,
            EXECUTABLE_STAGE => {
                let message = "it is a stage that the SDK fused, which this runner does itself; submit with the \
                               experiment pre_optimize=default, or without that experiment";
                return self.problems.add(name, message);
            }
            "" => return self.problems.add(name, "it has neither a URN nor subtransforms"),
            other => {
                let environment = self.components.environments.get(&proto.environment_id);
                if !environment.is_some_and(|e| e.capabilities.iter().any(|c| c == other)) {
                    let message = format!(
                        "\"{other}\" is not known to this runner, and the transform has no subtransforms to run \
                         instead; expand it in the SDK, or with its expansion service"
                    );
                    return self.problems.add(name, message);
                }
                None
            }
        };
        if proto.inputs.len() != 1 {
            let message = format!("\"{urn}\" needs one input; this one has {}", proto.inputs.len());
            return self.problems.add(name, message);
        }
        self.push(
            id,
            proto.clone(),
            Op::User(Box::new(User {
                pardo,
                ..User::default()
            })),
        );
    }

    /// A primitive read of Python's: an Impulse, and the source read in one go.
    fn read(&mut self, id: &str, proto: &PTransform) {
        let name = name_of(id, proto).to_owned();
        let python = self.decode::<pipeline::ReadPayload>(id, proto);
        let Some(python) = python else { return };
        let source = python.source.as_ref().map_or("", |spec| spec.urn.as_str());
        let Some((_, output)) = proto.outputs.iter().next().filter(|_| source.contains("python")) else {
            let message = "a primitive read is not supported; read with a splittable DoFn (in Java, without \
                           the experiment use_deprecated_read)";
            return self.problems.add(&name, message);
        };
        let bytes = self.coders.make(coder_urns::BYTES, &[]);
        let impulse = self.sub_collection(output, format!("{id}/impulse"), &bytes);
        let made = PTransform {
            unique_name: format!("{name}/Impulse"),
            spec: Some(FunctionSpec {
                urn: urns::IMPULSE.to_owned(),
                payload: Bytes::new(),
            }),
            outputs: HashMap::from([("out".to_owned(), impulse.clone())]),
            ..PTransform::default()
        };
        let impulse_id = self.sub_id(id, "impulse");
        self.push(impulse_id, made, Op::Impulse);
        let mut reader = proto.clone();
        reader.inputs = HashMap::from([("in".to_owned(), impulse)]);
        if let Some(spec) = &mut reader.spec {
            spec.urn = READ_FROM_IMPULSE.to_owned();
        }
        self.push(id, reader, Op::User(Box::default()));
    }
}

/// A composite of nothing, whose outputs are among its inputs.
fn is_identity(proto: &PTransform) -> bool {
    if proto.outputs.is_empty() && urns::ALL.contains(&urn(proto)) {
        return false;
    }
    let inputs: HashSet<&String> = proto.inputs.values().collect();
    proto.outputs.values().all(|output| inputs.contains(output))
}
