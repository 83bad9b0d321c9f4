//! An element type behind a pointer: makes the typed parts of a stage that have no user code.

use std::any::{Any, TypeId, type_name};
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use purlin_model::{Coder, CoderSpec, DecodeError, Element, WindowCoder, urns};

use super::backed;
use super::edge::{AnyReceiver, Edge, ElementCount, Receiver, SharedEdge};
use super::io::{ReadValue, SinkBuffer, SinkOp, Source, TypedSource, WireForm};
use super::ops::AssignWindows;
use crate::windowing::WindowFn;

/// The type of a PCollection's elements.
#[derive(Clone)]
pub struct ElementType(Arc<dyn Erased>);

impl ElementType {
    /// Of a Rust type.
    pub fn of<T: Element>() -> ElementType {
        ElementType(Arc::new(Typed::<T>(PhantomData)))
    }

    /// Of elements that no code of the stage looks at: bytes by this coder.
    pub(crate) fn raw(coder: Coder, spec: CoderSpec) -> ElementType {
        ElementType(Arc::new(RawType { coder, spec }))
    }

    /// Its coder.
    pub fn coder(&self) -> CoderSpec {
        self.0.coder()
    }

    /// Its name in Rust, for messages.
    pub fn name(&self) -> &'static str {
        self.0.name()
    }

    pub(crate) fn erased(&self) -> &dyn Erased {
        &*self.0
    }
}

impl PartialEq for ElementType {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl fmt::Debug for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The one downcast of an edge: where a stage is built.
pub(crate) fn receiver<T: 'static>(any: AnyReceiver) -> Option<Box<dyn Receiver<T>>> {
    any.downcast::<Box<dyn Receiver<T>>>().ok().map(|boxed| *boxed)
}

/// A receiver without its type.
pub fn any_receiver<T: 'static>(receiver: impl Receiver<T> + 'static) -> AnyReceiver {
    Box::new(Box::new(receiver) as Box<dyn Receiver<T>>)
}

/// Several producers' ways into one edge.
pub(crate) trait AnyShared {
    fn handle(&self) -> AnyReceiver;
}

impl<T: Element> AnyShared for SharedEdge<T> {
    fn handle(&self) -> AnyReceiver {
        Box::new(SharedEdge::handle(self))
    }
}

/// What can be made of an element type. `None`: an edge was of another type.
pub(crate) trait Erased: Send + Sync {
    fn id(&self) -> TypeId;
    fn name(&self) -> &'static str;
    fn coder(&self) -> CoderSpec;
    /// An `Edge<T>`.
    fn edge(&self, count: ElementCount, consumers: Vec<AnyReceiver>) -> Option<Box<dyn Any>>;
    fn share(&self, edge: Box<dyn Any>) -> Option<Box<dyn AnyShared>>;
    fn assign_windows(&self, window_fn: WindowFn, edge: Box<dyn Any>) -> Option<AnyReceiver>;
    fn sink(&self, form: WireForm, buffer: Rc<RefCell<SinkBuffer>>) -> AnyReceiver;
    fn source(&self, form: WireForm, windows: WindowCoder, edge: Box<dyn Any>) -> Option<Box<dyn Source>>;
}

struct Typed<T>(PhantomData<fn() -> T>);

fn edge<T: Element>(edge: Box<dyn Any>) -> Option<Edge<T>> {
    edge.downcast::<Edge<T>>().ok().map(|edge| *edge)
}

impl<T: Element> Erased for Typed<T> {
    fn id(&self) -> TypeId {
        TypeId::of::<T>()
    }
    fn name(&self) -> &'static str {
        type_name::<T>()
    }
    fn coder(&self) -> CoderSpec {
        T::coder()
    }
    fn edge(&self, count: ElementCount, consumers: Vec<AnyReceiver>) -> Option<Box<dyn Any>> {
        let consumers = consumers
            .into_iter()
            .map(receiver::<T>)
            .collect::<Option<Vec<_>>>()?;
        Some(Box::new(Edge::new(count, consumers)))
    }
    fn share(&self, any: Box<dyn Any>) -> Option<Box<dyn AnyShared>> {
        Some(Box::new(SharedEdge::new(edge::<T>(any)?)))
    }
    fn assign_windows(&self, window_fn: WindowFn, any: Box<dyn Any>) -> Option<AnyReceiver> {
        Some(any_receiver(AssignWindows::new(window_fn, edge::<T>(any)?)))
    }
    fn sink(&self, form: WireForm, buffer: Rc<RefCell<SinkBuffer>>) -> AnyReceiver {
        any_receiver::<T>(SinkOp::new(form, buffer))
    }
    fn source(&self, form: WireForm, windows: WindowCoder, any: Box<dyn Any>) -> Option<Box<dyn Source>> {
        Some(Box::new(TypedSource::new(form, windows, edge::<T>(any)?)))
    }
}

/// An element that passes through, as the runner encoded it.
#[derive(Clone)]
struct Raw(Bytes);

impl Element for Raw {
    fn coder() -> CoderSpec {
        CoderSpec::atom(urns::BYTES)
    }
    fn encode(&self, out: &mut Vec<u8>, _nested: bool) {
        out.extend_from_slice(&self.0);
    }
    fn decode(input: &mut &[u8], _nested: bool) -> Result<Self, DecodeError> {
        Ok(Raw(Bytes::copy_from_slice(std::mem::take(input))))
    }
}

struct RawType {
    coder: Coder,
    spec: CoderSpec,
}

impl Erased for RawType {
    fn id(&self) -> TypeId {
        TypeId::of::<Raw>()
    }
    fn name(&self) -> &'static str {
        "bytes"
    }
    fn coder(&self) -> CoderSpec {
        self.spec.clone()
    }
    fn edge(&self, count: ElementCount, consumers: Vec<AnyReceiver>) -> Option<Box<dyn Any>> {
        Typed::<Raw>(PhantomData).edge(count, consumers)
    }
    fn share(&self, edge: Box<dyn Any>) -> Option<Box<dyn AnyShared>> {
        Typed::<Raw>(PhantomData).share(edge)
    }
    fn assign_windows(&self, window_fn: WindowFn, edge: Box<dyn Any>) -> Option<AnyReceiver> {
        Typed::<Raw>(PhantomData).assign_windows(window_fn, edge)
    }
    fn sink(&self, _form: WireForm, buffer: Rc<RefCell<SinkBuffer>>) -> AnyReceiver {
        Typed::<Raw>(PhantomData).sink(WireForm::Plain, buffer)
    }
    fn source(&self, _form: WireForm, windows: WindowCoder, any: Box<dyn Any>) -> Option<Box<dyn Source>> {
        let source = TypedSource::new(self.coder.clone(), windows, edge::<Raw>(any)?);
        Some(Box::new(source))
    }
}

/// Cuts elements that pass through.
impl ReadValue<Raw> for Coder {
    fn read(&self, input: &mut &[u8]) -> Result<Raw, DecodeError> {
        let value = self.take(input, true)?;
        let whole = match self.as_kv() {
            Some((_, Coder::StateBackedIterable(_))) => backed::whole(self, value)?,
            _ => None,
        };
        Ok(Raw(match whole {
            Some(whole) => whole.into(),
            None => Bytes::copy_from_slice(value),
        }))
    }
}
