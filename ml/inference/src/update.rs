//! Models that change while the job runs.

use purlin::coders::{CoderSpec, DecodeError};
use purlin::prelude::*;
use purlin::side_input::Singleton;

/// Another model, for all elements from now on: an element of
/// [`RunInference::with_model_updates`](crate::RunInference::with_model_updates).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelMetadata {
    /// What [`ModelHandler::update_model_path`](crate::ModelHandler::update_model_path) is given: a path, a URL.
    pub model_id: String,
    /// A short name: metrics are also counted under their names with this before them, as in `v2_num_inferences`. May be empty.
    pub model_name: String,
}

impl ModelMetadata {
    /// The model at a path, named by its file without folder and extension.
    pub fn at(path: &str) -> ModelMetadata {
        let name = std::path::Path::new(path).file_stem().unwrap_or_default();
        ModelMetadata {
            model_id: path.to_owned(),
            model_name: name.to_string_lossy().into_owned(),
        }
    }
}

impl Element for ModelMetadata {
    fn coder() -> CoderSpec {
        <(String, String)>::coder()
    }

    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        self.model_id.encode(out, true);
        self.model_name.encode(out, nested);
    }

    fn decode(input: &mut &[u8], nested: bool) -> Result<Self, DecodeError> {
        let (model_id, model_name) = <(String, String)>::decode(input, nested)?;
        Ok(ModelMetadata { model_id, model_name })
    }
}

/// Where updates come from.
#[derive(Clone, Debug)]
pub(crate) enum Updates {
    Collection(PCollection<ModelMetadata>),
    Files(MatchContinuously),
}

/// An update as the inference step sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Update {
    /// A later one wins.
    pub order: i64,
    pub model: ModelMetadata,
    /// Tells contents of one path apart.
    pub revision: String,
}

/// The one before all others, which is none.
const NONE: i64 = i64::MIN;

impl Element for Update {
    fn coder() -> CoderSpec {
        <(i64, (ModelMetadata, String))>::coder()
    }

    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        self.order.encode(out, true);
        self.model.encode(out, true);
        self.revision.encode(out, nested);
    }

    fn decode(input: &mut &[u8], nested: bool) -> Result<Self, DecodeError> {
        let (order, (model, revision)) = <(i64, (ModelMetadata, String))>::decode(input, nested)?;
        Ok(Update {
            order,
            model,
            revision,
        })
    }
}

/// The last of the updates.
#[derive(Clone)]
struct LatestUpdate;

impl CombineFn for LatestUpdate {
    type In = Update;
    type Accumulator = Option<Update>;
    type Out = Option<Update>;

    fn create_accumulator(&self) -> Option<Update> {
        None
    }

    fn add_input(&self, latest: &mut Option<Update>, update: Update) {
        if latest.as_ref().is_none_or(|latest| latest.order <= update.order) {
            *latest = Some(update);
        }
    }

    fn merge_accumulators(&self, into: &mut Option<Update>, other: Option<Update>) {
        if let Some(other) = other {
            self.add_input(into, other);
        }
    }

    fn extract_output(&self, latest: Option<Update>) -> Option<Update> {
        latest
    }
}

/// The latest update, for the inference step to see.
pub(crate) type LatestView = SideInput<Singleton<Option<Update>>>;

/// The update in a view's value, if there was one yet.
pub(crate) fn seen(value: &Option<Update>) -> Option<&Update> {
    value.as_ref().filter(|update| update.order != NONE)
}

struct Latest(Updates);

impl PTransform<PBegin> for Latest {
    type Output = PCollection<Option<Update>>;

    fn name(&self) -> String {
        "ModelUpdates".into()
    }

    fn expand(self, begin: PBegin) -> Self::Output {
        let pipeline = begin.pipeline();
        let updates = match self.0 {
            Updates::Collection(models) => {
                models.par_do_with("Order", |model: ModelMetadata, ctx: &mut Context<'_, Update>| {
                    let order = ctx.timestamp().millis();
                    ctx.output(Update {
                        order,
                        model,
                        revision: String::new(),
                    });
                    Ok(())
                })
            }
            Updates::Files(files) => {
                let files = pipeline.apply(files.match_updated_files());
                files.map("Order", |file: FileMetadata| Update {
                    order: file.last_modified_millis,
                    model: ModelMetadata::at(&file.path),
                    revision: format!("{}:{}", file.last_modified_millis, file.size),
                })
            }
        };
        // So that elements do not wait for the first update.
        let none = Update {
            order: NONE,
            model: ModelMetadata {
                model_id: String::new(),
                model_name: String::new(),
            },
            revision: String::new(),
        };
        let none = pipeline.apply_named("None", Create::new([none]));
        let windowing = Windowing::global()
            .trigger(Trigger::ElementCount(1).repeatedly())
            .accumulating();
        [
            none.window_into("NoneAtOnce", windowing.clone()),
            updates.window_into("AtOnce", windowing),
        ]
        .apply(Flatten::new())
        .apply(CombineGlobally::new("Latest", LatestUpdate).without_defaults())
    }
}

/// The view of the latest update.
pub(crate) fn latest(pipeline: &Pipeline, updates: Updates) -> LatestView {
    pipeline.apply(Latest(updates)).as_singleton_or(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_travel_and_the_latest_wins() {
        let update = |order, path| Update {
            order,
            model: ModelMetadata::at(path),
            revision: "7:1".to_owned(),
        };
        let second = update(2, "models/b.pt");
        assert_eq!(second.model.model_name, "b");
        let mut bytes = Vec::new();
        second.encode(&mut bytes, true);
        assert_eq!(Update::decode(&mut bytes.as_slice(), true).unwrap(), second);
        let mut latest = None;
        for update in [update(1, "a"), second.clone(), update(0, "c")] {
            LatestUpdate.add_input(&mut latest, update);
        }
        assert_eq!(seen(&latest), Some(&second));
        assert_eq!(seen(&Some(update(NONE, ""))), None);
    }
}
