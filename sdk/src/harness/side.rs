//! What a running bundle may ask the runner for: side inputs (and, later, state).

use std::any::Any;
use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use purlin_coders::Window;
use purlin_proto::fn_execution::process_bundle_request::{CacheToken, cache_token};
use purlin_proto::fn_execution::{self as fnapi, state_key, state_request, state_response};
use purlin_runner::worker::StateHandler;
use rustc_hash::FxHashMap;

use crate::error::BoxError;
use crate::side_input::{SideInput, View};
use crate::windowing::WindowFn;

/// The values of side inputs, shared by all executors of a worker.
#[derive(Default)]
pub struct WorkerShared {
    side_inputs: Mutex<FxHashMap<SideKey, (Bytes, AnyValue)>>,
}

type AnyValue = Arc<dyn Any + Send + Sync>;

#[derive(Clone, PartialEq, Eq, Hash)]
struct SideKey {
    transform: String,
    tag: String,
    window: Window,
}

/// So many side-input windows are kept; one that is gone is read again.
const KEPT: usize = 4096;

impl WorkerShared {
    fn get(&self, key: &SideKey, token: &Bytes) -> Option<AnyValue> {
        let values = self.side_inputs.lock().unwrap_or_else(PoisonError::into_inner);
        values
            .get(key)
            .filter(|(t, _)| t == token)
            .map(|(_, value)| value.clone())
    }

    fn put(&self, key: SideKey, token: Bytes, value: AnyValue) {
        let mut values = self.side_inputs.lock().unwrap_or_else(PoisonError::into_inner);
        if values.len() >= KEPT {
            values.clear();
        }
        values.insert(key, (token, value));
    }
}

/// The bundle that an executor processes.
pub(crate) struct BundleCell {
    current: RefCell<Current>,
    shared: Arc<WorkerShared>,
}

#[derive(Default)]
struct Current {
    instruction: String,
    state: Option<Arc<dyn StateHandler>>,
    tokens: Vec<CacheToken>,
    requests: u64,
}

impl BundleCell {
    pub fn new(shared: Arc<WorkerShared>) -> BundleCell {
        BundleCell {
            current: RefCell::default(),
            shared,
        }
    }

    pub fn start(&self, instruction: String, state: Arc<dyn StateHandler>, tokens: Vec<CacheToken>) {
        let requests = self.current.borrow().requests;
        *self.current.borrow_mut() = Current {
            instruction,
            state: Some(state),
            tokens,
            requests,
        };
    }

    pub fn end(&self) {
        self.current.borrow_mut().state = None;
    }

    fn side_token(&self, transform: &str, tag: &str) -> Option<Bytes> {
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

    /// Reads everything behind a state key.
    fn get(&self, key: state_key::Type) -> Result<Vec<Bytes>, BoxError> {
        let mut chunks = Vec::new();
        let mut continuation_token = Bytes::new();
        loop {
            let (handler, request) = {
                let mut current = self.current.borrow_mut();
                current.requests += 1;
                let handler = current
                    .state
                    .clone()
                    .ok_or("side inputs can be read while a bundle runs only")?;
                let request = fnapi::StateRequest {
                    id: format!("{}-{}", current.instruction, current.requests),
                    instruction_id: current.instruction.clone(),
                    state_key: Some(fnapi::StateKey {
                        r#type: Some(key.clone()),
                    }),
                    request: Some(state_request::Request::Get(fnapi::StateGetRequest {
                        continuation_token,
                    })),
                };
                (handler, request)
            };
            let response = handler.handle(request);
            if !response.error.is_empty() {
                return Err(response.error.into());
            }
            let Some(state_response::Response::Get(got)) = response.response else {
                return Err("the runner answered a read of state with something else".into());
            };
            if !got.data.is_empty() {
                chunks.push(got.data);
            }
            continuation_token = got.continuation_token;
            if continuation_token.is_empty() {
                return Ok(chunks);
            }
        }
    }
}

/// A side input of a step.
pub(crate) struct SideReader {
    pub view: u64,
    pub tag: String,
    pub name: String,
    pub window_fn: WindowFn,
    /// The window and value read last in this bundle.
    pub last: Option<(Window, AnyValue)>,
}

/// All side inputs of a step.
pub(crate) struct SideReaders {
    pub transform_id: String,
    pub bundle: std::rc::Rc<BundleCell>,
    pub readers: Vec<SideReader>,
}

impl SideReaders {
    pub fn start(&mut self) {
        self.readers.iter_mut().for_each(|reader| reader.last = None);
    }

    /// The value of a side input for a main-input window.
    pub fn read<V: View>(&mut self, view: &SideInput<V>, main: &Window) -> Result<Arc<V::Value>, BoxError> {
        let Some(reader) = self.readers.iter_mut().find(|r| r.view == view.id()) else {
            return Err(format!(
                "the side input of \"{}\" is read but not declared: add .with_side_input(&view) to the ParDo",
                view.name()
            )
            .into());
        };
        let window = match (&reader.window_fn, main) {
            (WindowFn::Global, _) => Window::Global,
            (window_fn, main) => window_fn.side_input_window(main),
        };
        let any = match &reader.last {
            Some((last, value)) if *last == window => value.clone(),
            _ => {
                let value = load(&self.transform_id, &self.bundle, reader, view, &window)?;
                reader.last = Some((window, value.clone()));
                value
            }
        };
        any.downcast()
            .map_err(|_| "a side input has a value of another type".into())
    }
}

fn load<V: View>(
    transform_id: &str,
    bundle: &BundleCell,
    reader: &SideReader,
    view: &SideInput<V>,
    window: &Window,
) -> Result<AnyValue, BoxError> {
    let key = SideKey {
        transform: transform_id.to_owned(),
        tag: reader.tag.clone(),
        window: window.clone(),
    };
    let token = bundle.side_token(transform_id, &reader.tag);
    if let Some(token) = &token
        && let Some(value) = bundle.shared.get(&key, token)
    {
        return Ok(value);
    }
    let chunks = bundle
        .get(state_key::Type::IterableSideInput(state_key::IterableSideInput {
            transform_id: transform_id.to_owned(),
            side_input_id: reader.tag.clone(),
            window: window.to_bytes(),
        }))
        .map_err(|e| format!("side input \"{}\" cannot be read: {e}", reader.name))?;
    let data = match &chunks[..] {
        [] => Bytes::new(),
        [one] => one.clone(),
        many => many.concat().into(),
    };
    let value: AnyValue = view
        .load(&data)
        .map_err(|e| format!("side input \"{}\" in window {window}: {e}", reader.name))?;
    if let Some(token) = token {
        bundle.shared.put(key, token, value.clone());
    }
    Ok(value)
}
