//! The models that a step has in memory.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use purlin::BoxError;

use crate::error::LoadTimeout;
use crate::helper::Helper;
use crate::shared::{Found, Place, find};
use crate::{LoadError, ModelHandler};

/// A loaded model with all that its results say of it.
pub(crate) struct Loaded<H: ModelHandler> {
    pub handler: H,
    pub model: Arc<H::Model>,
    pub place: Arc<Place>,
    pub id: String,
    pub version: Option<String>,
    pub hash: Option<String>,
    pub bytes: u64,
}

/// How many models may be in memory, and how long loading may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub models: usize,
    pub bytes: u64,
    pub load_timeout: Option<Duration>,
}

/// Models of a process that a step uses, the one used last at the end. Batches that run hold theirs, too.
pub(crate) struct Models<H: ModelHandler> {
    limits: Limits,
    used: Mutex<Vec<(String, Arc<Loaded<H>>)>>,
}

/// A model was loaded: how long that took.
pub(crate) type Loading = Option<Duration>;

impl<H: ModelHandler> Models<H> {
    pub fn new(limits: Limits) -> Models<H> {
        Models {
            limits,
            used: Mutex::default(),
        }
    }

    /// The handler's model, loaded if it has to be. Models that were not used for longest make room for it.
    pub fn get(&self, handler: &H, helper: &mut Helper) -> Result<(Arc<Loaded<H>>, Loading), LoadError> {
        let key = handler.model_key();
        if let Some(loaded) = self.touch(&key) {
            return Ok((loaded, None));
        }
        self.make_room(handler.estimate().map_or(0, |estimate| estimate.weights));
        let (loaded, loading) = self.load(handler, "", "", helper)?;
        // Another thread may have been faster.
        if let Some(loaded) = self.touch(&key) {
            return Ok((loaded, loading));
        }
        self.make_room(loaded.bytes);
        self.used.lock().push((key, loaded.clone()));
        Ok((loaded, loading))
    }

    /// The handler's model, loaded if no one in this process has it, under this name besides its own. It is not kept here.
    pub fn load(
        &self,
        handler: &H,
        place: &str,
        revision: &str,
        helper: &mut Helper,
    ) -> Result<(Arc<Loaded<H>>, Loading), LoadError> {
        let found = self.find(handler, place, helper)?;
        let grown = found.loading.map_or(0, |(_, grown)| grown);
        let loaded = Loaded {
            id: handler.model_id(),
            version: handler
                .model_version(&found.model)
                .or_else(|| (!revision.is_empty()).then(|| revision.to_owned())),
            hash: handler.model_hash(&found.model),
            bytes: handler.model_bytes(&found.model).unwrap_or(grown),
            handler: handler.clone(),
            model: found.model,
            place: found.place,
        };
        Ok((Arc::new(loaded), found.loading.map(|(time, _)| time)))
    }

    /// The model of this key, which is the one used last then.
    fn touch(&self, key: &str) -> Option<Arc<Loaded<H>>> {
        let mut used = self.used.lock();
        let at = used.iter().position(|(other, _)| other == key)?;
        let entry = used.remove(at);
        let loaded = entry.1.clone();
        used.push(entry);
        Some(loaded)
    }

    /// Forgets models until one more, of so many bytes, is within the limits.
    fn make_room(&self, bytes: u64) {
        let mut used = self.used.lock();
        let held = |used: &[(String, Arc<Loaded<H>>)]| -> u64 {
            used.iter()
                .fold(0, |sum, (_, loaded)| sum.saturating_add(loaded.bytes))
        };
        let mut forgotten = Vec::new();
        while !used.is_empty()
            && (used.len() >= self.limits.models || held(&used).saturating_add(bytes) > self.limits.bytes)
        {
            forgotten.push(used.remove(0));
        }
        // They go when nothing is locked: that may take its time.
        drop(used);
        drop(forgotten);
    }

    fn find(&self, handler: &H, place: &str, helper: &mut Helper) -> Result<Found<H::Model>, LoadError> {
        let Some(limit) = self.limits.load_timeout else {
            return find(handler, place);
        };
        let error = |source: BoxError| LoadError {
            model: handler.model_id(),
            source,
        };
        let (asked, place) = (handler.clone(), place.to_owned());
        match helper.within(limit, move || find(&asked, &place)) {
            Ok(Some(found)) => found,
            Ok(None) => Err(error(LoadTimeout { limit }.into())),
            Err(cannot) => Err(error(cannot)),
        }
    }
}
