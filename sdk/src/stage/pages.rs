//! What lies behind a state key, page by page.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use purlin_proto::fn_execution::{self as fnapi, state_key, state_request, state_response};
use purlin_runner::worker::StateHandler;

use super::bundle::answer;
use crate::error::{BoxError, chain};
use crate::metrics::STEP;

/// Why pages of a bundle could not be read, and in which step: user code may pass over the error that it gets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread(Arc<Mutex<Option<(u32, String)>>>);

impl Unread {
    fn set(&self, error: &BoxError) {
        let mut first = self.0.lock();
        first.get_or_insert_with(|| (STEP.get(), chain(&**error)));
    }

    /// The first failure.
    pub fn take(&self) -> Option<(u32, String)> {
        self.0.lock().take()
    }
}

/// Where the pages of a bundle come from.
#[derive(Clone)]
pub(crate) struct PageOrigin {
    pub handler: Arc<dyn StateHandler>,
    pub instruction: String,
    pub unread: Unread,
}

struct Source {
    origin: PageOrigin,
    key: state_key::Type,
}

/// What lies behind a state key: the first page, and where the others are. They can be read several times, as long as the
/// bundle runs.
#[derive(Clone)]
pub struct Pages {
    first: Bytes,
    /// Of the second page, where there is one.
    next: Option<Bytes>,
    source: Option<Arc<Source>>,
}

fn next_page(continuation_token: Bytes) -> Option<Bytes> {
    (!continuation_token.is_empty()).then_some(continuation_token)
}

impl Pages {
    /// All in one page.
    pub(crate) fn whole(data: Bytes) -> Pages {
        Pages {
            first: data,
            next: None,
            source: None,
        }
    }

    /// Reads the first page.
    pub(crate) fn open(origin: PageOrigin, key: state_key::Type) -> Result<Pages, BoxError> {
        let source = Source { origin, key };
        let got = source.get(Bytes::new())?;
        let next = next_page(got.continuation_token);
        Ok(Pages {
            first: got.data,
            source: next.is_some().then(|| Arc::new(source)),
            next,
        })
    }

    /// What came, with what lies behind a state key.
    pub(crate) fn behind(first: Bytes, origin: PageOrigin, key: state_key::Type) -> Pages {
        Pages {
            first,
            next: Some(Bytes::new()),
            source: Some(Arc::new(Source { origin, key })),
        }
    }

    /// Whether nothing is left to be asked for.
    pub(crate) fn is_whole(&self) -> bool {
        self.next.is_none()
    }

    /// The page that is at hand.
    pub(crate) fn first(&self) -> &Bytes {
        &self.first
    }

    /// The pages from the first on.
    pub(crate) fn iter(&self) -> PageIter {
        PageIter {
            first: Some(self.first.clone()),
            next: self.next.clone(),
            source: self.source.clone(),
        }
    }

    /// All pages in one.
    pub(crate) fn gather(&self) -> Result<Bytes, BoxError> {
        if self.next.is_none() {
            return Ok(self.first.clone());
        }
        let pages: Vec<Bytes> = self.iter().collect::<Result<_, _>>()?;
        Ok(pages.concat().into())
    }
}

impl Source {
    fn get(&self, continuation_token: Bytes) -> Result<fnapi::StateGetResponse, BoxError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let request = fnapi::StateRequest {
            id: format!(
                "{}-page{}",
                self.origin.instruction,
                NEXT.fetch_add(1, Ordering::Relaxed)
            ),
            instruction_id: self.origin.instruction.clone(),
            state_key: Some(fnapi::StateKey {
                r#type: Some(self.key.clone()),
            }),
            request: Some(state_request::Request::Get(fnapi::StateGetRequest {
                continuation_token,
            })),
        };
        match answer(self.origin.handler.handle(request))? {
            state_response::Response::Get(got) => Ok(got),
            _ => Err("the runner answered a read of state with something else".into()),
        }
    }
}

/// Pages, each asked for when it is wanted.
pub(crate) struct PageIter {
    first: Option<Bytes>,
    next: Option<Bytes>,
    source: Option<Arc<Source>>,
}

impl PageIter {
    /// What was read is of no use: the bundle is not to succeed.
    pub(crate) fn fail(&self, error: &BoxError) {
        if let Some(source) = &self.source {
            source.origin.unread.set(error);
        }
    }
}

impl Iterator for PageIter {
    type Item = Result<Bytes, BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        let source = self.source.as_ref()?;
        let token = self.next.take()?;
        let got = source.get(token);
        Some(got.map(|got| {
            self.next = next_page(got.continuation_token);
            got.data
        }))
    }
}
