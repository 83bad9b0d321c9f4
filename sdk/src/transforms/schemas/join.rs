//! Joins.

use std::hash::Hash;
use std::marker::PhantomData;

use purlin_model::Element;

use super::select::Projection;
use crate::dofn::Context;
use crate::error::BoxError;
use crate::pipeline::{Apply, PCollection, PTransform};
use crate::primitives::ParDo;
use crate::schema::fields::type_name;
use crate::schema::{FieldPath, Schema};
use crate::transforms::CoGroupByKey;

/// Pairs that have both sides.
#[derive(Clone, Copy, Debug)]
pub enum Inner {}
/// Pairs, and what is alone on the left.
#[derive(Clone, Copy, Debug)]
pub enum Left {}
/// Pairs, and what is alone on the right.
#[derive(Clone, Copy, Debug)]
pub enum Right {}
/// Pairs, and what is alone on either side.
#[derive(Clone, Copy, Debug)]
pub enum Full {}

/// What a join gives: [`Inner`], [`Left`], [`Right`] or [`Full`].
pub trait JoinMode<L, R>: 'static {
    /// What comes out.
    type Row: Element;
    /// Its name.
    const NAME: &'static str;
    /// A pair.
    fn pair(left: L, right: R) -> Self::Row;
    /// An element of the left without a partner.
    fn left(left: L) -> Option<Self::Row>;
    /// An element of the right without a partner.
    fn right(right: R) -> Option<Self::Row>;
}

/// A join that needs to know nothing of elements of the right that have no partner: the right can be broadcast.
pub trait KeepsLeft {}
impl KeepsLeft for Inner {}
impl KeepsLeft for Left {}

impl<L: Element, R: Element> JoinMode<L, R> for Inner {
    type Row = (L, R);
    const NAME: &'static str = "Join.Inner";
    fn pair(left: L, right: R) -> (L, R) {
        (left, right)
    }
    fn left(_left: L) -> Option<(L, R)> {
        None
    }
    fn right(_right: R) -> Option<(L, R)> {
        None
    }
}

impl<L: Element, R: Element> JoinMode<L, R> for Left {
    type Row = (L, Option<R>);
    const NAME: &'static str = "Join.Left";
    fn pair(left: L, right: R) -> Self::Row {
        (left, Some(right))
    }
    fn left(left: L) -> Option<Self::Row> {
        Some((left, None))
    }
    fn right(_right: R) -> Option<Self::Row> {
        None
    }
}

impl<L: Element, R: Element> JoinMode<L, R> for Right {
    type Row = (Option<L>, R);
    const NAME: &'static str = "Join.Right";
    fn pair(left: L, right: R) -> Self::Row {
        (Some(left), right)
    }
    fn left(_left: L) -> Option<Self::Row> {
        None
    }
    fn right(right: R) -> Option<Self::Row> {
        Some((None, right))
    }
}

impl<L: Element, R: Element> JoinMode<L, R> for Full {
    type Row = (Option<L>, Option<R>);
    const NAME: &'static str = "Join.Full";
    fn pair(left: L, right: R) -> Self::Row {
        (Some(left), Some(right))
    }
    fn left(left: L) -> Option<Self::Row> {
        Some((Some(left), None))
    }
    fn right(right: R) -> Option<Self::Row> {
        Some((None, Some(right)))
    }
}

/// What makes elements of two collections partners: [`ByFn`] or [`ByFields`].
pub trait JoinKeys<L, R>: Clone + Send + 'static {
    /// What is equal for partners.
    type Key: Element + Eq + Hash + Sync;
    /// Checks the keys; gives what is wrong.
    #[doc(hidden)]
    fn bind(&mut self) -> Vec<String>;
    /// The key of an element of the left.
    #[doc(hidden)]
    fn left(&self, element: &L) -> Result<Self::Key, BoxError>;
    /// The key of an element of the right.
    #[doc(hidden)]
    fn right(&self, element: &R) -> Result<Self::Key, BoxError>;
}

/// Keys by closures: both give the same type, or the program does not compile.
#[derive(Clone, Copy, Debug)]
pub struct ByFn<F, G> {
    left: F,
    right: G,
}

impl<L, R, K, F, G> JoinKeys<L, R> for ByFn<F, G>
where
    K: Element + Eq + Hash + Sync,
    F: Fn(&L) -> K + Clone + Send + 'static,
    G: Fn(&R) -> K + Clone + Send + 'static,
{
    type Key = K;
    fn bind(&mut self) -> Vec<String> {
        Vec::new()
    }
    fn left(&self, element: &L) -> Result<K, BoxError> {
        Ok((self.left)(element))
    }
    fn right(&self, element: &R) -> Result<K, BoxError> {
        Ok((self.right)(element))
    }
}

/// Keys by the names of fields.
#[derive(Clone, Debug)]
pub struct ByFields {
    left: Vec<String>,
    right: Vec<String>,
    plans: Option<(Projection, Projection)>,
}

impl<L: Schema, R: Schema> JoinKeys<L, R> for ByFields {
    type Key = Vec<u8>;

    fn bind(&mut self) -> Vec<String> {
        if self.left.len() != self.right.len() || self.left.is_empty() {
            return vec![format!(
                "a join needs as many fields on the left as on the right, and at least one; there are {} and {}",
                self.left.len(),
                self.right.len()
            )];
        }
        let mut problems = Vec::new();
        let mut found = |side: Result<Projection, Vec<crate::schema::FieldError>>| match side {
            Ok(projection) => Some(projection),
            Err(errors) => {
                problems.extend(errors.iter().map(ToString::to_string));
                None
            }
        };
        let (left, right) = (
            found(Projection::of::<L>(&self.left)),
            found(Projection::of::<R>(&self.right)),
        );
        let (Some(left), Some(right)) = (left, right) else {
            return problems;
        };
        for (a, b) in left.paths().iter().zip(right.paths()) {
            let wanted_by = format!("\"{b}\" of {}, which it is to equal,", type_name::<R>());
            if let Err(error) = check(a, b, &type_name::<L>(), &wanted_by) {
                problems.push(error);
            }
        }
        self.plans = Some((left, right));
        problems
    }

    fn left(&self, element: &L) -> Result<Vec<u8>, BoxError> {
        let (left, _) = self.plans.as_ref().ok_or("the join was not checked")?;
        Ok(left.project(&element.to_row())?)
    }

    fn right(&self, element: &R) -> Result<Vec<u8>, BoxError> {
        let (_, right) = self.plans.as_ref().ok_or("the join was not checked")?;
        Ok(right.project(&element.to_row())?)
    }
}

/// Whether fields can be equal: only whether they may be null may differ.
fn check(a: &FieldPath, b: &FieldPath, type_name: &str, wanted_by: &str) -> Result<(), String> {
    let mut wanted = b.field_type().clone();
    wanted.nullable = true;
    let shown = b.field_type();
    a.check(type_name, &wanted, wanted_by).map_err(|_| {
        format!(
            "field \"{a}\" of {type_name} is {}, but {wanted_by} is {shown}",
            a.field_type()
        )
    })
}

/// Joins two collections: pairs of elements whose keys are equal. Each matches each, so two elements on the left and three on
/// the right make six pairs.
///
/// | join | gives |
/// |---|---|
/// | [`Join::inner`] | `(L, R)` |
/// | [`Join::left`] | `(L, Option<R>)` |
/// | [`Join::right`] | `(Option<L>, R)` |
/// | [`Join::full`] | `(Option<L>, Option<R>)` |
///
/// Keys come from closures, or, for types with a schema, from the names of fields: `Join::inner_on(["user"], ["id"])`. Keys are
/// compared by their encoding; a null equals a null. Elements match within their window. [`Join::broadcast`] sends a small right
/// side to all workers and shuffles nothing.
///
/// ```
/// use purlin::prelude::*;
///
/// #[derive(Clone, Debug, PartialEq, Schema)]
/// struct Order {
///     user: i64,
///     item: String,
/// }
/// #[derive(Clone, Debug, PartialEq, Schema)]
/// struct User {
///     id: i64,
///     name: String,
/// }
///
/// let p = TestPipeline::new();
/// let order = |user, item: &str| Order { user, item: item.into() };
/// let orders = p.apply_named("Orders", Create::new([order(1, "pen"), order(2, "ink")]));
/// let users = p.apply_named("Users", Create::new([User { id: 1, name: "Ann".into() }]));
///
/// let joined = (orders.clone(), users.clone()).apply(Join::inner(|o: &Order| o.user, |u: &User| u.id));
/// let names = joined.map("Show", |(order, user)| format!("{} {}", user.name, order.item));
/// PAssert::that(&names).equals("Ann pen".to_string());
///
/// let all = (orders, users).apply(Join::left_on(["user"], ["id"]).broadcast());
/// let names = all.map("ShowAll", |(order, user)| (order.item, user.map(|user: User| user.name)));
/// PAssert::that(&names).contains_in_any_order([("pen".into(), Some("Ann".into())), ("ink".into(), None)]);
/// p.run();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Join<M, K> {
    keys: K,
    mode: PhantomData<fn() -> M>,
}

macro_rules! joins {
    ($mode:ident, $by_fn:ident, $by_fields:ident, $doc:literal) => {
        impl Join<$mode, ()> {
            #[doc = $doc]
            pub fn $by_fn<L, R, K, F, G>(left: F, right: G) -> Join<$mode, ByFn<F, G>>
            where
                F: Fn(&L) -> K,
                G: Fn(&R) -> K,
            {
                Join {
                    keys: ByFn { left, right },
                    mode: PhantomData,
                }
            }

            #[doc = $doc]
            /// The keys are the fields of these names, compared in this order.
            pub fn $by_fields<S: AsRef<str>, U: AsRef<str>>(
                left: impl IntoIterator<Item = S>,
                right: impl IntoIterator<Item = U>,
            ) -> Join<$mode, ByFields> {
                Join {
                    keys: ByFields {
                        left: left
                            .into_iter()
                            .map(|name| name.as_ref().to_owned())
                            .collect(),
                        right: right
                            .into_iter()
                            .map(|name| name.as_ref().to_owned())
                            .collect(),
                        plans: None,
                    },
                    mode: PhantomData,
                }
            }
        }
    };
}

joins!(Inner, inner, inner_on, "Pairs that have both sides.");
joins!(
    Left,
    left,
    left_on,
    "Pairs, and each element of the left that has no partner."
);
joins!(
    Right,
    right,
    right_on,
    "Pairs, and each element of the right that has no partner."
);
joins!(
    Full,
    full,
    full_on,
    "Pairs, and each element of either side that has no partner."
);

impl<M: KeepsLeft, K> Join<M, K> {
    /// Sends all of the right side to each worker, as a side input, instead of shuffling both sides. It must fit into memory.
    #[must_use]
    pub fn broadcast(self) -> BroadcastJoin<M, K> {
        BroadcastJoin { join: self }
    }
}

/// A join whose right side is a side input: [`Join::broadcast`].
#[derive(Clone, Copy, Debug)]
pub struct BroadcastJoin<M, K> {
    join: Join<M, K>,
}

fn bound<L, R, K: JoinKeys<L, R>>(mut keys: K, left: &PCollection<L>) -> K {
    for problem in keys.bind() {
        left.pipeline().problem(problem);
    }
    keys
}

impl<L, R, M, K> PTransform<(PCollection<L>, PCollection<R>)> for Join<M, K>
where
    L: Element,
    R: Element,
    M: JoinMode<L, R>,
    K: JoinKeys<L, R>,
{
    type Output = PCollection<M::Row>;

    fn name(&self) -> String {
        M::NAME.into()
    }

    fn expand(self, (left, right): (PCollection<L>, PCollection<R>)) -> PCollection<M::Row> {
        let keys = bound::<L, R, K>(self.keys, &left);
        let of_right = keys.clone();
        let left = left.try_map("LeftKeys", move |element: L| {
            keys.left(&element).map(|key| (key, element))
        });
        let right = right.try_map("RightKeys", move |element: R| {
            of_right.right(&element).map(|key| (key, element))
        });
        (left, right)
            .apply(CoGroupByKey)
            .flat_map("Match", |(_, (left, right)): (K::Key, (Vec<L>, Vec<R>))| {
                rows::<L, R, M>(left, right)
            })
    }
}

/// All rows of one key.
fn rows<L: Element, R: Element, M: JoinMode<L, R>>(
    left: Vec<L>,
    right: Vec<R>,
) -> Box<dyn Iterator<Item = M::Row>> {
    if right.is_empty() {
        return Box::new(left.into_iter().filter_map(M::left));
    }
    if left.is_empty() {
        return Box::new(right.into_iter().filter_map(M::right));
    }
    Box::new(left.into_iter().flat_map(move |one| {
        right
            .clone()
            .into_iter()
            .map(move |other| M::pair(one.clone(), other))
    }))
}

impl<L, R, M, K> PTransform<(PCollection<L>, PCollection<R>)> for BroadcastJoin<M, K>
where
    L: Element,
    R: Element + Sync,
    M: JoinMode<L, R> + KeepsLeft,
    K: JoinKeys<L, R>,
{
    type Output = PCollection<M::Row>;

    fn name(&self) -> String {
        format!("{}.Broadcast", M::NAME)
    }

    fn expand(self, (left, right): (PCollection<L>, PCollection<R>)) -> PCollection<M::Row> {
        let keys = bound::<L, R, K>(self.join.keys, &left);
        let of_right = keys.clone();
        let table = right
            .try_map("RightKeys", move |element: R| {
                of_right.right(&element).map(|key| (key, element))
            })
            .as_multimap();
        let view = table.clone();
        let probe = ParDo::of("Match", move |element: L, ctx: &mut Context<'_, M::Row>| {
            let key = keys.left(&element)?;
            let table = ctx.side(&view)?;
            match table.get(&key) {
                Some(partners) => {
                    for partner in partners {
                        ctx.output(M::pair(element.clone(), partner.clone()));
                    }
                }
                None => M::left(element).into_iter().for_each(|row| ctx.output(row)),
            }
            Ok(())
        });
        left.apply(probe.with_side_input(&table))
    }
}
