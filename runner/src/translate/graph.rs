//! From leaves to the engine's graph: order, wire coders, transcoding, windowing.

use std::collections::{HashMap, HashSet};

use prost::Message as _;
use purlin_engine as engine;
use purlin_engine::{CollectionId, EnvironmentId, TransformId};
use purlin_model::Timestamp;
use purlin_proto::pipeline::{self, FunctionSpec, PTransform, test_stream_payload};
use purlin_proto::urns::transforms as urns;
use purlin_proto::urns::{coders as coder_urns, side_inputs};
use typed_index_collections::TiVec;

use super::coders::{Coders, Wire};
use super::environments::Environments;
use super::error::Problems;
use super::leaves::{Flattener, Leaf, Op, sorted};
use super::windowing;

/// What the capability that tells Python's SDK and its version begins with.
const PYTHON_SDK: &str = "beam:version:sdk_base:apache/beam_python";

/// How a collection is sent.
#[derive(Clone)]
pub(super) struct Format {
    /// Its elements' coder.
    pub wire: Wire,
    /// Id of its windows' coder.
    pub window_id: String,
    /// Its windows' coder.
    pub window: purlin_model::WindowCoder,
}

/// Translation's work in progress.
pub(super) struct Builder<'a> {
    pub components: &'a pipeline::Components,
    pub pcollections: HashMap<String, pipeline::PCollection>,
    pub coders: Coders,
    pub environments: &'a Environments,
    pub leaves: Vec<Leaf>,
    pub problems: Problems,
    /// What is wrong because something else is: told where nothing else is.
    pub consequences: Problems,
    /// Collections that have no maker because of other problems.
    pub broken: HashSet<String>,
    /// How collections are sent, by id.
    pub formats: HashMap<String, Format>,
    /// Timers' coders by leaf and family.
    pub timer_coders: HashMap<(String, String), String>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(flattener: Flattener<'a>, environments: &'a Environments) -> Self {
        let Flattener {
            components,
            pcollections,
            coders,
            leaves,
            problems,
            broken,
            ..
        } = flattener;
        Builder {
            components,
            pcollections,
            coders,
            environments,
            leaves,
            problems,
            consequences: Problems::default(),
            broken,
            formats: HashMap::new(),
            timer_coders: HashMap::new(),
        }
    }

    /// Checks that every collection exists and has one producer.
    pub(super) fn check_collections(&mut self) {
        let mut made: HashMap<String, String> = HashMap::new();
        for leaf in &self.leaves {
            for (tag, id) in leaf.outputs() {
                if !self.pcollections.contains_key(id) {
                    let message = format!("output \"{tag}\" is PCollection \"{id}\", which does not exist");
                    self.problems.add(leaf.name(), message);
                }
                if let Some(other) = made.insert(id.to_owned(), leaf.name().to_owned()) {
                    let message = format!("PCollection \"{id}\" is made twice, also by \"{other}\"");
                    self.problems.add(leaf.name(), message);
                }
            }
        }
        for leaf in &self.leaves {
            for (tag, id) in sorted(&leaf.proto.inputs) {
                if !self.pcollections.contains_key(id) {
                    let message = format!("input \"{tag}\" is PCollection \"{id}\", which does not exist");
                    self.problems.add(leaf.name(), message);
                } else if !made.contains_key(id) && !self.broken.contains(id) {
                    let message = format!("no transform makes PCollection \"{id}\", its input \"{tag}\"");
                    self.problems.add(leaf.name(), message);
                }
            }
        }
    }

    /// Sorts the leaves so that producers come first. A cycle is a problem, and what is in it or behind it is left out.
    pub(super) fn sort(&mut self) {
        let mut producers: HashMap<&str, usize> = HashMap::new();
        for (index, leaf) in self.leaves.iter().enumerate() {
            producers.extend(leaf.outputs().into_iter().map(|(_, id)| (id, index)));
        }
        let mut waits_for = vec![0usize; self.leaves.len()];
        let mut feeds: Vec<Vec<usize>> = vec![Vec::new(); self.leaves.len()];
        for (index, leaf) in self.leaves.iter().enumerate() {
            for id in leaf.proto.inputs.values() {
                if let Some(&producer) = producers.get(id.as_str()) {
                    waits_for[index] += 1;
                    feeds[producer].push(index);
                }
            }
        }
        let mut ready: std::collections::BTreeSet<usize> = (0..self.leaves.len())
            .filter(|&index| waits_for[index] == 0)
            .collect();
        let mut order = Vec::with_capacity(self.leaves.len());
        while let Some(index) = ready.pop_first() {
            order.push(index);
            for &next in &feeds[index] {
                waits_for[next] -= 1;
                if waits_for[next] == 0 {
                    ready.insert(next);
                }
            }
        }
        let mut slots: Vec<Option<Leaf>> = std::mem::take(&mut self.leaves).into_iter().map(Some).collect();
        self.leaves = order
            .into_iter()
            .filter_map(|index| slots[index].take())
            .collect();
        for leaf in slots.into_iter().flatten() {
            let message = "it needs its own output, or that of such a transform: the pipeline has a cycle";
            self.problems.add(leaf.name(), message);
        }
    }

    /// Decides how every collection is sent, and adds transcoding where inputs and output differ. Leaves that have problems are
    /// left out, and so are those that read what these make: they are not to blame.
    pub(super) fn decide_formats(&mut self) {
        let mut made_in: HashMap<String, usize> = HashMap::new();
        let mut read_in: HashMap<String, usize> = HashMap::new();
        // Those who read come after those who make, so what is read beyond a Flatten or a GroupByKey is known before it.
        for leaf in self.leaves.iter().rev() {
            let beyond = leaf.outputs().into_iter().find_map(|(_, id)| read_in.get(id));
            if let Some(environment) = leaf.environment.or(beyond.copied()) {
                read_in.extend(leaf.proto.inputs.values().map(|id| (id.clone(), environment)));
            }
        }
        for mut leaf in std::mem::take(&mut self.leaves) {
            let mut inputs = leaf.proto.inputs.values();
            if let Some(id) = inputs.find(|id| !self.formats.contains_key(*id)) {
                let message = format!("its input PCollection \"{id}\" has no usable coder or windowing");
                self.consequences.add(leaf.name(), message);
                continue;
            }
            let mut after = Vec::new();
            let result = match leaf.op {
                Op::Flatten | Op::Redistribute => self.unify(&mut leaf, &mut made_in, &read_in),
                Op::GroupByKey => self.grouped(&leaf),
                Op::Impulse => self.impulse(&leaf),
                Op::TestStream(ref payload) => {
                    let coder = payload.coder_id.clone();
                    self.test_stream(&mut leaf, &coder, &read_in, &mut made_in)
                        .map(|transcoders| after = transcoders)
                }
                Op::User(_) => self.declared(&leaf),
            };
            if let Err(message) = result {
                self.problems.add(leaf.name(), message);
                for (_, id) in leaf.outputs() {
                    self.formats.remove(id);
                }
                continue;
            }
            let inherited = leaf
                .main_inputs()
                .first()
                .and_then(|(_, id)| made_in.get(*id))
                .copied();
            if let Some(environment) = leaf.environment.or(inherited) {
                made_in.extend(
                    leaf.outputs()
                        .into_iter()
                        .map(|(_, id)| (id.to_owned(), environment)),
                );
            }
            self.leaves.push(leaf);
            self.leaves.append(&mut after);
        }
    }

    /// The format of a collection by its own declaration.
    fn format(&mut self, id: &str) -> Result<Format, String> {
        let collection = self.pcollections.get(id);
        let collection = collection.ok_or_else(|| format!("PCollection \"{id}\" does not exist"))?;
        let (coder, strategy) = (
            collection.coder_id.clone(),
            collection.windowing_strategy_id.clone(),
        );
        let about = |error: String| format!("PCollection \"{id}\": {error}");
        let wire = self.coders.wire(&coder).map_err(about)?;
        let strategy = self
            .components
            .windowing_strategies
            .get(&strategy)
            .ok_or_else(|| {
                about(format!(
                    "windowing strategy \"{strategy}\" is not among the pipeline's components"
                ))
            })?;
        let (window_id, window) = self.coders.window(&strategy.window_coder_id).map_err(about)?;
        Ok(Format {
            wire,
            window_id,
            window,
        })
    }

    fn set(&mut self, id: &str, format: Format) {
        self.formats.insert(id.to_owned(), format);
    }

    fn input_format(&self, id: &str) -> Result<Format, String> {
        let format = self.formats.get(id).cloned();
        format.ok_or_else(|| format!("its input PCollection \"{id}\" has no usable coder or windowing"))
    }

    fn declared(&mut self, leaf: &Leaf) -> Result<(), String> {
        for (_, id) in leaf.outputs() {
            let format = self.format(id)?;
            self.set(id, format);
        }
        Ok(())
    }

    fn with_coder(&mut self, id: &str, coder: &str) -> Result<(), String> {
        let mut format = self.format(id)?;
        format.wire = self.coders.wire(coder)?;
        self.set(id, format);
        Ok(())
    }

    fn impulse(&mut self, leaf: &Leaf) -> Result<(), String> {
        let bytes = self.coders.make(coder_urns::BYTES, &[]);
        for (_, id) in leaf.outputs() {
            self.with_coder(id, &bytes)?;
        }
        Ok(())
    }

    /// Its elements are of the payload's coder. Where that hides the key and the value of declared KVs, or has parts that
    /// only an SDK can tell apart, they are written anew: by the returned leaves.
    fn test_stream(
        &mut self,
        leaf: &mut Leaf,
        coder: &str,
        read_in: &HashMap<String, usize>,
        made_in: &mut HashMap<String, usize>,
    ) -> Result<Vec<Leaf>, String> {
        let whole = self.coders.whole(coder);
        let outputs: Vec<(String, String)> = leaf
            .outputs()
            .into_iter()
            .map(|(tag, id)| (tag.to_owned(), id.to_owned()))
            .collect();
        let mut transcoders = Vec::new();
        for (tag, id) in outputs {
            let declared = self.format(&id)?;
            self.with_coder(&id, whole.as_deref().unwrap_or(coder))?;
            let own = self.input_format(&id)?;
            let is_kv = |format: &Format| self.coders.kv(&format.wire.id).is_some();
            let hides = !self.coders.elements_are_nested() && is_kv(&declared) && !is_kv(&own);
            if whole.is_none() && !hides {
                continue;
            }
            // Without an environment nothing needs its keys.
            let Some(environment) = self.environment(read_in, &id) else {
                continue;
            };
            let made = self.collection_like(leaf, &tag, &id, own);
            leaf.proto.outputs.insert(tag.clone(), made.clone());
            self.set(&id, declared);
            transcoders.push(self.identity(leaf, &tag, environment, [&made, &id], &made));
            made_in.insert(id, environment);
        }
        Ok(transcoders)
    }

    /// What GroupByKey emits is made of its input's bytes, whatever coder its output declares.
    fn grouped(&mut self, leaf: &Leaf) -> Result<(), String> {
        let inputs = leaf.main_inputs();
        let &(_, input) = inputs.first().ok_or("it has no input")?;
        let input = self.input_format(input)?;
        let Some((key, value)) = self.coders.kv(&input.wire.id) else {
            let coder = &input.wire.coder;
            return Err(format!(
                "its input's elements must be KVs with beam:coder:kv:v1, so that keys can be told from values; their \
                 coder is {coder}"
            ));
        };
        let iterable = self.coders.make(coder_urns::ITERABLE, &[&value]);
        let grouped = self.coders.make(coder_urns::KV, &[&key, &iterable]);
        for (_, id) in leaf.outputs() {
            let declared = self.format(id)?;
            if declared.window != input.window {
                return Err("input and output have windows of different coders".to_owned());
            }
            self.with_coder(id, &grouped)?;
        }
        Ok(())
    }

    /// One coder for all inputs and the output of a Flatten or Redistribute.
    fn unify(
        &mut self,
        leaf: &mut Leaf,
        made_in: &mut HashMap<String, usize>,
        read_in: &HashMap<String, usize>,
    ) -> Result<(), String> {
        let outputs: Vec<String> = leaf.outputs().into_iter().map(|(_, id)| id.to_owned()).collect();
        let Some(output) = outputs.first() else {
            return Ok(());
        };
        let mut format = self.format(output)?;
        let inputs: Vec<(String, String)> = leaf
            .main_inputs()
            .into_iter()
            .map(|(tag, id)| (tag.to_owned(), id.to_owned()))
            .collect();
        let mut formats = Vec::with_capacity(inputs.len());
        for (tag, id) in &inputs {
            let input = self.input_format(id)?;
            if input.window != format.window {
                return Err(format!(
                    "input \"{tag}\" has windows of coder {}, the output of {}; window all inputs alike",
                    input.window.urn(),
                    format.window.urn()
                ));
            }
            formats.push(input);
        }
        // Where all inputs agree, their coder serves; a declared coder that all SDKs know is kept all the same, and one
        // that tells keys from values.
        let is_kv = |wire: &Wire| self.coders.kv(&wire.id).is_some();
        if let Some(first) = formats.first()
            && formats.iter().all(|f| f.wire.identity == first.wire.identity)
            && (!format.wire.plain || first.wire.plain)
            && (!is_kv(&format.wire) || is_kv(&first.wire))
        {
            format.wire = first.wire.clone();
        }
        for ((tag, id), input) in inputs.iter().zip(&formats) {
            if input.wire.identity != format.wire.identity {
                // Where the input is made, its coder is known. What no SDK makes, such as a TestStream's elements, is read in one
                // that knows it.
                let environment = self.environment(made_in, id).or(read_in.get(output).copied());
                let environment = environment.ok_or_else(|| {
                    format!(
                        "input \"{tag}\" has another coder than the output, and no environment can be found to \
                         transcode it"
                    )
                })?;
                let made = self.collection_like(leaf, tag, id, format.clone());
                let transcoder = self.identity(leaf, tag, environment, [id, &made], &made);
                self.leaves.push(transcoder);
                leaf.proto.inputs.insert(tag.clone(), made.clone());
                made_in.insert(made, environment);
            }
        }
        self.set(output, format);
        Ok(())
    }

    /// The environment that is known for a collection, or the only one.
    fn environment(&self, known: &HashMap<String, usize>, collection: &str) -> Option<usize> {
        let only = (self.environments.list.len() == 1).then_some(0);
        known.get(collection).copied().or(only)
    }

    /// A collection like another one, but sent in this format, on one side of a transcoding beside a leaf.
    fn collection_like(&mut self, leaf: &Leaf, tag: &str, like: &str, format: Format) -> String {
        let mut id = format!("{}/transcode/{tag}", leaf.id);
        while self.pcollections.contains_key(&id) || self.components.transforms.contains_key(&id) {
            id.push('_');
        }
        let mut collection = self.pcollections.get(like).cloned().unwrap_or_default();
        collection.unique_name.clone_from(&id);
        collection.coder_id.clone_from(&format.wire.id);
        self.pcollections.insert(id.clone(), collection);
        self.set(&id, format);
        id
    }

    /// A transform, executed by an SDK, that only writes elements anew with the coder of another collection.
    fn identity(&self, leaf: &Leaf, tag: &str, environment: usize, [from, to]: [&str; 2], id: &str) -> Leaf {
        Leaf {
            id: id.to_owned(),
            proto: PTransform {
                unique_name: format!("{}/Transcode/{tag}", leaf.name()),
                spec: Some(FunctionSpec {
                    urn: urns::FLATTEN.to_owned(),
                    payload: Default::default(),
                }),
                inputs: HashMap::from([("in".to_owned(), from.to_owned())]),
                outputs: HashMap::from([("out".to_owned(), to.to_owned())]),
                environment_id: self.environments.id(environment),
                ..PTransform::default()
            },
            op: Op::User(Box::default()),
            environment: Some(environment),
        }
    }

    /// Makes the engine's graph. The index of a leaf is its transform's id.
    pub(super) fn graph(&mut self, workers: u32, slots: u32) -> (engine::Graph, TiVec<CollectionId, String>) {
        let mut graph = engine::Graph::default();
        // Tests expect elements in the order of the TestStream's events, which bundles side by side would not keep.
        let is_test = self
            .leaves
            .iter()
            .any(|leaf| matches!(leaf.op, Op::TestStream(_)));
        let slots = if is_test { 1 } else { slots };
        for (index, environment) in self.environments.list.iter().enumerate() {
            graph.environments.push(engine::Environment {
                name: environment.id.clone(),
                workers: workers.max(1),
                slots_per_worker: self.environments.max_bundles(index).unwrap_or(slots).max(1),
            });
        }
        let mut ids: TiVec<CollectionId, String> = TiVec::new();
        let mut collections: HashMap<String, CollectionId> = HashMap::new();
        let leaves = std::mem::take(&mut self.leaves);
        for leaf in &leaves {
            for (_, id) in leaf.outputs() {
                if collections.contains_key(id) {
                    continue;
                }
                match self.collection(id, leaf.environment) {
                    Ok(collection) => {
                        let collection = graph.collections.push_and_get_key(collection);
                        collections.insert(id.to_owned(), collection);
                        ids.push(id.to_owned());
                    }
                    Err(message) => self.problems.add(leaf.name(), message),
                }
            }
        }
        for leaf in &leaves {
            let known = |list: Vec<(&str, &str)>| -> Vec<CollectionId> {
                list.into_iter()
                    .filter_map(|(_, id)| collections.get(id).copied())
                    .collect()
            };
            let kind = match &leaf.op {
                Op::Impulse => engine::TransformKind::Impulse,
                Op::Flatten => engine::TransformKind::Flatten,
                Op::GroupByKey => engine::TransformKind::GroupByKey,
                Op::Redistribute => engine::TransformKind::Redistribute,
                Op::TestStream(payload) => match self.test_stream_events(leaf, payload) {
                    Ok(stream) => engine::TransformKind::TestStream(stream),
                    Err(message) => {
                        self.problems.add(leaf.name(), message);
                        engine::TransformKind::Impulse
                    }
                },
                Op::User(user) => engine::TransformKind::User(self.user(leaf, user, &collections)),
            };
            graph.transforms.push(engine::Transform {
                name: leaf.name().to_owned(),
                inputs: known(leaf.main_inputs()),
                outputs: known(leaf.outputs()),
                kind,
            });
        }
        self.leaves = leaves;
        (graph, ids)
    }

    /// Pairs of process-sized and truncate-sized transforms.
    pub(super) fn truncates(&self) -> Vec<(TransformId, TransformId)> {
        let place = |id: &str| self.leaves.iter().position(|leaf| leaf.id == id);
        let pairs = self
            .leaves
            .iter()
            .enumerate()
            .filter_map(|(process, leaf)| match &leaf.op {
                Op::User(user) => Some((process, place(user.truncate.as_deref()?)?)),
                _ => None,
            });
        pairs
            .map(|(process, truncate)| (process.into(), truncate.into()))
            .collect()
    }

    /// Whether an SDK wrote a strategy that asks for empty closing panes in every strategy. Python's does, though its
    /// users cannot ask for them and its own runners do not make them; its combiners need not be able to merge nothing.
    fn always_closes(&self, strategy: &pipeline::WindowingStrategy, made_in: Option<usize>) -> bool {
        let environment = self.environments.get(&strategy.environment_id).or(made_in);
        let environment = environment.and_then(|index| self.environments.list.get(index));
        environment.is_some_and(|environment| {
            let capabilities = &environment.proto.capabilities;
            capabilities.iter().any(|c| c.starts_with(PYTHON_SDK))
        })
    }

    fn collection(&mut self, id: &str, made_in: Option<usize>) -> Result<engine::Collection, String> {
        let format = self.input_format(id)?;
        let collection = self.pcollections.get(id).ok_or("a PCollection is missing")?;
        let strategy = self
            .components
            .windowing_strategies
            .get(&collection.windowing_strategy_id);
        let mut windowing = match strategy {
            Some(strategy) => windowing::windowing(strategy).map_err(|error| {
                format!(
                    "windowing strategy \"{}\": {error}",
                    collection.windowing_strategy_id
                )
            })?,
            None => windowing::global_windowing(),
        };
        if strategy.is_some_and(|strategy| self.always_closes(strategy, made_in)) {
            windowing.closing = engine::PaneEmission::IfNonEmpty;
        }
        if let engine::WindowFn::Custom(_) = windowing.window_fn {
            let named = strategy.and_then(|s| self.environments.get(&s.environment_id));
            let only = (self.environments.list.len() == 1).then_some(0);
            windowing.environment = named.or(made_in).or(only).map(EnvironmentId::from);
        }
        Ok(engine::Collection {
            name: if collection.unique_name.is_empty() {
                id.to_owned()
            } else {
                collection.unique_name.clone()
            },
            coder: format.wire.coder,
            window_coder: format.window,
            windowing,
            bounded: collection.is_bounded() != pipeline::is_bounded::Enum::Unbounded,
        })
    }

    fn user(
        &mut self,
        leaf: &Leaf,
        user: &super::leaves::User,
        collections: &HashMap<String, CollectionId>,
    ) -> engine::UserTransform {
        let mut made = engine::UserTransform {
            environment: leaf.environment.map(EnvironmentId::from),
            side_inputs: Vec::new(),
            stateful: user.stateful(),
            timers: Vec::new(),
            on_window_expiration: None,
            splittable: user.splittable,
            requires_time_sorted_input: false,
            requires_stable_input: false,
        };
        let Some(pardo) = &user.pardo else { return made };
        made.requires_stable_input = pardo.requires_stable_input;
        made.requires_time_sorted_input = pardo.requires_time_sorted_input;
        let mut tags: Vec<&String> = pardo.side_inputs.keys().collect();
        tags.sort_unstable();
        for tag in tags {
            match self.side_input(leaf, tag, &pardo.side_inputs[tag], collections) {
                Ok(side) => made.side_inputs.push(side),
                Err(message) => self.problems.add(leaf.name(), message),
            }
        }
        if made.stateful
            && let Err(message) = self.check_keyed(leaf)
        {
            self.problems.add(leaf.name(), message);
        }
        let mut families: Vec<&String> = pardo.timer_family_specs.keys().collect();
        families.sort_unstable();
        for family in families {
            match self.timer(leaf, family, &pardo.timer_family_specs[family]) {
                Ok(timer) => made.timers.push(timer),
                Err(message) => self.problems.add(leaf.name(), message),
            }
        }
        self.check_states(leaf, pardo);
        let expiration = &pardo.on_window_expiration_timer_family_spec;
        made.on_window_expiration = (!expiration.is_empty()).then(|| expiration.clone());
        made
    }

    fn side_input(
        &self,
        leaf: &Leaf,
        tag: &str,
        side: &pipeline::SideInput,
        collections: &HashMap<String, CollectionId>,
    ) -> Result<engine::SideInput, String> {
        let id = leaf
            .proto
            .inputs
            .get(tag)
            .ok_or_else(|| format!("side input \"{tag}\" is no input"))?;
        let collection = collections.get(id).copied();
        let collection =
            collection.ok_or_else(|| format!("side input \"{tag}\" reads an unusable PCollection"))?;
        let format = self.input_format(id)?;
        let urn = side.access_pattern.as_ref().map_or("", |spec| spec.urn.as_str());
        let access = if urn == side_inputs::MULTIMAP {
            if format.wire.coder.as_kv().is_none() {
                return Err(format!(
                    "side input \"{tag}\" is a multimap, but its elements are no KVs"
                ));
            }
            engine::SideInputAccess::Multimap
        } else {
            engine::SideInputAccess::Iterable
        };
        let strategy = self.pcollections.get(id).map(|c| &c.windowing_strategy_id);
        let strategy = strategy.and_then(|id| self.components.windowing_strategies.get(id));
        let custom = strategy.map(windowing::windowing).is_some_and(|windowing| {
            windowing.is_ok_and(|w| matches!(w.window_fn, engine::WindowFn::Custom(_)))
        });
        let mapping = if custom {
            engine::WindowMapping::Sdk
        } else {
            engine::WindowMapping::Standard
        };
        Ok(engine::SideInput {
            tag: tag.to_owned(),
            collection,
            access,
            mapping,
        })
    }

    fn check_keyed(&self, leaf: &Leaf) -> Result<(), String> {
        let inputs = leaf.main_inputs();
        let &(_, input) = inputs.first().ok_or("it has no main input")?;
        let format = self.input_format(input)?;
        match format.wire.coder.as_kv() {
            Some(_) => Ok(()),
            None => Err(format!(
                "it uses state or timers, so its input's elements must be KVs with beam:coder:kv:v1; their coder is {}",
                format.wire.coder
            )),
        }
    }

    fn timer(
        &mut self,
        leaf: &Leaf,
        family: &str,
        spec: &pipeline::TimerFamilySpec,
    ) -> Result<engine::TimerFamily, String> {
        let domain = match spec.time_domain() {
            pipeline::time_domain::Enum::EventTime => engine::TimeDomain::EventTime,
            pipeline::time_domain::Enum::ProcessingTime => engine::TimeDomain::ProcessingTime,
            pipeline::time_domain::Enum::Unspecified => {
                return Err(format!("timer family \"{family}\" has no time domain"));
            }
        };
        // Timers bear the key as the elements do, so that the engine can match them.
        let inputs = leaf.main_inputs();
        let &(_, input) = inputs.first().ok_or("it has no main input")?;
        let format = self.input_format(input)?;
        if let Some((key, _)) = self.coders.kv(&format.wire.id) {
            let coder = self.coders.make(coder_urns::TIMER, &[&key, &format.window_id]);
            self.coders
                .wire(&coder)
                .map_err(|error| format!("timer family \"{family}\": {error}"))?;
            self.timer_coders
                .insert((leaf.id.clone(), family.to_owned()), coder);
        }
        Ok(engine::TimerFamily {
            name: family.to_owned(),
            domain,
        })
    }

    fn check_states(&mut self, leaf: &Leaf, pardo: &pipeline::ParDoPayload) {
        let mut names: Vec<&String> = pardo.state_specs.keys().collect();
        names.sort_unstable();
        for name in names {
            for id in super::stage::state_coders(&pardo.state_specs[name]) {
                if self.coders.get(id).is_none() {
                    let message =
                        format!("state \"{name}\": coder \"{id}\" is not among the pipeline's components");
                    self.problems.add(leaf.name(), message);
                }
            }
        }
    }

    fn test_stream_events(
        &mut self,
        leaf: &Leaf,
        payload: &pipeline::TestStreamPayload,
    ) -> Result<engine::TestStream, String> {
        // The Go SDK names the pipeline's first coder, whatever the elements are.
        let own = match leaf.outputs().as_slice() {
            [(_, id)] if self.coders.elements_are_nested() => self.pcollections.get(*id),
            _ => None,
        };
        let coder = own.map_or(&payload.coder_id, |own| &own.coder_id).clone();
        let events = payload
            .events
            .iter()
            .map(|event| test_stream_event(&mut self.coders, leaf, &coder, event));
        Ok(engine::TestStream {
            events: events.collect::<Result<_, _>>()?,
            remote: payload
                .endpoint
                .as_ref()
                .is_some_and(|endpoint| !endpoint.url.is_empty()),
        })
    }

    /// The payloads of ParDos with the timer coders that the runner reads.
    pub(super) fn rewrite_payloads(&mut self) {
        for leaf in &mut self.leaves {
            let Op::User(user) = &leaf.op else { continue };
            let Some(pardo) = &user.pardo else { continue };
            if pardo.timer_family_specs.is_empty() && pardo.state_specs.is_empty() {
                continue;
            }
            let mut pardo = pardo.clone();
            for (family, spec) in &mut pardo.timer_family_specs {
                if let Some(coder) = self.timer_coders.get(&(leaf.id.clone(), family.clone())) {
                    spec.timer_family_coder_id.clone_from(coder);
                }
            }
            if let Some(spec) = &mut leaf.proto.spec {
                spec.payload = pardo.encode_to_vec().into();
            }
        }
    }
}

/// One step of a TestStream, with elements in the wire form.
pub(super) fn test_stream_event(
    coders: &mut Coders,
    leaf: &Leaf,
    coder: &str,
    event: &test_stream_payload::Event,
) -> Result<engine::TestStreamEvent, String> {
    use test_stream_payload::event::Event;
    let outputs = leaf.outputs();
    let output = |tag: &str| -> Option<usize> {
        outputs
            .iter()
            .position(|(name, _)| *name == tag)
            .or((outputs.len() == 1).then_some(0))
    };
    match &event.event {
        Some(Event::ElementEvent(added)) => {
            let output = output(&added.tag);
            let output =
                output.ok_or_else(|| format!("an event names output \"{}\", which is none", added.tag))?;
            let elements = added.elements.iter().map(|element| {
                let nested = coders.scripted(coder, &element.encoded_element);
                let nested = nested.ok_or_else(|| format!("an element is not of coder \"{coder}\""))?;
                Ok((nested, Timestamp::from_millis(element.timestamp)))
            });
            let elements = elements.collect::<Result<_, String>>()?;
            Ok(engine::TestStreamEvent::Elements { output, elements })
        }
        Some(Event::WatermarkEvent(advance)) => Ok(engine::TestStreamEvent::Watermark {
            output: output(&advance.tag),
            to: Timestamp::from_millis(advance.new_watermark),
        }),
        Some(Event::ProcessingTimeEvent(advance)) if advance.advance_duration >= 0 => {
            Ok(engine::TestStreamEvent::ProcessingTime(advance.advance_duration))
        }
        Some(Event::ProcessingTimeEvent(_)) => Err("processing time goes back".to_owned()),
        None => Err("an event is empty".to_owned()),
    }
}

/// Ids of all collections that are read as side inputs by these leaves.
pub(super) fn side_collections<'a>(leaves: impl Iterator<Item = &'a Leaf>) -> HashSet<&'a str> {
    let mut found = HashSet::new();
    for leaf in leaves {
        let Op::User(user) = &leaf.op else { continue };
        let Some(pardo) = &user.pardo else { continue };
        found.extend(
            pardo
                .side_inputs
                .keys()
                .filter_map(|tag| leaf.proto.inputs.get(tag).map(String::as_str)),
        );
    }
    found
}
