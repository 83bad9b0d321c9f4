//! User code that waits: many elements of a bundle at a time.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use purlin_model::{Element, Header};
use tokio::runtime::Runtime;
use tokio::task::{JoinError, JoinSet};

use super::{Context, DoFn, FinishContext};
use crate::error::{BoxError, DoFnResult};

/// User code that is called for each element and may wait: for a service, a database, a disk. See
/// [`AsyncParDo`](crate::primitives::AsyncParDo).
///
/// Several elements are in the works at a time, so outputs are in no order. Metrics of async code are counted where the
/// runtime's threads run, and so belong to no transform: count in a step behind.
///
/// ```
/// use purlin::prelude::*;
///
/// /// Asks a service for the length of each word.
/// #[derive(Clone)]
/// struct Lengths;
///
/// impl AsyncDoFn for Lengths {
///     type In = String;
///     type Out = (String, u64);
///
///     async fn process(&self, word: String) -> Result<Vec<(String, u64)>, BoxError> {
///         tokio::task::yield_now().await;
///         let length = word.len() as u64;
///         Ok(vec![(word, length)])
///     }
/// }
///
/// let p = TestPipeline::new();
/// let words = p.apply(Create::new(["a".to_string(), "bc".to_string()]));
/// let lengths = words.apply(AsyncParDo::new("Lengths", 16, Lengths));
/// PAssert::that(&lengths).contains_in_any_order([("a".to_string(), 1), ("bc".to_string(), 2)]);
/// p.run();
/// ```
pub trait AsyncDoFn: Clone + Send + Sync + 'static {
    /// What comes in.
    type In: Element;
    /// What goes out.
    type Out: Element;

    /// Called once, before all else, on the worker's thread: open connections, load models.
    ///
    /// # Errors
    /// Any error fails the bundle.
    fn setup(&mut self) -> DoFnResult {
        Ok(())
    }

    /// Called for each element; what it gives goes out with the element's timestamp and windows.
    ///
    /// # Errors
    /// Any error fails the bundle. What is in the works is dropped.
    fn process(&self, element: Self::In) -> impl Future<Output = Result<Vec<Self::Out>, BoxError>> + Send;

    /// Called once, after all else.
    fn teardown(&mut self) {}
}

/// The threads on which async code runs, of the whole process.
fn runtime() -> Result<&'static Runtime, BoxError> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .thread_name("purlin-async")
            .enable_all()
            .build()
            .map_err(|e| format!("cannot start threads for async code: {e}"))
    });
    runtime.as_ref().map_err(|e| e.clone().into())
}

type Done<O> = (Header, Result<Vec<O>, BoxError>);

/// An [`AsyncDoFn`] as a DoFn: waits when so many elements are in the works, and for all at the end of a bundle.
pub(crate) struct Waits<D: AsyncDoFn> {
    prototype: D,
    ready: Option<Arc<D>>,
    concurrency: usize,
    /// Dropped, it drops what is in the works.
    tasks: JoinSet<Done<D::Out>>,
}

impl<D: AsyncDoFn> Waits<D> {
    pub fn new(prototype: D, concurrency: usize) -> Waits<D> {
        Waits {
            prototype,
            ready: None,
            concurrency: concurrency.max(1),
            tasks: JoinSet::new(),
        }
    }
}

impl<D: AsyncDoFn> Clone for Waits<D> {
    fn clone(&self) -> Self {
        Waits::new(self.prototype.clone(), self.concurrency)
    }
}

fn outputs<O>(joined: Result<Done<O>, JoinError>) -> Result<(Header, Vec<O>), BoxError> {
    let (at, result) = joined.map_err(|e| -> BoxError {
        let Ok(panic) = e.try_into_panic() else {
            return "async user code was cancelled".into();
        };
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        format!(
            "user code panicked: {}",
            text.unwrap_or_else(|| "(no message)".to_owned())
        )
        .into()
    })?;
    Ok((at, result?))
}

impl<D: AsyncDoFn> DoFn for Waits<D> {
    type In = D::In;
    type Out = D::Out;
    const OBSERVES_WINDOW: bool = false;

    fn setup(&mut self) -> DoFnResult {
        runtime()?;
        let mut ready = self.prototype.clone();
        ready.setup()?;
        self.ready = Some(Arc::new(ready));
        Ok(())
    }

    fn process(&mut self, element: D::In, ctx: &mut Context<'_, D::Out>) -> DoFnResult {
        let runtime = runtime()?;
        let emit = |(at, values): (Header, Vec<D::Out>), ctx: &mut Context<'_, D::Out>| {
            for value in values {
                ctx.output_windowed(value, at.timestamp, at.windows.clone(), at.pane);
            }
        };
        while let Some(joined) = self.tasks.try_join_next() {
            emit(outputs(joined)?, ctx);
        }
        while self.tasks.len() >= self.concurrency {
            match runtime.block_on(self.tasks.join_next()) {
                Some(joined) => emit(outputs(joined)?, ctx),
                None => break,
            }
        }
        let code = self.ready.clone().ok_or("async code is not set up")?;
        let at = Header {
            timestamp: ctx.timestamp(),
            windows: ctx.windows().clone(),
            pane: ctx.pane(),
        };
        let task = async move {
            let result = code.process(element).await;
            (at, result)
        };
        self.tasks.spawn_on(task, runtime.handle());
        Ok(())
    }

    fn finish_bundle(&mut self, ctx: &mut FinishContext<'_, D::Out>) -> DoFnResult {
        let runtime = runtime()?;
        while let Some(joined) = runtime.block_on(self.tasks.join_next()) {
            let (at, values) = outputs(joined)?;
            for value in values {
                ctx.output_windowed(value, at.timestamp, at.windows.clone(), at.pane);
            }
        }
        Ok(())
    }

    fn teardown(&mut self) {
        self.tasks.abort_all();
        if let Some(mut ready) = self.ready.take().and_then(Arc::into_inner) {
            ready.teardown();
        }
    }
}

/// An async closure with one output for each element.
pub(crate) struct AsyncMapFn<F, T, U> {
    f: F,
    types: std::marker::PhantomData<fn(T) -> U>,
}

impl<F: Clone, T, U> Clone for AsyncMapFn<F, T, U> {
    fn clone(&self) -> Self {
        AsyncMapFn {
            f: self.f.clone(),
            types: std::marker::PhantomData,
        }
    }
}

impl<F, T, U> AsyncMapFn<F, T, U> {
    pub fn new(f: F) -> Self {
        AsyncMapFn {
            f,
            types: std::marker::PhantomData,
        }
    }
}

impl<F, T, U, E, Fut> AsyncDoFn for AsyncMapFn<F, T, (U, E, Fut)>
where
    F: Fn(T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<U, E>> + Send + 'static,
    T: Element,
    U: Element,
    E: Into<BoxError> + 'static,
{
    type In = T;
    type Out = U;

    fn process(&self, element: T) -> impl Future<Output = Result<Vec<U>, BoxError>> + Send {
        let waiting = (self.f)(element);
        async move { waiting.await.map(|value| vec![value]).map_err(Into::into) }
    }
}
