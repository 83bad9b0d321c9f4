//! `beam:transform:pardo:v1` with state and timers.

use std::collections::HashMap;

use purlin_model::{CoderSpec, Element, urns as coder_urns};
use purlin_proto::pipeline::{self as beam, FunctionSpec, ParDoPayload, state_spec, time_domain};
use purlin_proto::urns::user_states;
use purlin_runner::translate::QUERYABLE_STATE;

use super::ends::{Sides, SomeTags, add_step, user_code_transform};
use super::pair::Pair;
use super::tags::OutputTags;
use crate::closure::CLOSURE_COMBINE_FN;
use crate::dofn::{EXPIRATION, StatefulDoFn};
use crate::harness::StatefulNode;
use crate::pipeline::{PCollection, PTransform, Pipeline};
use crate::side_input::{SideInput, View};
use crate::state::{FieldKind, FieldSpec, Fields, TimeDomain};
use crate::windowing::SdkWindowFn;

/// Calls a [`StatefulDoFn`] for each value of each key.
///
/// ```
/// use purlin::prelude::*;
///
/// /// Lets the first value of each key through.
/// #[derive(Clone)]
/// struct First {
///     seen: ValueState<bool>,
/// }
///
/// impl StatefulDoFn for First {
///     type Key = i64;
///     type Value = String;
///     type Out = String;
///     purlin::fields!(seen);
///
///     fn process(&mut self, _key: i64, value: String, ctx: &mut KeyedContext<'_, String>) -> DoFnResult {
///         if self.seen.read(ctx)?.is_none() {
///             self.seen.write(ctx, &true)?;
///             ctx.output(value);
///         }
///         Ok(())
///     }
/// }
///
/// let p = Pipeline::new();
/// p.apply(Create::new([(1i64, "a".to_string()), (1, "b".to_string())]))
///     .apply(StatefulParDo::new("First", First { seen: ValueState::new("seen") }));
/// p.run(&PipelineOptions::default())?;
/// # Ok::<(), RunError>(())
/// ```
#[derive(Clone)]
pub struct StatefulParDo<D, Tags = ()> {
    name: String,
    dofn: D,
    tags: Tags,
    sides: Sides,
}

user_code_transform!(StatefulParDo<D: StatefulDoFn>, PCollection<(D::Key, D::Value)>);

impl<D: StatefulDoFn, Tags: OutputTags> StatefulParDo<D, Tags> {
    fn add(self, input: &PCollection<(D::Key, D::Value)>) -> (PCollection<D::Out>, Tags::Collections) {
        let pipeline = input.pipeline();
        let (windowing, bounded) = (input.windowing(), input.is_bounded());
        if windowing.window_fn().merges() && !windowing.already_merged {
            pipeline.problem(format!(
                "state belongs to a window, but its input is in {} windows, which merge; group by key before it, or \
                 use windows that do not merge",
                windowing.window_fn()
            ));
        }
        let mut fields = Fields::default();
        self.dofn.fields(&mut fields);
        let fields = fields.into_specs();
        let mut declared = Declared::new(pipeline, &fields);
        let timer_coder = CoderSpec::of(
            coder_urns::TIMER,
            vec![D::Key::coder(), windowing.window_fn().window_coder_spec()],
        );
        let timer_coder = pipeline.coder_id(&timer_coder);
        for field in &fields {
            declared.add(field, &timer_coder);
            if field.queryable {
                pipeline.annotate(format!("{QUERYABLE_STATE}{}", field.name));
            }
        }
        let mut expiration = String::new();
        if D::ON_WINDOW_EXPIRATION {
            EXPIRATION.clone_into(&mut expiration);
            let family = timer_family(TimeDomain::EventTime, &timer_coder);
            declared.timers.insert(expiration.clone(), family);
        }
        let Declared { states, timers, .. } = declared;
        if states.is_empty() && timers.is_empty() {
            pipeline.problem(
                "it declares neither state nor timers: name its fields in purlin::fields!(..), or use a DoFn",
            );
        }
        let payload = ParDoPayload {
            state_specs: states,
            timer_family_specs: timers,
            on_window_expiration_timer_family_spec: expiration,
            requests_finalization: D::FINALIZES_BUNDLES,
            requires_stable_input: D::REQUIRES_STABLE_INPUT,
            requires_time_sorted_input: D::REQUIRES_TIME_SORTED_INPUT,
            ..ParDoPayload::default()
        };
        let window_fn = windowing.window_fn().clone();
        add_step(
            pipeline,
            (windowing, bounded),
            (self.dofn, self.tags, self.sides),
            |prototype| StatefulNode {
                prototype,
                fields,
                window_fn,
            },
            payload,
        )
    }
}

/// Fields as the pipeline proto has them.
struct Declared<'a> {
    pipeline: &'a Pipeline,
    names: Vec<&'a str>,
    states: HashMap<String, beam::StateSpec>,
    timers: HashMap<String, beam::TimerFamilySpec>,
}

fn timer_family(domain: TimeDomain, coder: &str) -> beam::TimerFamilySpec {
    let domain = match domain {
        TimeDomain::EventTime => time_domain::Enum::EventTime,
        TimeDomain::ProcessingTime => time_domain::Enum::ProcessingTime,
    };
    beam::TimerFamilySpec {
        time_domain: domain.into(),
        timer_family_coder_id: coder.to_owned(),
    }
}

impl<'a> Declared<'a> {
    fn new(pipeline: &'a Pipeline, fields: &'a [FieldSpec]) -> Declared<'a> {
        let names: Vec<&str> = fields.iter().map(|field| &*field.name).collect();
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) {
                pipeline.problem(format!("two of its states or timers have the name \"{name}\""));
            }
        }
        if names.iter().any(|name| name.is_empty()) {
            pipeline.problem("one of its states or timers has an empty name");
        }
        Declared {
            pipeline,
            names,
            states: HashMap::new(),
            timers: HashMap::new(),
        }
    }

    fn add(&mut self, field: &FieldSpec, timer_coder: &str) {
        use state_spec::Spec;
        let id = |coder: &CoderSpec| self.pipeline.coder_id(coder);
        debug_assert!(self.names.contains(&&*field.name));
        let (spec, protocol) = match &field.kind {
            FieldKind::Timer(domain) => {
                let family = timer_family(*domain, timer_coder);
                self.timers.insert(field.name.to_string(), family);
                return;
            }
            FieldKind::Value(coder) => (
                Spec::ReadModifyWriteSpec(beam::ReadModifyWriteStateSpec { coder_id: id(coder) }),
                user_states::BAG,
            ),
            FieldKind::Bag(coder) => (
                Spec::BagSpec(beam::BagStateSpec {
                    element_coder_id: id(coder),
                }),
                user_states::BAG,
            ),
            // A bag is the one protocol for sets that all runners know.
            FieldKind::Set(coder) => (
                Spec::SetSpec(beam::SetStateSpec {
                    element_coder_id: id(coder),
                }),
                user_states::BAG,
            ),
            FieldKind::Combining(coder) => (
                Spec::CombiningSpec(beam::CombiningStateSpec {
                    accumulator_coder_id: id(coder),
                    combine_fn: Some(FunctionSpec {
                        urn: CLOSURE_COMBINE_FN.to_owned(),
                        payload: Default::default(),
                    }),
                }),
                user_states::BAG,
            ),
            FieldKind::Map(key, value) => (
                Spec::MapSpec(beam::MapStateSpec {
                    key_coder_id: id(key),
                    value_coder_id: id(value),
                }),
                user_states::MULTIMAP,
            ),
            FieldKind::Multimap(key, value) => (
                Spec::MultimapSpec(beam::MultimapStateSpec {
                    key_coder_id: id(key),
                    value_coder_id: id(value),
                }),
                user_states::MULTIMAP,
            ),
            FieldKind::OrderedList(coder) => (
                Spec::OrderedListSpec(beam::OrderedListStateSpec {
                    element_coder_id: id(coder),
                }),
                user_states::ORDERED_LIST,
            ),
        };
        let protocol = FunctionSpec {
            urn: protocol.to_owned(),
            payload: Default::default(),
        };
        let state = beam::StateSpec {
            spec: Some(spec),
            protocol: Some(protocol),
        };
        self.states.insert(field.name.to_string(), state);
    }
}

impl<T: Element> PCollection<T> {
    /// Calls a DoFn with state and timers for each value of each key; see [`StatefulParDo`].
    pub fn stateful_par_do<D>(&self, name: &str, dofn: D) -> PCollection<D::Out>
    where
        T: Pair,
        D: StatefulDoFn<Key = T::Key, Value = T::Value>,
    {
        T::pairs(self).apply(StatefulParDo::new(name, dofn))
    }
}
