//! States that are bags on the wire: a value, a bag, a set, an accumulator.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;

use purlin_model::Element;

use super::{Field, FieldKind, FieldSpec, Keyed, field_id, handle};
use crate::combine::CombineFn;
use crate::error::{BoxError, DoFnResult};

handle!(
    /// One value, or none.
    ///
    /// ```
    /// # use purlin::prelude::*;
    /// fn count(state: &ValueState<u64>, ctx: &mut KeyedContext<'_, u64>) -> DoFnResult {
    ///     let count = state.read(ctx)?.unwrap_or(0) + 1;
    ///     state.write(ctx, &count)?;
    ///     ctx.output(count);
    ///     Ok(())
    /// }
    /// ```
    ValueState<T>
);
handle!(
    /// Any number of values, in no order.
    BagState<T>
);
handle!(
    /// Values, each once. Two values are the same if they are encoded alike.
    SetState<T>
);

fn decode_all<T: Element>(pieces: &[&[u8]]) -> Result<Vec<T>, BoxError> {
    let mut all = Vec::new();
    for mut piece in pieces.iter().copied() {
        while !piece.is_empty() {
            all.push(T::decode(&mut piece, true)?);
        }
    }
    Ok(all)
}

fn encoded<T: Element>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out, true);
    out
}

impl<T: Element> Field for ValueState<T> {
    fn spec(&self) -> FieldSpec {
        FieldSpec {
            id: self.id,
            name: self.name.clone(),
            queryable: self.queryable,
            kind: FieldKind::Value(T::coder()),
        }
    }
}

impl<T: Element> ValueState<T> {
    /// The value, if there is one.
    ///
    /// # Errors
    /// When the state is not declared, or cannot be read.
    pub fn read(&self, ctx: &mut impl Keyed) -> Result<Option<T>, BoxError> {
        let bag = ctx.keyed().bag(self.id, &self.name)?;
        let [stored, added] = bag.read()?;
        // A value that was written replaces the one before; runners hold the last one written.
        let mut last = None;
        for mut piece in [stored, added] {
            while !piece.is_empty() {
                last = Some(T::decode(&mut piece, true)?);
            }
        }
        Ok(last)
    }

    /// Asks for what [`Self::read`] is to give, and does not wait for it: the ways of several states to the runner and back
    /// are then one. It only pays where all are asked before the first is read.
    ///
    /// # Errors
    /// When the state is not declared.
    pub fn read_later(&self, ctx: &mut impl Keyed) -> DoFnResult {
        ctx.keyed().bag(self.id, &self.name)?.begin_read()
    }

    /// Replaces the value.
    ///
    /// # Errors
    /// When the state is not declared.
    pub fn write(&self, ctx: &mut impl Keyed, value: &T) -> DoFnResult {
        let bag = ctx.keyed().bag(self.id, &self.name)?;
        bag.clear();
        value.encode(bag.added(), true);
        Ok(())
    }

    /// Removes the value.
    ///
    /// # Errors
    /// When the state is not declared.
    pub fn clear(&self, ctx: &mut impl Keyed) -> DoFnResult {
        ctx.keyed().bag(self.id, &self.name)?.clear();
        Ok(())
    }
}

impl<T: Element> Field for BagState<T> {
    fn spec(&self) -> FieldSpec {
        FieldSpec {
            id: self.id,
            name: self.name.clone(),
            queryable: self.queryable,
            kind: FieldKind::Bag(T::coder()),
        }
    }
}

impl<T: Element> BagState<T> {
    /// All values.
    ///
    /// # Errors
    /// When the state is not declared, or cannot be read.
    pub fn read(&self, ctx: &mut impl Keyed) -> Result<Vec<T>, BoxError> {
        decode_all(&ctx.keyed().bag(self.id, &self.name)?.read()?)
    }

    /// Asks for what [`Self::read`] is to give, and does not wait for it: the ways of several states to the runner and back
    /// are then one. It only pays where all are asked before the first is read.
    ///
    /// # Errors
    /// When the state is not declared.
    pub fn read_later(&self, ctx: &mut impl Keyed) -> DoFnResult {
        ctx.keyed().bag(self.id, &self.name)?.begin_read()
    }

    /// Whether there is no value.
    ///
    /// # Errors
    /// When the state is not declared, or cannot be read.
    pub fn is_empty(&self, ctx: &mut impl Keyed) -> Result<bool, BoxError> {
        let [stored, added] = ctx.keyed().bag(self.id, &self.name)?.read()?;
        Ok(stored.is_empty() && added.is_empty())
    }

    /// Adds a value. What is there is not read.
    ///
    /// # Errors
    /// When the state is not declared.
    pub fn add(&self, ctx: &mut impl Keyed, value: &T) -> DoFnResult {
        value.encode(ctx.keyed().bag(self.id, &self.name)?.added(), true);
        Ok(())
    }

    /// Removes all values.
    ///
    /// # Errors
    /// When the state is not declared.
    pub fn clear(&self, ctx: &mut impl Keyed) -> DoFnResult {
        ctx.keyed().bag(self.id, &self.name)?.clear();
        Ok(())
    }
}

impl<T: Element> Field for SetState<T> {
    fn spec(&self) -> FieldSpec {
        FieldSpec {
            id: self.id,
            name: self.name.clone(),
            queryable: self.queryable,
            kind: FieldKind::Set(T::coder()),
        }
    }
}

/// Cuts concatenated elements apart.
fn cut<T: Element>(mut data: &[u8], into: &mut BTreeSet<Vec<u8>>) -> Result<(), BoxError> {
    while !data.is_empty() {
        let before = data;
        T::decode(&mut data, true)?;
        into.insert(before[..before.len() - data.len()].to_vec());
    }
    Ok(())
}

impl<T: Element> SetState<T> {
    /// All values.
    ///
    /// # Errors
    /// When the state is not declared, or cannot be read.
    pub fn read(&self, ctx: &mut impl Keyed) -> Result<Vec<T>, BoxError> {
        let elements = ctx.keyed().set(self.id, &self.name)?.elements(cut::<T>)?;
        let decoded = elements.iter().map(|element| T::decode(&mut &element[..], true));
        decoded.collect::<Result<_, _>>().map_err(Into::into)
    }

    /// Asks for what [`Self::read`] is to give, and does not wait for it: the ways of several states to the runner and back
    /// are then one. It only pays where all are asked before the first is read.
    ///
    /// # Errors
    /// When the state is not declared.
    pub fn read_later(&self, ctx: &mut impl Keyed) -> DoFnResult {
        ctx.keyed().set(self.id, &self.name)?.begin_read()
    }

    /// Whether a value is in the set.
    ///
    /// # Errors
    /// When the state is not declared, or cannot be read.
    pub fn contains(&self, ctx: &mut impl Keyed, value: &T) -> Result<bool, BoxError> {
        let elements = ctx.keyed().set(self.id, &self.name)?.elements(cut::<T>)?;
        Ok(elements.contains(&encoded(value)))
    }

    /// Whether the set has no values.
    ///
    /// # Errors
    /// When the state is not declared, or cannot be read.
    pub fn is_empty(&self, ctx: &mut impl Keyed) -> Result<bool, BoxError> {
        Ok(ctx
            .keyed()
            .set(self.id, &self.name)?
            .elements(cut::<T>)?
            .is_empty())
    }

    /// Adds a value. What is there is not read.
    ///
    /// # Errors
    /// When the state is not declared.
    pub fn add(&self, ctx: &mut impl Keyed, value: &T) -> DoFnResult {
        ctx.keyed().set(self.id, &self.name)?.add(encoded(value));
        Ok(())
    }

    /// Removes a value; tells whether it was there.
    ///
    /// # Errors
    /// When the state is not declared, or cannot be read.
    pub fn remove(&self, ctx: &mut impl Keyed, value: &T) -> Result<bool, BoxError> {
        ctx.keyed()
            .set(self.id, &self.name)?
            .remove(&encoded(value), cut::<T>)
    }

    /// Removes all values.
    ///
    /// # Errors
    /// When the state is not declared.
    pub fn clear(&self, ctx: &mut impl Keyed) -> DoFnResult {
        ctx.keyed().set(self.id, &self.name)?.clear();
        Ok(())
    }
}

/// An accumulator of a [`CombineFn`].
///
/// ```
/// # use purlin::prelude::*;
/// let total: CombiningState<Sum<i64>> = CombiningState::new("total", Sum::new());
/// ```
#[derive(Clone)]
pub struct CombiningState<F> {
    id: u64,
    name: Arc<str>,
    queryable: bool,
    combine: F,
    types: PhantomData<fn() -> F>,
}

impl<F: CombineFn> std::fmt::Debug for CombiningState<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CombiningState({})", self.name)
    }
}

impl<F: CombineFn> Field for CombiningState<F> {
    fn spec(&self) -> FieldSpec {
        FieldSpec {
            id: self.id,
            name: self.name.clone(),
            queryable: self.queryable,
            kind: FieldKind::Combining(F::Accumulator::coder()),
        }
    }
}

impl<F: CombineFn> CombiningState<F> {
    /// The handle of a state of this name that combines by this function.
    pub fn new(name: &str, combine: F) -> Self {
        CombiningState {
            id: field_id::<Self>(name),
            name: name.into(),
            queryable: false,
            combine,
            types: PhantomData,
        }
    }

    /// As [`CombiningState::new`], of a state that others can read while the job runs; see [`ValueState::queryable`]. They read the
    /// accumulator, which is what is kept, not what is made of it.
    pub fn queryable(name: &str, combine: F) -> Self {
        CombiningState {
            queryable: true,
            ..Self::new(name, combine)
        }
    }

    fn accumulator(&self, ctx: &mut impl Keyed) -> Result<F::Accumulator, BoxError> {
        let pieces = ctx.keyed().bag(self.id, &self.name)?.read()?;
        let mut all = decode_all::<F::Accumulator>(&pieces)?.into_iter();
        let mut merged = all.next().unwrap_or_else(|| self.combine.create_accumulator());
        all.for_each(|other| self.combine.merge_accumulators(&mut merged, other));
        Ok(merged)
    }

    fn put(&self, ctx: &mut impl Keyed, accumulator: &F::Accumulator) -> DoFnResult {
        let bag = ctx.keyed().bag(self.id, &self.name)?;
        bag.clear();
        accumulator.encode(bag.added(), true);
        Ok(())
    }

    /// What the values so far combine to.
    ///
    /// # Errors
    /// When the state is not declared, or cannot be read.
    pub fn read(&self, ctx: &mut impl Keyed) -> Result<F::Out, BoxError> {
        Ok(self.combine.extract_output(self.accumulator(ctx)?))
    }

    /// Asks for what [`Self::read`] is to give, and does not wait for it: the ways of several states to the runner and back
    /// are then one. It only pays where all are asked before the first is read.
    ///
    /// # Errors
    /// When the state is not declared.
    pub fn read_later(&self, ctx: &mut impl Keyed) -> DoFnResult {
        ctx.keyed().bag(self.id, &self.name)?.begin_read()
    }

    /// Adds a value.
    ///
    /// # Errors
    /// When the state is not declared, or cannot be read.
    pub fn add(&self, ctx: &mut impl Keyed, value: F::In) -> DoFnResult {
        let mut accumulator = self.accumulator(ctx)?;
        self.combine.add_input(&mut accumulator, value);
        self.put(ctx, &accumulator)
    }

    /// Adds all that another accumulator knows.
    ///
    /// # Errors
    /// When the state is not declared, or cannot be read.
    pub fn merge(&self, ctx: &mut impl Keyed, other: F::Accumulator) -> DoFnResult {
        let mut accumulator = self.accumulator(ctx)?;
        self.combine.merge_accumulators(&mut accumulator, other);
        self.put(ctx, &accumulator)
    }

    /// Forgets all values.
    ///
    /// # Errors
    /// When the state is not declared.
    pub fn clear(&self, ctx: &mut impl Keyed) -> DoFnResult {
        ctx.keyed().bag(self.id, &self.name)?.clear();
        Ok(())
    }
}
