//! The bundle that an executor processes, as its steps see it: state requests, caches, finalizers.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use purlin_proto::fn_execution::process_bundle_request::{CacheToken, cache_token};
use purlin_proto::fn_execution::{
    self as fnapi, DelayedBundleApplication, state_key, state_request, state_response,
};
use purlin_runner::worker::{StateAnswer, StateHandler};

use super::at_element::AtElement;
use super::finalize::Finalizer;
use super::pages::{PageOrigin, Pages, Unread};
use super::state_cache::{WorkerShared, cache_key};
use crate::error::BoxError;

const OUTSIDE: &str = "state and side inputs can be used while a bundle runs only";

/// The bundle that an executor processes.
pub(crate) struct BundleCell {
    current: RefCell<Current>,
    /// Whether elements are noted before user code gets them.
    careful: Cell<bool>,
    at_element: RefCell<Option<AtElement>>,
    pub(crate) shared: Arc<WorkerShared>,
}

#[derive(Default)]
struct Current {
    instruction: String,
    state: Option<Arc<dyn StateHandler>>,
    tokens: Vec<CacheToken>,
    /// The token of user state, if there is one.
    state_token: Option<Bytes>,
    /// What is to be known of state once the bundle has succeeded, by name in the cache and token.
    written: Vec<(Bytes, Bytes, Option<Bytes>)>,
    finalizers: Vec<Finalizer>,
    residuals: Vec<DelayedBundleApplication>,
    requests: u64,
    unread: Unread,
    /// Reads that were begun and not used yet, by state key: the answers to their first requests.
    begun: Vec<(state_key::Type, StateAnswer)>,
}

pub(crate) fn answer(response: fnapi::StateResponse) -> Result<state_response::Response, BoxError> {
    if !response.error.is_empty() {
        return Err(response.error.into());
    }
    response
        .response
        .ok_or_else(|| "the runner's answer to a state request is empty".into())
}

impl BundleCell {
    pub fn new(shared: Arc<WorkerShared>) -> BundleCell {
        BundleCell {
            current: RefCell::default(),
            careful: Cell::new(false),
            at_element: RefCell::default(),
            shared,
        }
    }

    pub fn start(&self, instruction: String, state: Arc<dyn StateHandler>, tokens: Vec<CacheToken>) {
        let requests = self.current.borrow().requests;
        let state_token = tokens.iter().find_map(|token| match &token.r#type {
            Some(cache_token::Type::UserState(_)) => Some(token.token.clone()),
            _ => None,
        });
        *self.current.borrow_mut() = Current {
            instruction,
            state: Some(state),
            tokens,
            state_token,
            requests,
            ..Current::default()
        };
    }

    /// The bundle has succeeded: what it wrote may be cached, and its finalizers wait. Gives the residuals, and whether
    /// there are finalizers.
    pub fn end(&self) -> (Vec<DelayedBundleApplication>, bool) {
        let mut current = self.current.borrow_mut();
        current.state = None;
        current.begun.clear();
        let written = std::mem::take(&mut current.written);
        for (name, token, data) in written {
            self.shared.put_state(name, token, data);
        }
        let finalizers = std::mem::take(&mut current.finalizers);
        let finalizes = !finalizers.is_empty();
        if finalizes {
            self.shared.finalizers.put(&current.instruction, finalizers);
        }
        (std::mem::take(&mut current.residuals), finalizes)
    }

    /// Whether elements are to be noted: a bundle of this stage has failed.
    pub(crate) fn is_careful(&self) -> bool {
        self.careful.get()
    }

    pub(crate) fn set_careful(&self, careful: bool) {
        self.careful.set(careful);
        self.at_element.take();
    }

    /// Notes the element that user code gets next. Gives the one before, to be noted again when user code has returned.
    pub(crate) fn note(&self, element: Option<AtElement>) -> Option<AtElement> {
        self.at_element.replace(element)
    }

    pub fn finalizer(&self, finalizer: Finalizer) {
        self.current.borrow_mut().finalizers.push(finalizer);
    }

    /// Work that the bundle leaves for later.
    pub fn residual(&self, residual: DelayedBundleApplication) {
        self.current.borrow_mut().residuals.push(residual);
    }

    pub(crate) fn side_token(&self, transform: &str, tag: &str) -> Option<Bytes> {
        self.current
            .borrow()
            .tokens
            .iter()
            .find_map(|token| match &token.r#type {
                Some(cache_token::Type::SideInput(s))
                    if s.transform_id == transform && s.side_input_id == tag =>
                {
                    Some(token.token.clone())
                }
                _ => None,
            })
    }

    fn prepare(
        &self,
        key: state_key::Type,
        request: state_request::Request,
    ) -> Result<(Arc<dyn StateHandler>, fnapi::StateRequest), BoxError> {
        let mut current = self.current.borrow_mut();
        current.requests += 1;
        let handler = current.state.clone().ok_or(OUTSIDE)?;
        let request = fnapi::StateRequest {
            id: format!("{}-{}", current.instruction, current.requests),
            instruction_id: current.instruction.clone(),
            state_key: Some(fnapi::StateKey { r#type: Some(key) }),
            request: Some(request),
        };
        Ok((handler, request))
    }

    fn request(
        &self,
        key: state_key::Type,
        request: state_request::Request,
    ) -> Result<state_response::Response, BoxError> {
        let (handler, request) = self.prepare(key, request)?;
        answer(handler.handle(request))
    }

    /// Begins a read, for [`BundleCell::read`] to go on with.
    pub fn begin_read(&self, key: state_key::Type) -> Result<(), BoxError> {
        if self.current.borrow().begun.iter().any(|(begun, _)| *begun == key) {
            return Ok(());
        }
        let get = state_request::Request::Get(fnapi::StateGetRequest::default());
        let (handler, request) = self.prepare(key.clone(), get)?;
        let answer = handler.handle_later(request);
        self.current.borrow_mut().begun.push((key, answer));
        Ok(())
    }

    /// As [`BundleCell::begin_read`], unless this worker knows it from an earlier bundle.
    pub fn begin_cached_read(
        &self,
        key: state_key::Type,
        map: Option<&state_key::Type>,
    ) -> Result<(), BoxError> {
        let known = self
            .token_for(map)
            .is_some_and(|token| self.shared.state(&cache_key(&key), &token).is_some());
        if known { Ok(()) } else { self.begin_read(key) }
    }

    fn take_begun(&self, key: &state_key::Type) -> Option<StateAnswer> {
        let begun = &mut self.current.borrow_mut().begun;
        let index = begun.iter().position(|(begun, _)| begun == key)?;
        Some(begun.swap_remove(index).1)
    }

    /// Reads everything behind a state key.
    pub fn read(&self, key: state_key::Type) -> Result<Bytes, BoxError> {
        let mut chunks: Vec<Bytes> = Vec::new();
        let mut continuation_token = Bytes::new();
        let mut begun = self.take_begun(&key);
        loop {
            let response = match begun.take() {
                Some(begun) => answer(begun())?,
                None => {
                    let get = state_request::Request::Get(fnapi::StateGetRequest { continuation_token });
                    self.request(key.clone(), get)?
                }
            };
            let state_response::Response::Get(got) = response else {
                return Err("the runner answered a read of state with something else".into());
            };
            if !got.data.is_empty() {
                chunks.push(got.data);
            }
            continuation_token = got.continuation_token;
            if continuation_token.is_empty() {
                break;
            }
        }
        Ok(match <[Bytes; 1]>::try_from(chunks) {
            Ok([one]) => one,
            Err(many) => many.concat().into(),
        })
    }

    fn origin(&self) -> Result<PageOrigin, BoxError> {
        let current = self.current.borrow();
        Ok(PageOrigin {
            handler: current.state.clone().ok_or(OUTSIDE)?,
            instruction: current.instruction.clone(),
            unread: current.unread.clone(),
        })
    }

    /// Reads the first page behind a state key.
    pub fn pages(&self, key: state_key::Type) -> Result<Pages, BoxError> {
        Pages::open(self.origin()?, key)
    }

    /// The values of an iterable that came, with those that stayed with the runner.
    pub fn backed(&self, values: Bytes, token: &[u8]) -> Result<Pages, BoxError> {
        let key = state_key::Type::Runner(state_key::Runner {
            key: Bytes::copy_from_slice(token),
        });
        Ok(Pages::behind(values, self.origin()?, key))
    }

    /// Why pages of the bundle could not be read, and in which step, if so.
    pub fn unread(&self) -> Option<(u32, String)> {
        self.current.borrow().unread.take()
    }

    /// As [`BundleCell::read`], for what this worker may know from an earlier bundle. `map` are the keys of the map that
    /// it is a value of.
    pub fn read_cached(
        &self,
        key: state_key::Type,
        map: Option<&state_key::Type>,
    ) -> Result<Bytes, BoxError> {
        let Some(token) = self.token_for(map) else {
            return self.read(key);
        };
        let name = cache_key(&key);
        if let Some(data) = self.shared.state(&name, &token) {
            return Ok(data);
        }
        let data = self.read(key)?;
        self.shared.put_state(name, token, Some(data.clone()));
        Ok(data)
    }

    pub fn append(&self, key: state_key::Type, data: Bytes) -> Result<(), BoxError> {
        let append = state_request::Request::Append(fnapi::StateAppendRequest { data });
        self.request(key, append).map(drop)
    }

    pub fn clear(&self, key: state_key::Type) -> Result<(), BoxError> {
        let clear = state_request::Request::Clear(fnapi::StateClearRequest {});
        self.request(key, clear).map(drop)
    }

    /// State was written; `now` is what it then is, where that is known.
    pub fn written(&self, key: &state_key::Type, now: Option<Bytes>, map: Option<&state_key::Type>) {
        if let Some(token) = self.token_for(map) {
            let name = cache_key(key);
            // What was known is not so any more, even if the bundle fails.
            self.shared.put_state(name.clone(), token.clone(), None);
            self.current.borrow_mut().written.push((name, token, now));
        }
    }

    /// A whole map was cleared: nothing of it is known any more.
    pub fn forget_map(&self, keys: &state_key::Type) {
        let token = self.current.borrow().state_token.clone();
        if let Some(token) = token {
            self.shared.put_state(cache_key(keys), token, None);
        }
    }

    /// The token under which the values of a map are known: they are forgotten together, when the map is cleared.
    fn token_for(&self, map: Option<&state_key::Type>) -> Option<Bytes> {
        let token = self.current.borrow().state_token.clone()?;
        let Some(map) = map else { return Some(token) };
        let name = cache_key(map);
        let epoch = match self.shared.state(&name, &token) {
            Some(epoch) => epoch,
            None => {
                static NEXT: AtomicU64 = AtomicU64::new(0);
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                let epoch = Bytes::copy_from_slice(&number.to_be_bytes());
                self.shared.put_state(name, token.clone(), Some(epoch.clone()));
                epoch
            }
        };
        Some([&token[..], &epoch[..]].concat().into())
    }
}
