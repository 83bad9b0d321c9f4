//! One model per process, shared by all threads and bundles.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::memory::resident;
use crate::{LoadError, ModelHandler};

/// Where a model is, if it is loaded, and what is remembered of it.
pub(crate) struct Place {
    loaded: Mutex<Option<Weak<dyn Any + Send + Sync>>>,
    /// The largest batch for which memory is known or hoped to suffice.
    batch_limit: AtomicUsize,
}

impl Default for Place {
    fn default() -> Self {
        Place {
            loaded: Mutex::default(),
            batch_limit: AtomicUsize::new(usize::MAX),
        }
    }
}

impl Place {
    /// The largest batch that is run.
    pub fn batch_limit(&self) -> usize {
        self.batch_limit.load(Ordering::Relaxed)
    }

    /// Memory does not suffice for larger batches.
    pub fn limit_batches(&self, most: usize) {
        self.batch_limit.fetch_min(most.max(1), Ordering::Relaxed);
    }

    /// Whether nothing is lost with it.
    fn is_idle(&self) -> bool {
        let dead = |loaded: &Weak<_>| loaded.strong_count() == 0;
        self.batch_limit() == usize::MAX
            && self
                .loaded
                .try_lock()
                .is_some_and(|loaded| loaded.as_ref().is_none_or(dead))
    }
}

/// By the handler's type, the model's key, and what tells models of one key apart that changed while the job ran.
type Models = HashMap<(TypeId, String, String), Arc<Place>>;

/// The place of each model that a handler has named. Models live as long as someone uses them.
static MODELS: LazyLock<Mutex<Models>> = LazyLock::new(Mutex::default);

fn place<H: ModelHandler>(handler: &H, update: &str) -> Arc<Place> {
    let key = (TypeId::of::<H>(), handler.model_key(), update.to_owned());
    let mut models = MODELS.lock();
    if let Some(place) = models.get(&key) {
        return place.clone();
    }
    // Models come and go: of those that are gone, no trace stays.
    models.retain(|_, place| Arc::strong_count(place) > 1 || !place.is_idle());
    models.entry(key).or_default().clone()
}

/// A model that is in memory.
pub(crate) struct Found<M> {
    pub model: Arc<M>,
    pub place: Arc<Place>,
    /// How long it took to load it, and by how many bytes the process grew meanwhile; `None` if it was there.
    pub loading: Option<(Duration, u64)>,
}

/// As [`shared_model`], of a model that an update named.
pub(crate) fn find<H: ModelHandler>(handler: &H, update: &str) -> Result<Found<H::Model>, LoadError> {
    let place = place(handler, update);
    let mut loaded = place.loaded.lock();
    let in_use = loaded
        .as_ref()
        .and_then(Weak::upgrade)
        .and_then(|model| model.downcast::<H::Model>().ok());
    if let Some(model) = in_use {
        drop(loaded);
        return Ok(Found {
            model,
            place,
            loading: None,
        });
    }
    let (start, before) = (Instant::now(), resident());
    let model = Arc::new(handler.load().map_err(|source| LoadError {
        model: handler.model_id(),
        source,
    })?);
    let grown = match (before, resident()) {
        (Some(before), Some(after)) => after.saturating_sub(before),
        _ => 0,
    };
    let any: Arc<dyn Any + Send + Sync> = model.clone();
    *loaded = Some(Arc::downgrade(&any));
    drop(loaded);
    Ok(Found {
        model,
        place,
        loading: Some((start.elapsed(), grown)),
    })
}

/// The handler's model: the one in use if there is one, else a newly loaded one with the time that took.
///
/// Threads that ask at once wait for one loading. Handlers of one type with the same [`ModelHandler::model_key`] share.
///
/// # Errors
/// When it cannot be loaded.
pub fn shared_model<H: ModelHandler>(handler: &H) -> Result<(Arc<H::Model>, Option<Duration>), LoadError> {
    let found = find(handler, "")?;
    Ok((found.model, found.loading.map(|(time, _)| time)))
}
