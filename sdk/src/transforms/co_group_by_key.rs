//! Grouping several collections by one key.

use purlin_model::{CoderSpec, DecodeError, Element, urns, wire};

use crate::pipeline::{Apply, PCollection, PTransform};
use crate::primitives::{Flatten, Pair};

/// Groups two to four collections of pairs by their keys. Each key of any of them comes with all of its values of each;
/// a collection that lacks the key gives none.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let emails = p.apply_named("Emails", Create::new([("amy".to_string(), "amy@example.com".to_string())]));
/// let phones = p.apply_named("Phones", Create::new([("amy".to_string(), 111i64), ("carl".to_string(), 444)]));
/// let contacts = (emails, phones).apply(CoGroupByKey::new());
/// PAssert::that(&contacts).contains_in_any_order([
///     ("amy".to_string(), (vec!["amy@example.com".to_string()], vec![111])),
///     ("carl".to_string(), (vec![], vec![444])),
/// ]);
/// p.run();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct CoGroupByKey;

impl CoGroupByKey {
    /// The transform.
    pub fn new() -> CoGroupByKey {
        CoGroupByKey
    }
}

/// A value of one of several collections. On the wire: the number of the collection and the value, length-prefixed.
#[derive(Clone, Debug, PartialEq)]
enum Tagged<A, B, C, D> {
    First(A),
    Second(B),
    Third(C),
    Fourth(D),
}

impl<A: Element, B: Element, C: Element, D: Element> Element for Tagged<A, B, C, D> {
    fn coder() -> CoderSpec {
        // Bytes to everyone else: only this SDK looks inside.
        CoderSpec::atom(urns::BYTES)
    }

    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        let start = out.len();
        match self {
            Tagged::First(value) => with_tag(0, value, out),
            Tagged::Second(value) => with_tag(1, value, out),
            Tagged::Third(value) => with_tag(2, value, out),
            Tagged::Fourth(value) => with_tag(3, value, out),
        }
        if nested {
            // The length stands first but is known last; it is a byte or two for most values.
            let length = (out.len() - start) as u64;
            let value_end = out.len();
            wire::write_varint(length, out);
            let prefix = out.len() - value_end;
            out[start..].rotate_right(prefix);
        }
    }

    fn decode(input: &mut &[u8], nested: bool) -> Result<Self, DecodeError> {
        let mut bytes = wire::read_bytes(input, nested)?;
        let tag = wire::read_u8(&mut bytes, "the number of a collection")?;
        let bytes = &mut bytes;
        let value = match tag {
            0 => Tagged::First(A::decode(bytes, false)?),
            1 => Tagged::Second(B::decode(bytes, false)?),
            2 => Tagged::Third(C::decode(bytes, false)?),
            _ => Tagged::Fourth(D::decode(bytes, false)?),
        };
        wire::expect_end(bytes)?;
        Ok(value)
    }
}

fn with_tag<T: Element>(tag: u8, value: &T, out: &mut Vec<u8>) {
    out.push(tag);
    value.encode(out, false);
}

type Groups<A, B, C, D> = (Vec<A>, Vec<B>, Vec<C>, Vec<D>);

fn sort<A, B, C, D>(values: Vec<Tagged<A, B, C, D>>) -> Groups<A, B, C, D> {
    let mut groups = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for value in values {
        match value {
            Tagged::First(value) => groups.0.push(value),
            Tagged::Second(value) => groups.1.push(value),
            Tagged::Third(value) => groups.2.push(value),
            Tagged::Fourth(value) => groups.3.push(value),
        }
    }
    groups
}

macro_rules! co_group {
    ($tagged:ty; $(($input:ident, $value:ident, $variant:ident, $name:literal, $at:tt)),+) => {
        impl<K: Element, $($value: Element),+> PTransform<($(PCollection<(K, $value)>,)+)> for CoGroupByKey {
            type Output = PCollection<(K, ($(Vec<$value>,)+))>;

            fn name(&self) -> String {
                "CoGroupByKey".into()
            }

            fn expand(self, ($($input,)+): ($(PCollection<(K, $value)>,)+)) -> Self::Output {
                let tagged: Vec<PCollection<(K, $tagged)>> =
                    vec![$($input.map($name, |(key, value): (K, $value)| (key, Tagged::$variant(value)))),+];
                tagged.apply(Flatten::new()).group_by_key("GroupByKey").map("Sort", |(key, values)| {
                    let groups = sort(values);
                    (key, ($(groups.$at,)+))
                })
            }
        }
    };
}

co_group!(Tagged<A, B, (), ()>; (a, A, First, "Tag0", 0), (b, B, Second, "Tag1", 1));
co_group!(Tagged<A, B, C, ()>; (a, A, First, "Tag0", 0), (b, B, Second, "Tag1", 1), (c, C, Third, "Tag2", 2));
co_group!(
    Tagged<A, B, C, D>;
    (a, A, First, "Tag0", 0), (b, B, Second, "Tag1", 1), (c, C, Third, "Tag2", 2), (d, D, Fourth, "Tag3", 3)
);

impl<T: Element> PCollection<T> {
    /// Groups these pairs and others by their keys: [`CoGroupByKey`].
    #[allow(
        clippy::type_complexity,
        reason = "the type says what comes out; an alias would hide it"
    )]
    pub fn co_group_by_key<B: Element>(
        &self,
        name: &str,
        other: &PCollection<(T::Key, B)>,
    ) -> PCollection<(T::Key, (Vec<T::Value>, Vec<B>))>
    where
        T: Pair,
    {
        (T::pairs(self), other.clone()).apply_named(name, CoGroupByKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Value = Tagged<String, i64, Vec<u8>, ()>;

    #[test]
    fn tagged_values_round_trip() {
        let values = [
            Value::First("x".repeat(200)),
            Value::Second(-1),
            Value::Third(vec![1, 2]),
            Value::Fourth(()),
        ];
        let mut bytes = Vec::new();
        for value in &values {
            value.encode(&mut bytes, true);
            assert_eq!(&Value::from_bytes(&value.to_bytes()).unwrap(), value);
        }
        let mut rest = &bytes[..];
        for value in &values {
            assert_eq!(&Value::decode(&mut rest, true).unwrap(), value);
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn broken_bytes_are_errors() {
        assert!(Value::from_bytes(&[]).is_err());
        assert!(Value::from_bytes(&[0, 0xff]).is_err());
        assert!(Value::from_bytes(&[3, 7]).is_err());
    }
}
