//! The typed edges inside a stage: one dynamic call per step, for an element or for a batch of them.
//!
//! Elements that follow each other with the same timestamp, windows and pane travel together, since a call for each of
//! them costs more than most steps do. A batch lives no longer than the call that brings it, and is only as long as it
//! takes no time to speak of ([`Pace`](super::pace::Pace)): slow elements come one by one.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use purlin_model::{Element, Header};

use super::failure::Failure;

/// Takes the elements of a PCollection. Receivers own those behind them: calls run down the stage and come back.
pub trait Receiver<T> {
    /// Takes one element.
    fn receive(&mut self, value: T, at: &Header) -> Result<(), Failure>;
    /// Takes elements that share a header, and leaves none of them.
    fn receive_all(&mut self, values: &mut Vec<T>, at: &Header) -> Result<(), Failure> {
        values.drain(..).try_for_each(|value| self.receive(value, at))
    }
    /// Whether elements should be gathered for [`Receiver::receive_all`].
    fn batches(&self) -> bool {
        false
    }
    /// A bundle starts. What is behind starts first, since `start_bundle` may not see a step that is not ready.
    fn start(&mut self) -> Result<(), Failure>;
    /// The bundle ends. What is behind ends last.
    fn finish(&mut self) -> Result<(), Failure>;
}

/// A `Box<dyn Receiver<T>>` whose type is known to its maker and its user.
pub type AnyReceiver = Box<dyn Any>;

/// Number of elements of one PCollection in a bundle. One thread writes, others may read.
#[derive(Clone, Debug, Default)]
pub struct ElementCount(Arc<AtomicU64>);

impl ElementCount {
    #[inline(always)]
    fn add(&self, count: u64) {
        // There is one writer, so no locked instruction is needed.
        self.0
            .store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Back to none.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// The edge to all consumers of a PCollection.
pub struct Edge<T> {
    count: ElementCount,
    next: Box<dyn Receiver<T>>,
}

impl<T: Element> Edge<T> {
    /// The edge to these consumers.
    pub fn new(count: ElementCount, mut consumers: Vec<Box<dyn Receiver<T>>>) -> Edge<T> {
        let next = match consumers.len() {
            0 => Box::new(Discard) as Box<dyn Receiver<T>>,
            1 => consumers.remove(0),
            _ => Box::new(FanOut(consumers)),
        };
        Edge { count, next }
    }

    /// Sends an element to all consumers.
    #[inline(always)]
    pub fn send(&mut self, value: T, at: &Header) -> Result<(), Failure> {
        self.count.add(1);
        self.next.receive(value, at)
    }

    /// Sends elements that share a header to all consumers. None of them is left.
    #[inline]
    pub fn send_all(&mut self, values: &mut Vec<T>, at: &Header) -> Result<(), Failure> {
        self.count.add(values.len() as u64);
        self.next.receive_all(values, at)
    }

    /// Whether elements should be gathered for [`Edge::send_all`].
    pub fn batches(&self) -> bool {
        self.next.batches()
    }

    /// A bundle starts.
    pub fn start(&mut self) -> Result<(), Failure> {
        self.next.start()
    }

    /// The bundle ends.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.next.finish()
    }
}

/// An [`Edge`] of an unnamed type, for tagged outputs.
pub trait AnyEdge {
    /// The edge itself.
    fn as_any(&mut self) -> &mut dyn Any;
    /// A bundle starts.
    fn start(&mut self) -> Result<(), Failure>;
    /// The bundle ends.
    fn finish(&mut self) -> Result<(), Failure>;
}

impl<T: Element> AnyEdge for Edge<T> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
    fn start(&mut self) -> Result<(), Failure> {
        Edge::start(self)
    }
    fn finish(&mut self) -> Result<(), Failure> {
        Edge::finish(self)
    }
}

/// The end of a PCollection that nobody reads.
struct Discard;

impl<T> Receiver<T> for Discard {
    fn receive(&mut self, _value: T, _at: &Header) -> Result<(), Failure> {
        Ok(())
    }
    fn receive_all(&mut self, values: &mut Vec<T>, _at: &Header) -> Result<(), Failure> {
        values.clear();
        Ok(())
    }
    fn batches(&self) -> bool {
        true
    }
    fn start(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    fn finish(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// Several consumers.
struct FanOut<T>(Vec<Box<dyn Receiver<T>>>);

impl<T: Element> Receiver<T> for FanOut<T> {
    fn receive(&mut self, value: T, at: &Header) -> Result<(), Failure> {
        let Some((last, others)) = self.0.split_last_mut() else {
            return Ok(());
        };
        for consumer in others {
            consumer.receive(value.clone(), at)?;
        }
        last.receive(value, at)
    }
    fn receive_all(&mut self, values: &mut Vec<T>, at: &Header) -> Result<(), Failure> {
        let Some((last, others)) = self.0.split_last_mut() else {
            return Ok(());
        };
        let mut copies = Vec::new();
        for consumer in others {
            copies.clone_from(values);
            consumer.receive_all(&mut copies, at)?;
        }
        last.receive_all(values, at)
    }
    fn batches(&self) -> bool {
        self.0.iter().all(|consumer| consumer.batches())
    }
    fn start(&mut self) -> Result<(), Failure> {
        self.0.iter_mut().try_for_each(|c| c.start())
    }
    fn finish(&mut self) -> Result<(), Failure> {
        self.0.iter_mut().try_for_each(|c| c.finish())
    }
}

/// A receiver behind several PCollections: a Flatten's output. It starts with the first and ends with the last.
pub struct SharedEdge<T> {
    inner: Rc<RefCell<SharedEdgeInner<T>>>,
}

struct SharedEdgeInner<T> {
    next: Edge<T>,
    producers: usize,
    started: usize,
    finished: usize,
}

impl<T: Element> SharedEdge<T> {
    /// Shares an edge.
    pub fn new(next: Edge<T>) -> SharedEdge<T> {
        SharedEdge {
            inner: Rc::new(RefCell::new(SharedEdgeInner {
                next,
                producers: 0,
                started: 0,
                finished: 0,
            })),
        }
    }

    /// One more producer's way in.
    pub fn handle(&self) -> Box<dyn Receiver<T>> {
        self.inner.borrow_mut().producers += 1;
        Box::new(SharedEdge {
            inner: self.inner.clone(),
        })
    }
}

impl<T: Element> Receiver<T> for SharedEdge<T> {
    fn receive(&mut self, value: T, at: &Header) -> Result<(), Failure> {
        self.inner.borrow_mut().next.send(value, at)
    }
    fn receive_all(&mut self, values: &mut Vec<T>, at: &Header) -> Result<(), Failure> {
        self.inner.borrow_mut().next.send_all(values, at)
    }
    fn batches(&self) -> bool {
        self.inner.borrow().next.batches()
    }
    fn start(&mut self) -> Result<(), Failure> {
        let mut inner = self.inner.borrow_mut();
        inner.started += 1;
        if inner.started == 1 {
            inner.finished = 0;
            inner.next.start()?;
        }
        Ok(())
    }
    fn finish(&mut self) -> Result<(), Failure> {
        let mut inner = self.inner.borrow_mut();
        inner.finished += 1;
        if inner.finished == inner.producers {
            inner.started = 0;
            inner.next.finish()?;
        }
        Ok(())
    }
}
