//! States that the pipeline lets others read while the job runs.
//!
//! A transform names each in an annotation, which runners that do not know it pass over: [`QUERYABLE_STATE`] with the state's name
//! behind it. SDKs of any language can set annotations.

use purlin_engine::TransformId;
use purlin_model::{Coder, WindowCoder};
use purlin_proto::pipeline::{StateSpec, state_spec};

use super::graph::Builder;
use super::leaves::Op;

/// What the key of an annotation begins with that makes a state queryable; the state's name follows. Its value does not matter.
pub const QUERYABLE_STATE: &str = "purlin:queryable_state:v1:";

/// A state that can be read from outside of the job.
#[derive(Debug)]
pub(crate) struct QueryableState {
    pub transform: TransformId,
    /// The transform's id in the pipeline.
    pub id: String,
    /// Its unique name.
    pub name: String,
    pub state: String,
    /// Coders and kind, or why it cannot be read all the same.
    pub format: Result<StateFormat, String>,
}

/// How a state is encoded.
#[derive(Debug)]
pub(crate) struct StateFormat {
    pub key: Coder,
    pub window: WindowCoder,
    pub kind: StateKind,
}

/// The kinds of states, with the coders of what is in them.
#[derive(Clone, Debug)]
pub(crate) enum StateKind {
    Value(Coder),
    Bag(Coder),
    Set(Coder),
    /// The accumulator's coder.
    Combining(Coder),
    Map(Coder, Coder),
    Multimap(Coder, Coder),
    OrderedList(Coder),
}

impl Builder<'_> {
    /// The states that transforms' annotations name. Annotations that name none are passed over: they change nothing in what the
    /// pipeline computes.
    pub(super) fn queryable_states(&self) -> Vec<QueryableState> {
        let mut found = Vec::new();
        for (number, leaf) in self.leaves.iter().enumerate() {
            let Op::User(user) = &leaf.op else { continue };
            let Some(pardo) = &user.pardo else { continue };
            for (state, spec) in &pardo.state_specs {
                if leaf
                    .proto
                    .annotations
                    .contains_key(&format!("{QUERYABLE_STATE}{state}"))
                {
                    let input = leaf.main_inputs().first().map(|(_, id)| (*id).to_owned());
                    found.push(QueryableState {
                        transform: number.into(),
                        id: leaf.id.clone(),
                        name: leaf.name().to_owned(),
                        state: state.clone(),
                        format: self.state_format(input.as_deref().unwrap_or_default(), spec),
                    });
                }
            }
        }
        found
    }

    fn state_format(&self, input: &str, spec: &StateSpec) -> Result<StateFormat, String> {
        let format = self
            .formats
            .get(input)
            .ok_or("its transform's input has no coder")?;
        let (key, _) = self
            .coders
            .kv(&format.wire.id)
            .ok_or("its transform's input has no coder of pairs")?;
        Ok(StateFormat {
            key: self.coders.whole_coder(&key)?,
            window: format.window.clone(),
            kind: self.state_kind(spec)?,
        })
    }

    fn state_kind(&self, spec: &StateSpec) -> Result<StateKind, String> {
        use state_spec::Spec;
        let coder = |id: &str| self.coders.whole_coder(id);
        Ok(match spec.spec.as_ref().ok_or("its kind is not told")? {
            Spec::ReadModifyWriteSpec(s) => StateKind::Value(coder(&s.coder_id)?),
            Spec::BagSpec(s) => StateKind::Bag(coder(&s.element_coder_id)?),
            Spec::SetSpec(s) => StateKind::Set(coder(&s.element_coder_id)?),
            Spec::CombiningSpec(s) => StateKind::Combining(coder(&s.accumulator_coder_id)?),
            Spec::MapSpec(s) => StateKind::Map(coder(&s.key_coder_id)?, coder(&s.value_coder_id)?),
            Spec::MultimapSpec(s) => StateKind::Multimap(coder(&s.key_coder_id)?, coder(&s.value_coder_id)?),
            Spec::OrderedListSpec(s) => StateKind::OrderedList(coder(&s.element_coder_id)?),
        })
    }
}
