//! The graph as Beam's pipeline proto.

use std::collections::BTreeSet;
use std::sync::Arc;

use prost::Message;
use purlin_model::{CoderSpec, urns as coder_urns};
use purlin_proto::pipeline::{self as beam, is_bounded};
use purlin_proto::urns::{protocols, requirements, transforms};

use super::graph::{Collection, Graph, TransformIndex};
use crate::error::BuildError;
use crate::stage::Registry;
use crate::windowing::{SdkWindowFn, Windowing};

/// Id of the SDK's environment in every pipeline.
pub(crate) const ENVIRONMENT: &str = "rust";

/// A pipeline that can be run: its proto, and the user code behind it.
#[derive(Clone, Debug)]
pub struct BuiltPipeline {
    /// The pipeline. Its one environment, `"rust"`, is `beam:env:default:v1` until [`BuiltPipeline::set_environment`].
    pub proto: beam::Pipeline,
    /// User code by the paths in the proto's payloads.
    pub registry: Arc<Registry>,
}

impl BuiltPipeline {
    /// Sets where the user code is to run; the SDK's capabilities stay.
    pub fn set_environment(&mut self, urn: &str, payload: impl Into<bytes::Bytes>) {
        let environment = beam::Environment {
            urn: urn.into(),
            payload: payload.into(),
            ..super::default_environment()
        };
        let components = self.proto.components.get_or_insert_default();
        components.environments.insert(ENVIRONMENT.into(), environment);
    }
}

/// What this SDK can do, as Beam's URNs.
pub(crate) fn capabilities() -> Vec<String> {
    let coders = [
        coder_urns::BYTES,
        coder_urns::STRING_UTF8,
        coder_urns::BOOL,
        coder_urns::VARINT,
        coder_urns::DOUBLE,
        coder_urns::KV,
        coder_urns::ITERABLE,
        coder_urns::STATE_BACKED_ITERABLE,
        coder_urns::LENGTH_PREFIX,
        coder_urns::NULLABLE,
        coder_urns::GLOBAL_WINDOW,
        coder_urns::INTERVAL_WINDOW,
        coder_urns::CUSTOM_WINDOW,
        coder_urns::TIMER,
        coder_urns::WINDOWED_VALUE,
    ];
    let others = [
        protocols::PROGRESS_REPORTING,
        protocols::MULTI_CORE_BUNDLE_PROCESSING,
        protocols::HARNESS_MONITORING_INFOS,
        "beam:version:sdk_base:purlin",
        transforms::FLATTEN,
        transforms::ASSIGN_WINDOWS,
        transforms::COMBINE_PER_KEY_PRECOMBINE,
        transforms::COMBINE_PER_KEY_MERGE_ACCUMULATORS,
        transforms::COMBINE_PER_KEY_EXTRACT_OUTPUTS,
        transforms::COMBINE_PER_KEY_CONVERT_TO_ACCUMULATORS,
        transforms::COMBINE_GROUPED_VALUES,
        transforms::TRUNCATE_SIZED_RESTRICTION,
    ];
    coders
        .iter()
        .chain(&others)
        .map(|urn| (*urn).to_owned())
        .collect()
}

fn transform_id(index: TransformIndex) -> String {
    format!("t{}", index.0)
}

fn collection_id(index: usize) -> String {
    format!("p{index}")
}

pub(crate) fn build(graph: &Graph) -> Result<BuiltPipeline, BuildError> {
    let mut problems = graph.problems.clone();
    check_groupings(graph, &mut problems);
    if graph.roots().is_empty() {
        problems.push("it has no transforms: apply at least one".into());
    }
    if !problems.is_empty() {
        return Err(BuildError { problems });
    }

    let mut components = beam::Components::default();
    components
        .environments
        .insert(ENVIRONMENT.into(), super::default_environment());

    for (id, spec) in &graph.coders.specs {
        components.coders.insert(id.clone(), coder(graph, spec));
    }
    let coder_id = |spec: &CoderSpec| graph.coders.get(spec).cloned().unwrap_or_default();

    let mut windowings: Vec<(&Windowing, String)> = Vec::new();
    for (index, collection) in graph.collections.iter().enumerate() {
        let windowing = &collection.windowing;
        let windowing_id = match windowings.iter().find(|(w, _)| *w == windowing) {
            Some((_, id)) => id.clone(),
            None => {
                let id = format!("w{}", windowings.len());
                let window_coder = coder_id(&windowing.window_fn.window_coder_spec());
                let proto = windowing.to_proto(window_coder, ENVIRONMENT.into());
                components.windowing_strategies.insert(id.clone(), proto);
                windowings.push((windowing, id.clone()));
                id
            }
        };
        components.pcollections.insert(
            collection_id(index),
            collection_proto(collection, coder_id, windowing_id),
        );
    }

    let mut needs = BTreeSet::new();
    for (index, transform) in graph.transforms.iter().enumerate().skip(1) {
        let ids = |list: &[(String, super::CollectionId)]| {
            list.iter()
                .map(|(tag, id)| (tag.clone(), collection_id(id.0)))
                .collect()
        };
        let spec = transform.spec.as_ref();
        if let Some((urn, payload)) = spec
            && urn == transforms::PAR_DO
        {
            add_requirements(payload, &mut needs);
        }
        let proto = beam::PTransform {
            unique_name: transform.name.clone(),
            spec: spec.map(|(urn, payload)| beam::FunctionSpec {
                urn: urn.clone(),
                payload: payload.clone(),
            }),
            subtransforms: transform.children.iter().map(|c| transform_id(*c)).collect(),
            inputs: ids(&transform.inputs),
            outputs: ids(&transform.outputs),
            environment_id: if transform.in_environment {
                ENVIRONMENT.into()
            } else {
                String::new()
            },
            annotations: transform
                .annotations
                .iter()
                .map(|key| (key.clone(), Default::default()))
                .collect(),
            ..Default::default()
        };
        components
            .transforms
            .insert(transform_id(TransformIndex(index)), proto);
    }

    let proto = beam::Pipeline {
        components: Some(components),
        root_transform_ids: graph.roots().iter().map(|t| transform_id(*t)).collect(),
        display_data: Vec::new(),
        requirements: needs.into_iter().collect(),
    };
    Ok(BuiltPipeline {
        proto,
        registry: Arc::new(Registry::new(graph.nodes.clone(), graph.window_fns.clone())),
    })
}

fn coder(graph: &Graph, spec: &CoderSpec) -> beam::Coder {
    beam::Coder {
        spec: Some(beam::FunctionSpec {
            urn: spec.urn.to_string(),
            payload: spec.payload.clone(),
        }),
        component_coder_ids: spec
            .components
            .iter()
            .map(|c| graph.coders.get(c).cloned().unwrap_or_default())
            .collect(),
    }
}

fn collection_proto(
    collection: &Collection,
    coder_id: impl Fn(&CoderSpec) -> String,
    windowing_strategy_id: String,
) -> beam::PCollection {
    let bounded = if collection.bounded {
        is_bounded::Enum::Bounded
    } else {
        is_bounded::Enum::Unbounded
    };
    beam::PCollection {
        unique_name: collection.name.clone(),
        coder_id: coder_id(&collection.coder),
        is_bounded: bounded.into(),
        windowing_strategy_id,
        display_data: Vec::new(),
    }
}

/// A grouping of an unbounded collection in the global window needs a trigger that fires before the end of time.
fn check_groupings(graph: &Graph, problems: &mut Vec<String>) {
    for transform in &graph.transforms {
        if transform
            .spec
            .as_ref()
            .is_none_or(|(urn, _)| urn != transforms::GROUP_BY_KEY)
        {
            continue;
        }
        for (_, id) in &transform.inputs {
            let collection = graph.collection(*id);
            let windowing = &collection.windowing;
            let global = windowing.window_fn == crate::windowing::WindowFn::Global;
            let waits = windowing.trigger.waits_for_the_window() && !windowing.to_the_end;
            if !collection.bounded && global && waits {
                problems.push(format!(
                    "transform \"{}\": it groups an unbounded collection in the global window, which never \
                     closes; apply window_into with windows or with a trigger first",
                    transform.name
                ));
            }
        }
    }
}

fn add_requirements(payload: &bytes::Bytes, needs: &mut BTreeSet<String>) {
    let Ok(pardo) = beam::ParDoPayload::decode(payload.clone()) else {
        return;
    };
    let mut need = |wanted: bool, urn: &str| {
        if wanted {
            needs.insert(urn.to_owned());
        }
    };
    need(
        !pardo.state_specs.is_empty() || !pardo.timer_family_specs.is_empty(),
        requirements::REQUIRES_STATEFUL_PROCESSING,
    );
    need(
        pardo.requests_finalization,
        requirements::REQUIRES_BUNDLE_FINALIZATION,
    );
    need(pardo.requires_stable_input, requirements::REQUIRES_STABLE_INPUT);
    need(
        pardo.requires_time_sorted_input,
        requirements::REQUIRES_TIME_SORTED_INPUT,
    );
    need(
        !pardo.restriction_coder_id.is_empty(),
        requirements::REQUIRES_SPLITTABLE_DOFN,
    );
    need(
        !pardo.on_window_expiration_timer_family_spec.is_empty(),
        requirements::REQUIRES_ON_WINDOW_EXPIRATION,
    );
}
