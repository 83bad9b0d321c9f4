//! A ProcessBundleDescriptor becomes an executor: types are found, edges are made from the end to the start.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use prost::Message;
use purlin_model::spec::no_schemas;
use purlin_model::{Coder, CoderSpec, WindowCoder, urns as coder_urns};
use purlin_proto::fn_execution::{ProcessBundleDescriptor, RemoteGrpcPort};
use purlin_proto::pipeline::{
    CombinePayload, FunctionSpec, PTransform, ParDoPayload, WindowIntoPayload, output_time,
};
use purlin_proto::urns::{runner_transforms, transforms};
use rustc_hash::FxHashMap;

use super::executor::{Executor, guarded};
use super::windows::{Question, WindowsSource};
use crate::metrics::BundleMetrics;
use crate::stage::bundle::BundleCell;
use crate::stage::edge::{AnyReceiver, ElementCount};
use crate::stage::element::{AnyShared, ElementType};
use crate::stage::failure::Failure;
use crate::stage::io::{SinkBuffer, Source, WireForm};
use crate::stage::monitor::{BundleMonitor, LiveSlot, Step};
use crate::stage::node::{Node, Registry, StepBuilder, TimerSink};
use crate::stage::state_cache::WorkerShared;
use crate::windowing::TimestampCombiner;

/// What a transform of the descriptor is.
enum Role {
    Source,
    Sink,
    Flatten,
    AssignWindows,
    Windows(Question),
    User(Arc<dyn Node>),
}

struct Planned<'a> {
    id: &'a str,
    proto: &'a PTransform,
    role: Role,
    step: u32,
}

pub(super) fn executor(
    descriptor: &ProcessBundleDescriptor,
    registry: &Arc<Registry>,
    shared: &Arc<WorkerShared>,
) -> Result<Executor, Failure> {
    let mut ids: Vec<&String> = descriptor.transforms.keys().collect();
    ids.sort();
    let mut planned = Vec::new();
    for (step, id) in ids.into_iter().enumerate() {
        let Some(proto) = descriptor.transforms.get(id) else {
            continue;
        };
        planned.push(Planned {
            id,
            proto,
            role: role(id, proto, registry)?,
            step: step as u32,
        });
    }
    let types = types(descriptor, &planned)?;

    let mut collections: Vec<&String> = descriptor.pcollections.keys().collect();
    collections.sort();
    let counts: Vec<_> = collections
        .iter()
        .map(|id| ((*id).clone(), ElementCount::default()))
        .collect();

    let mut sources = planned.iter().filter(|p| matches!(p.role, Role::Source));
    let source = match (sources.next(), sources.next()) {
        (Some(one), None) => Some(one.id.to_owned()),
        _ => None,
    };
    let steps = planned
        .iter()
        .map(|p| Step {
            transform_id: p.id.to_owned(),
            name: name(p).to_owned(),
        })
        .collect();
    let monitor = Arc::new(BundleMonitor {
        steps,
        counts,
        metrics: Arc::new(BundleMetrics::default()),
        index: Arc::default(),
        live: LiveSlot::default(),
        source,
    });

    let mut builder = Builder {
        descriptor,
        registry,
        planned: &planned,
        types: &types,
        monitor: &monitor,
        bundle: Rc::new(BundleCell::new(shared.clone())),
        shared: FxHashMap::default(),
        sinks: Vec::new(),
        timers: Vec::new(),
        depth: 0,
    };
    let mut made: FxHashMap<String, Box<dyn Source>> = FxHashMap::default();
    guarded(&monitor, || {
        for transform in planned.iter().filter(|p| matches!(p.role, Role::Source)) {
            made.insert(transform.id.to_owned(), builder.source(transform)?);
        }
        Ok(())
    })?;
    let Builder {
        bundle,
        sinks,
        timers,
        ..
    } = builder;
    Ok(Executor {
        stage: descriptor.id.clone(),
        sources: made,
        sinks,
        timers,
        bundle,
        monitor,
    })
}

fn name<'a>(transform: &Planned<'a>) -> &'a str {
    if transform.proto.unique_name.is_empty() {
        transform.id
    } else {
        &transform.proto.unique_name
    }
}

fn role(id: &str, proto: &PTransform, registry: &Registry) -> Result<Role, Failure> {
    let name = if proto.unique_name.is_empty() {
        id
    } else {
        &proto.unique_name
    };
    let empty = FunctionSpec::default();
    let spec = proto.spec.as_ref().unwrap_or(&empty);
    let bad = |e: prost::DecodeError| Failure::message(name, format!("its payload cannot be read: {e}"));
    let code = |spec: Option<FunctionSpec>| {
        let spec = spec.ok_or_else(|| Failure::message(name, "its payload names no code"))?;
        registry.find(name, &spec).map(Role::User)
    };
    match spec.urn.as_str() {
        runner_transforms::DATA_SOURCE => Ok(Role::Source),
        runner_transforms::DATA_SINK => Ok(Role::Sink),
        transforms::FLATTEN => Ok(Role::Flatten),
        transforms::ASSIGN_WINDOWS => Ok(Role::AssignWindows),
        transforms::MERGE_WINDOWS => Ok(Role::Windows(Question::Merge)),
        transforms::MAP_WINDOWS => Ok(Role::Windows(Question::Map)),
        transforms::PAR_DO
        | transforms::PAIR_WITH_RESTRICTION
        | transforms::SPLIT_AND_SIZE_RESTRICTIONS
        | transforms::TRUNCATE_SIZED_RESTRICTION
        | transforms::PROCESS_SIZED_ELEMENTS_AND_RESTRICTIONS => {
            code(ParDoPayload::decode(spec.payload.clone()).map_err(bad)?.do_fn)
        }
        transforms::COMBINE_PER_KEY_PRECOMBINE
        | transforms::COMBINE_PER_KEY_MERGE_ACCUMULATORS
        | transforms::COMBINE_PER_KEY_EXTRACT_OUTPUTS
        | transforms::COMBINE_PER_KEY_CONVERT_TO_ACCUMULATORS
        | transforms::COMBINE_GROUPED_VALUES => code(
            CombinePayload::decode(spec.payload.clone())
                .map_err(bad)?
                .combine_fn,
        ),
        other => Err(Failure::message(
            name,
            format!("this SDK cannot execute transforms of URN \"{other}\""),
        )),
    }
}

/// The type of each PCollection: told by the user code at one of its ends, through steps that keep the type.
fn types<'a>(
    descriptor: &ProcessBundleDescriptor,
    planned: &[Planned<'a>],
) -> Result<FxHashMap<&'a str, ElementType>, Failure> {
    let mut types: FxHashMap<&str, ElementType> = FxHashMap::default();
    let mut problem = None;
    let mut set =
        |types: &mut FxHashMap<&'a str, ElementType>, t: &Planned<'a>, id: &'a str, e: &ElementType| {
            match types.get(id) {
                None => {
                    types.insert(id, e.clone());
                }
                Some(there) if there == e => {}
                Some(there) => {
                    let text = format!(
                        "collection \"{id}\" is of {there:?} for one transform and {e:?} for this one"
                    );
                    problem = Some(Failure::message(name(t), text));
                }
            }
        };
    for transform in planned {
        let Role::User(node) = &transform.role else {
            continue;
        };
        let urn = transform.proto.spec.as_ref().map_or("", |s| &s.urn);
        let Some(signature) = node.signature(urn) else {
            return Err(Failure::message(
                name(transform),
                format!("its code cannot be a transform of \"{urn}\""),
            ));
        };
        if let Some((_, id)) = main_input(transform.proto) {
            set(&mut types, transform, id, &signature.input);
        }
        for (tag, id) in &transform.proto.outputs {
            let only = signature.outputs.len() == 1 && transform.proto.outputs.len() == 1;
            if let Some((_, element)) = signature.outputs.iter().find(|(t, _)| t == tag || only) {
                set(&mut types, transform, id, element);
            }
        }
    }
    // Steps that keep the type: each pass carries types one step on. What no code looks at has the source's coder.
    let mut sources = planned.iter().filter(|t| matches!(t.role, Role::Source));
    loop {
        let before = types.len();
        for transform in planned
            .iter()
            .filter(|t| matches!(t.role, Role::Flatten | Role::AssignWindows))
        {
            let ends = || {
                transform
                    .proto
                    .inputs
                    .values()
                    .chain(transform.proto.outputs.values())
            };
            let known = ends().find_map(|id| types.get(id.as_str()).cloned());
            if let Some(element) = known {
                ends().for_each(|id| set(&mut types, transform, id, &element));
            }
        }
        if types.len() > before {
            continue;
        }
        let Some(source) = sources.next() else { break };
        for id in source.proto.outputs.values() {
            if !types.contains_key(id.as_str())
                && let Some(raw) = raw_type(descriptor, source.proto)
            {
                set(&mut types, source, id, &raw);
            }
        }
    }
    match problem {
        Some(problem) => Err(problem),
        None => Ok(types),
    }
}

/// The input that is not a side input.
fn main_input(proto: &PTransform) -> Option<(&String, &String)> {
    if proto.inputs.len() == 1 {
        return proto.inputs.iter().next();
    }
    let spec = proto.spec.as_ref()?;
    let sides = match spec.urn.as_str() {
        transforms::PAR_DO
        | transforms::PAIR_WITH_RESTRICTION
        | transforms::SPLIT_AND_SIZE_RESTRICTIONS
        | transforms::TRUNCATE_SIZED_RESTRICTION
        | transforms::PROCESS_SIZED_ELEMENTS_AND_RESTRICTIONS => {
            ParDoPayload::decode(spec.payload.clone()).ok()?.side_inputs
        }
        _ => return None,
    };
    proto.inputs.iter().find(|(tag, _)| !sides.contains_key(*tag))
}

struct Builder<'a, 'b> {
    descriptor: &'a ProcessBundleDescriptor,
    registry: &'b Registry,
    planned: &'b [Planned<'a>],
    types: &'b FxHashMap<&'a str, ElementType>,
    monitor: &'b Arc<BundleMonitor>,
    bundle: Rc<BundleCell>,
    /// Flattens that were made, for the next of their inputs.
    shared: FxHashMap<&'a str, Box<dyn AnyShared>>,
    sinks: Vec<(String, Rc<RefCell<SinkBuffer>>)>,
    timers: Vec<(String, Rc<RefCell<dyn TimerSink>>)>,
    depth: usize,
}

/// No stage has so many steps in a row; a descriptor with a cycle would.
const MAX_DEPTH: usize = 20_000;

impl<'a> Builder<'a, '_> {
    fn type_of(&self, transform: &Planned<'a>, collection: &str) -> Result<&ElementType, Failure> {
        self.types.get(collection).ok_or_else(|| {
            Failure::message(
                name(transform),
                format!("no code in this stage tells the type of collection \"{collection}\""),
            )
        })
    }

    fn mismatch(&self, transform: &Planned<'a>, collection: &str) -> Failure {
        Failure::message(
            name(transform),
            format!("collection \"{collection}\" has consumers of different types"),
        )
    }

    /// The edge to all consumers of a collection.
    fn edge(&mut self, from: &Planned<'a>, collection: &'a str) -> Result<Box<dyn Any>, Failure> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Failure::message(name(from), "the stage has a cycle"));
        }
        let mut consumers = Vec::new();
        for transform in self.planned {
            let takes = match &transform.role {
                Role::Source => 0,
                Role::Flatten => transform
                    .proto
                    .inputs
                    .values()
                    .filter(|id| *id == collection)
                    .count(),
                _ => usize::from(main_input(transform.proto).is_some_and(|(_, id)| id == collection)),
            };
            for _ in 0..takes {
                consumers.push(self.receiver(transform, collection)?);
            }
        }
        self.depth -= 1;
        let count = self.monitor.counts.iter().find(|(id, _)| id == collection);
        let count = count.map(|(_, count)| count.clone()).unwrap_or_default();
        let element = self.type_of(from, collection)?;
        element
            .erased()
            .edge(count, consumers)
            .ok_or_else(|| self.mismatch(from, collection))
    }

    fn only_output(&self, transform: &Planned<'a>) -> Result<&'a str, Failure> {
        transform
            .proto
            .outputs
            .values()
            .next()
            .map(String::as_str)
            .ok_or_else(|| Failure::message(name(transform), "it has no output"))
    }

    fn receiver(&mut self, transform: &Planned<'a>, input: &str) -> Result<AnyReceiver, Failure> {
        let mismatch = |b: &Self| b.mismatch(transform, input);
        match &transform.role {
            Role::Source => Err(Failure::message(name(transform), "a source has no input")),
            Role::Windows(_) => Err(Failure::message(
                name(transform),
                "questions about windows are stages of their own",
            )),
            Role::Sink => {
                let element = self.type_of(transform, input)?.clone();
                let (form, _) = self.wire(transform, &element, input)?;
                let buffer = Rc::new(RefCell::new(SinkBuffer::default()));
                self.sinks.push((transform.id.to_owned(), buffer.clone()));
                Ok(element.erased().sink(form, buffer))
            }
            Role::Flatten => {
                if let Some(shared) = self.shared.get(transform.id) {
                    return Ok(shared.handle());
                }
                let output = self.only_output(transform)?;
                let edge = self.edge(transform, output)?;
                let element = self.type_of(transform, output)?.clone();
                let shared = element.erased().share(edge).ok_or_else(|| mismatch(self))?;
                let handle = shared.handle();
                self.shared.insert(transform.id, shared);
                Ok(handle)
            }
            Role::AssignWindows => {
                let bad = |reason: String| Failure::message(name(transform), reason);
                let payload = transform
                    .proto
                    .spec
                    .as_ref()
                    .map(|s| s.payload.clone())
                    .unwrap_or_default();
                let payload = WindowIntoPayload::decode(payload).map_err(|e| bad(e.to_string()))?;
                let window_fn = self
                    .registry
                    .window_fn(&payload.window_fn.unwrap_or_default())
                    .map_err(bad)?;
                let output = self.only_output(transform)?;
                let edge = self.edge(transform, output)?;
                let element = self.type_of(transform, output)?.clone();
                element
                    .erased()
                    .assign_windows(window_fn, edge)
                    .ok_or_else(|| mismatch(self))
            }
            Role::User(node) => {
                let mut outputs = FxHashMap::default();
                for (tag, collection) in &transform.proto.outputs {
                    outputs.insert(tag.clone(), self.edge(transform, collection)?);
                }
                let combiner = self.timestamp_combiner(input);
                let urn = transform.proto.spec.as_ref().map_or("", |s| &s.urn);
                let windows = self.timer_windows(transform)?;
                let input_form = self.input_form(input)?;
                let input_tag = main_input(transform.proto).map_or("", |(tag, _)| tag);
                let output_tags = transform.proto.outputs.keys().cloned().collect();
                let mut step = StepBuilder {
                    name: name(transform),
                    transform_id: transform.id,
                    step: transform.step,
                    outputs,
                    bundle: &self.bundle,
                    windowing: &combiner,
                    windows,
                    input_form,
                    input_tag,
                    output_tags,
                    timer_sink: None,
                    monitor: self.monitor,
                };
                let receiver = node.build(urn, &mut step)?;
                if let Some(sink) = step.timer_sink {
                    self.timers.push((transform.id.to_owned(), sink));
                }
                Ok(receiver)
            }
        }
    }

    /// How the windows of a step's timers are encoded.
    fn timer_windows(&self, transform: &Planned<'a>) -> Result<WindowCoder, Failure> {
        let spec = transform.proto.spec.as_ref();
        let Some(spec) = spec.filter(|spec| spec.urn == transforms::PAR_DO) else {
            return Ok(WindowCoder::Global);
        };
        let bad = |reason: String| Failure::message(name(transform), reason);
        let payload = ParDoPayload::decode(spec.payload.clone()).map_err(|e| bad(e.to_string()))?;
        let Some(family) = payload.timer_family_specs.values().next() else {
            return Ok(WindowCoder::Global);
        };
        let coder = self.coder(&family.timer_family_coder_id).map_err(bad)?;
        match &coder.components[..] {
            [_key, window] => windows_of(window).map_err(bad),
            _ => Err(bad(format!("its timers' coder is {}", show(&coder)))),
        }
    }

    /// How the runner encodes a collection that it sends; a collection inside of the stage is not encoded.
    fn input_form(&self, collection: &str) -> Result<Option<WireForm>, Failure> {
        let mut sources = self.planned.iter().filter(|p| matches!(p.role, Role::Source));
        match sources.find(|p| p.proto.outputs.values().any(|id| id == collection)) {
            None => Ok(None),
            Some(source) => {
                let element = self.type_of(source, collection)?;
                Ok(Some(self.wire(source, element, collection)?.0))
            }
        }
    }

    fn timestamp_combiner(&self, collection: &str) -> TimestampCombiner {
        let d = self.descriptor;
        let windowing = d.pcollections.get(collection).map(|c| &c.windowing_strategy_id);
        match windowing
            .and_then(|id| d.windowing_strategies.get(id))
            .map(|w| w.output_time())
        {
            Some(output_time::Enum::EarliestInPane) => TimestampCombiner::Earliest,
            Some(output_time::Enum::LatestInPane) => TimestampCombiner::Latest,
            _ => TimestampCombiner::EndOfWindow,
        }
    }

    /// A stage that asks about windows: from source to sink, without types.
    fn windows_source(
        &mut self,
        source: &Planned<'a>,
        asking: &Planned<'a>,
        question: Question,
    ) -> Result<Box<dyn Source>, Failure> {
        let bad = |reason: String| Failure::message(name(asking), reason);
        let payload = asking.proto.spec.as_ref().map(|s| s.payload.clone());
        let spec = FunctionSpec::decode(payload.unwrap_or_default()).map_err(|e| bad(e.to_string()))?;
        let window_fn = self.registry.window_fn(&spec).map_err(bad)?;
        let port = source.proto.spec.as_ref().map(|s| s.payload.clone());
        let port = RemoteGrpcPort::decode(port.unwrap_or_default()).map_err(|e| bad(e.to_string()))?;
        let wire = self.coder(&port.coder_id).map_err(bad)?;
        // A windowed value of KV of a nonce and a window, or windows.
        let asked = wire.components.first().and_then(|kv| kv.components.get(1));
        let asked = match question {
            Question::Map => asked,
            Question::Merge => asked.and_then(|windows| windows.components.first()),
        };
        let asked = asked.ok_or_else(|| bad(format!("its question is encoded as {}", show(&wire))))?;
        let asked = windows_of(asked).map_err(bad)?;
        let output = self.only_output(asking)?;
        let mut sinks = self.planned.iter().filter(|p| matches!(p.role, Role::Sink));
        let sink = sinks.find(|p| p.proto.inputs.values().any(|id| id == output));
        let sink = sink.ok_or_else(|| bad("nobody reads its answers".to_owned()))?;
        let answers = Rc::new(RefCell::new(SinkBuffer::default()));
        self.sinks.push((sink.id.to_owned(), answers.clone()));
        Ok(Box::new(WindowsSource {
            question,
            window_fn,
            name: name(asking).to_owned(),
            asked,
            answers,
        }))
    }

    fn source(&mut self, transform: &Planned<'a>) -> Result<Box<dyn Source>, Failure> {
        let output = self.only_output(transform)?;
        for asking in self.planned {
            if let Role::Windows(question) = asking.role
                && asking.proto.inputs.values().any(|id| id == output)
            {
                return self.windows_source(transform, asking, question);
            }
        }
        let edge = self.edge(transform, output)?;
        let element = self.type_of(transform, output)?.clone();
        let (form, windows) = self.wire(transform, &element, output)?;
        element
            .erased()
            .source(form, windows, edge)
            .ok_or_else(|| self.mismatch(transform, output))
    }

    /// How the runner wants the elements of a port.
    fn wire(
        &self,
        transform: &Planned<'a>,
        element: &ElementType,
        collection: &str,
    ) -> Result<(WireForm, WindowCoder), Failure> {
        let bad = |reason: String| Failure::message(name(transform), reason);
        let payload = transform
            .proto
            .spec
            .as_ref()
            .map(|s| s.payload.clone())
            .unwrap_or_default();
        let port =
            RemoteGrpcPort::decode(payload).map_err(|e| bad(format!("its payload cannot be read: {e}")))?;
        let wire = self.coder(&port.coder_id).map_err(bad)?;
        let [value, window] = &wire.components[..] else {
            return Err(bad(format!(
                "its coder is {}, which is not a windowed value's",
                wire.urn
            )));
        };
        if wire.urn != coder_urns::WINDOWED_VALUE {
            return Err(bad(format!(
                "its coder is {}, which is not {}",
                wire.urn,
                coder_urns::WINDOWED_VALUE
            )));
        }
        let windows = windows_of(window).map_err(bad)?;
        let own = element.coder();
        if same(value, &own) {
            return Ok((WireForm::Plain, windows));
        }
        if value.urn == coder_urns::LENGTH_PREFIX
            && value.components.first().is_some_and(|inner| same(inner, &own))
        {
            return Ok((WireForm::LengthPrefixed, windows));
        }
        Err(bad(format!(
            "the runner has collection \"{collection}\" as {}, but {element:?} is encoded as {}",
            show(value),
            show(&own)
        )))
    }

    fn coder(&self, id: &str) -> Result<CoderSpec, String> {
        coder_of(self.descriptor, id, 0)
    }
}

/// A coder of the descriptor with its components.
fn coder_of(descriptor: &ProcessBundleDescriptor, id: &str, depth: usize) -> Result<CoderSpec, String> {
    let coder = descriptor
        .coders
        .get(id)
        .ok_or_else(|| format!("the descriptor has no coder \"{id}\""))?;
    if depth > 100 {
        return Err(format!("coder \"{id}\" is a component of itself"));
    }
    let spec = coder.spec.clone().unwrap_or_default();
    let components = coder
        .component_coder_ids
        .iter()
        .map(|id| coder_of(descriptor, id, depth + 1));
    Ok(CoderSpec {
        urn: spec.urn.into(),
        payload: spec.payload,
        components: components.collect::<Result<_, _>>()?,
    })
}

/// The type of what a source reads and no code looks at. `None`: its coder does not tell where elements end.
fn raw_type(descriptor: &ProcessBundleDescriptor, source: &PTransform) -> Option<ElementType> {
    let payload = source.spec.as_ref()?.payload.clone();
    let port = RemoteGrpcPort::decode(payload).ok()?;
    let wire = coder_of(descriptor, &port.coder_id, 0).ok()?;
    let spec = wire.components.into_iter().next()?;
    let coder = Coder::from_spec(&spec, &no_schemas).ok()?;
    coder.knows_boundary().then(|| ElementType::raw(coder, spec))
}

/// The windows of a coder.
fn windows_of(coder: &CoderSpec) -> Result<WindowCoder, String> {
    let coder = Coder::from_spec(coder, &no_schemas).map_err(|e| format!("its windows' coder: {e}"))?;
    Ok(WindowCoder::from_coder(coder))
}

/// Whether both encode alike. Payloads of Rust types are names for messages.
fn same(a: &CoderSpec, b: &CoderSpec) -> bool {
    let urn = |c: &CoderSpec| match &*c.urn {
        // Values that were not split over state look the same.
        coder_urns::STATE_BACKED_ITERABLE => coder_urns::ITERABLE.to_owned(),
        other => other.to_owned(),
    };
    urn(a) == urn(b)
        && a.components.len() == b.components.len()
        && a.components.iter().zip(&b.components).all(|(a, b)| same(a, b))
}

fn show(coder: &CoderSpec) -> String {
    let name = coder
        .urn
        .trim_start_matches("beam:coder:")
        .trim_end_matches(":v1");
    if coder.components.is_empty() {
        return name.to_owned();
    }
    let components: Vec<_> = coder.components.iter().map(show).collect();
    format!("{name}<{}>", components.join(", "))
}
