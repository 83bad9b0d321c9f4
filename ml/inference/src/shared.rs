//! One model per process, shared by all threads and bundles.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use crate::{LoadError, ModelHandler};
use parking_lot::Mutex;

type Loaded = Mutex<Option<Weak<dyn Any + Send + Sync>>>;
/// By the handler's type and the model's key.
type Models = HashMap<(TypeId, String), Arc<Loaded>>;

/// The place of each model that a handler has named. Models live as long as someone uses them.
static MODELS: LazyLock<Mutex<Models>> = LazyLock::new(Mutex::default);

/// The handler's model: the one in use if there is one, else a newly loaded one with the time that took.
///
/// Threads that ask at once wait for one loading. Handlers of one type with the same [`ModelHandler::model_key`] share.
pub fn shared_model<H: ModelHandler>(handler: &H) -> Result<(Arc<H::Model>, Option<Duration>), LoadError> {
    let key = (TypeId::of::<H>(), handler.model_key());
    let place = {
        let mut models = MODELS.lock();
        models.entry(key).or_default().clone()
    };
    let mut loaded = place.lock();
    let in_use = loaded
        .as_ref()
        .and_then(Weak::upgrade)
        .and_then(|model| model.downcast::<H::Model>().ok());
    if let Some(model) = in_use {
        return Ok((model, None));
    }
    let start = Instant::now();
    let model = Arc::new(handler.load().map_err(|source| LoadError {
        model: handler.model_id(),
        source,
    })?);
    let any: Arc<dyn Any + Send + Sync> = model.clone();
    *loaded = Some(Arc::downgrade(&any));
    Ok((model, Some(start.elapsed())))
}
