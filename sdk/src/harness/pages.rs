//! What lies behind a state key, page by page.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use purlin_proto::fn_execution::{self as fnapi, state_key, state_request, state_response};
use purlin_runner::worker::StateHandler;

use super::bundle::answer;
use crate::error::BoxError;

/// Where pages come from.
struct Source {
    handler: Arc<dyn StateHandler>,
    instruction: String,
    key: state_key::Type,
}

/// What lies behind a state key: the first page, and where the others are. They can be read several times, as long as the
/// bundle runs.
#[derive(Clone)]
pub struct Pages {
    first: Bytes,
    /// Of the second page; empty where there is none.
    token: Bytes,
    source: Option<Arc<Source>>,
}

impl Pages {
    /// All in one page.
    pub(crate) fn whole(data: Bytes) -> Pages {
        Pages {
            first: data,
            token: Bytes::new(),
            source: None,
        }
    }

    /// Reads the first page.
    pub(super) fn open(
        handler: Arc<dyn StateHandler>,
        instruction: String,
        key: state_key::Type,
    ) -> Result<Pages, BoxError> {
        let source = Source {
            handler,
            instruction,
            key,
        };
        let got = source.get(Bytes::new())?;
        let more = !got.continuation_token.is_empty();
        Ok(Pages {
            first: got.data,
            token: got.continuation_token,
            source: more.then(|| Arc::new(source)),
        })
    }

    /// Whether nothing is left to be asked for.
    pub(super) fn is_whole(&self) -> bool {
        self.token.is_empty()
    }

    /// The pages from the first on.
    pub(crate) fn iter(&self) -> PageIter {
        PageIter {
            first: Some(self.first.clone()),
            token: self.token.clone(),
            source: self.source.clone(),
        }
    }

    /// All pages in one.
    pub(crate) fn gather(&self) -> Result<Bytes, BoxError> {
        if self.token.is_empty() {
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
                self.instruction,
                NEXT.fetch_add(1, Ordering::Relaxed)
            ),
            instruction_id: self.instruction.clone(),
            state_key: Some(fnapi::StateKey {
                r#type: Some(self.key.clone()),
            }),
            request: Some(state_request::Request::Get(fnapi::StateGetRequest {
                continuation_token,
            })),
        };
        match answer(self.handler.handle(request))? {
            state_response::Response::Get(got) => Ok(got),
            _ => Err("the runner answered a read of state with something else".into()),
        }
    }
}

/// Pages, each asked for when it is wanted.
pub(crate) struct PageIter {
    first: Option<Bytes>,
    token: Bytes,
    source: Option<Arc<Source>>,
}

impl Iterator for PageIter {
    type Item = Result<Bytes, BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        if self.token.is_empty() {
            return None;
        }
        let source = self.source.as_ref()?;
        match source.get(std::mem::take(&mut self.token)) {
            Ok(got) => {
                self.token = got.continuation_token;
                Some(Ok(got.data))
            }
            Err(error) => Some(Err(error)),
        }
    }
}
