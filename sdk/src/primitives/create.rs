//! A collection of given elements.

use std::marker::PhantomData;

use bytes::Bytes;
use purlin_model::Element;

use super::Impulse;
use crate::dofn::{Context, DoFn};
use crate::error::DoFnResult;
use crate::pipeline::{PBegin, PCollection, PTransform};

/// A collection of given elements.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = Pipeline::new();
/// let numbers: PCollection<i64> = p.apply(Create::new([1, 2, 3]));
/// # p.build().unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Create<T> {
    /// Encoded elements, in pieces that different workers may decode.
    pieces: Vec<Bytes>,
    element: PhantomData<fn() -> T>,
}

/// A piece holds so many bytes at most, if it has more than one element.
const PIECE: usize = 64 << 10;
/// So many pieces at least, if there are elements for them.
const PIECES: usize = 16;

impl<T: Element> Create<T> {
    /// These elements. They are encoded at once.
    pub fn new<I>(elements: I) -> Create<T>
    where
        I: IntoIterator<Item = T>,
        I::IntoIter: 'static,
    {
        let mut buffer = Vec::new();
        let mut ends = Vec::new();
        let mut pieces = Vec::new();
        for element in elements {
            element.encode(&mut buffer, true);
            ends.push(buffer.len());
            // The elements so far are cut for all; what follows only adds pieces.
            if buffer.len() >= PIECE * PIECES {
                cut(&mut buffer, &mut ends, &mut pieces);
            }
        }
        cut(&mut buffer, &mut ends, &mut pieces);
        Create {
            pieces,
            element: PhantomData,
        }
    }
}

fn cut(buffer: &mut Vec<u8>, ends: &mut Vec<usize>, pieces: &mut Vec<Bytes>) {
    let data = Bytes::from(std::mem::take(buffer));
    let target = (data.len() / PIECES).clamp(1, PIECE);
    let mut start = 0;
    for end in ends.drain(..) {
        if end - start >= target || end == data.len() {
            pieces.push(data.slice(start..end));
            start = end;
        }
    }
}

/// Emits the pieces.
#[derive(Clone)]
struct Emit(Vec<Bytes>);

impl DoFn for Emit {
    type In = Vec<u8>;
    type Out = Bytes;
    const OBSERVES_WINDOW: bool = false;
    fn process(&mut self, _: Vec<u8>, ctx: &mut Context<'_, Bytes>) -> DoFnResult {
        self.0.iter().for_each(|piece| ctx.output(piece.clone()));
        Ok(())
    }
}

/// Emits a piece's elements.
struct Decode<T>(PhantomData<fn() -> T>);

impl<T> Clone for Decode<T> {
    fn clone(&self) -> Self {
        Decode(PhantomData)
    }
}

impl<T: Element> DoFn for Decode<T> {
    type In = Bytes;
    type Out = T;
    const OBSERVES_WINDOW: bool = false;
    fn process(&mut self, piece: Bytes, ctx: &mut Context<'_, T>) -> DoFnResult {
        let mut input = &piece[..];
        while !input.is_empty() {
            ctx.output(T::decode(&mut input, true)?);
        }
        Ok(())
    }
}

impl<T: Element> PTransform<PBegin> for Create<T> {
    type Output = PCollection<T>;

    fn name(&self) -> String {
        "Create".into()
    }

    fn expand(self, input: PBegin) -> PCollection<T> {
        let several = self.pieces.len() > 1;
        let mut pieces = input.pipeline().apply(Impulse).par_do("Emit", Emit(self.pieces));
        if several {
            pieces = pieces.reshuffle("Reshuffle");
        }
        pieces.par_do("Decode", Decode(PhantomData))
    }
}
