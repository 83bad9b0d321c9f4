//! A list in the order of a number, read and cleared by ranges.

use std::ops::{Bound, RangeBounds};

use purlin_model::Element;

use super::{Field, FieldKind, FieldSpec, Keyed, handle};
use crate::error::{BoxError, DoFnResult};

handle!(
    /// Values in the order of a number each, for example a timestamp. Several values may have the same number.
    ///
    /// ```
    /// # use purlin::prelude::*;
    /// fn of_the_first_minute(
    ///     events: &OrderedListState<String>,
    ///     ctx: &mut KeyedContext<'_, String>,
    /// ) -> DoFnResult {
    ///     for (_millis, event) in events.read_range(ctx, 0..60_000)? {
    ///         ctx.output(event);
    ///     }
    ///     events.clear_range(ctx, ..60_000)
    /// }
    /// ```
    OrderedListState<T>
);

/// The numbers `[start, end)`. The largest number of all cannot be in a range: Beam's ranges exclude their end.
fn bounds(range: impl RangeBounds<i64>) -> (i64, i64) {
    let start = match range.start_bound() {
        Bound::Unbounded => i64::MIN,
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
    };
    let end = match range.end_bound() {
        Bound::Unbounded => i64::MAX,
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
    };
    (start, end.max(start))
}

impl<T: Element> Field for OrderedListState<T> {
    fn spec(&self) -> FieldSpec {
        FieldSpec {
            id: self.id,
            name: self.name.clone(),
            queryable: self.queryable,
            kind: FieldKind::OrderedList(T::coder()),
        }
    }
}

impl<T: Element> OrderedListState<T> {
    /// All values, in order.
    ///
    /// # Errors
    /// When the state is not declared, or cannot be read.
    pub fn read(&self, ctx: &mut impl Keyed) -> Result<Vec<(i64, T)>, BoxError> {
        self.read_range(ctx, ..)
    }

    /// The values whose numbers are in a range, in order. Only what was not read before is fetched.
    ///
    /// # Errors
    /// When the state is not declared, or cannot be read.
    pub fn read_range(
        &self,
        ctx: &mut impl Keyed,
        range: impl RangeBounds<i64>,
    ) -> Result<Vec<(i64, T)>, BoxError> {
        let (start, end) = bounds(range);
        let list = ctx.keyed().list(self.id, &self.name)?;
        let mut all = Vec::new();
        for (number, value) in list.read(start, end)? {
            all.push((number, T::decode(&mut &value[..], false)?));
        }
        Ok(all)
    }

    /// Asks for a range, and does not wait for it: the ways of several states to the runner and back are then one. It
    /// only pays where all are asked before the first is read.
    ///
    /// # Errors
    /// When the state is not declared.
    pub fn read_range_later(&self, ctx: &mut impl Keyed, range: impl RangeBounds<i64>) -> DoFnResult {
        let (start, end) = bounds(range);
        ctx.keyed().list(self.id, &self.name)?.begin_read(start, end)
    }

    /// Adds a value under a number. What is there is not read.
    ///
    /// # Errors
    /// When the state is not declared.
    pub fn add(&self, ctx: &mut impl Keyed, number: i64, value: &T) -> DoFnResult {
        let mut bytes = Vec::new();
        value.encode(&mut bytes, false);
        ctx.keyed().list(self.id, &self.name)?.add(number, bytes);
        Ok(())
    }

    /// Removes the values whose numbers are in a range.
    ///
    /// # Errors
    /// When the state is not declared.
    pub fn clear_range(&self, ctx: &mut impl Keyed, range: impl RangeBounds<i64>) -> DoFnResult {
        let (start, end) = bounds(range);
        ctx.keyed().list(self.id, &self.name)?.clear(start, end);
        Ok(())
    }

    /// Removes all values.
    ///
    /// # Errors
    /// When the state is not declared.
    pub fn clear(&self, ctx: &mut impl Keyed) -> DoFnResult {
        self.clear_range(ctx, ..)
    }
}

#[cfg(test)]
mod tests {
    use super::bounds;

    #[test]
    fn ranges_are_half_open() {
        assert_eq!(bounds(3..5), (3, 5));
        assert_eq!(bounds(3..=5), (3, 6));
        assert_eq!(bounds(..), (i64::MIN, i64::MAX));
        assert_eq!(bounds(..=i64::MAX), (i64::MIN, i64::MAX));
        #[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
        let reversed = bounds(7..3);
        assert_eq!(reversed, (7, 7));
    }
}
