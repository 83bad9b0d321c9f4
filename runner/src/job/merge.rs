//! How two values of a metric become one, by the metric's type.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use purlin_model::metric::{Distribution, Latest, decode_sum, encode_sum};
use purlin_model::wire;
use purlin_proto::pipeline::{BoundedTrie, BoundedTrieNode, HistogramValue};
use purlin_proto::urns::metric_types as types;

/// Merges two payloads of a type. `None`: they cannot be read, or values of the type do not add up (the later stays).
pub(super) fn merge(type_urn: &str, a: &Bytes, b: &Bytes) -> Option<Bytes> {
    let merged = match type_urn {
        types::SUM_INT64_TYPE => encode_sum(decode_sum(a)?.wrapping_add(decode_sum(b)?)),
        types::SUM_DOUBLE_TYPE => {
            let (a, b) = (double(&mut &a[..])?, double(&mut &b[..])?);
            (a + b).to_be_bytes().to_vec()
        }
        types::DISTRIBUTION_INT64_TYPE => {
            let merged = Distribution::decode(a)?.merge(Distribution::decode(b)?);
            merged.encode()
        }
        types::DISTRIBUTION_DOUBLE_TYPE => {
            let (count, [sum, min, max]) = distribution_double(a)?;
            let (other_count, [other_sum, other_min, other_max]) = distribution_double(b)?;
            let mut out = encode_sum(count.wrapping_add(other_count));
            for value in [sum + other_sum, min.min(other_min), max.max(other_max)] {
                out.extend_from_slice(&value.to_be_bytes());
            }
            out
        }
        types::LATEST_INT64_TYPE => Latest::decode(a)?.merge(Latest::decode(b)?).encode(),
        types::LATEST_DOUBLE_TYPE => {
            let (at, other_at) = (first_varint(a)?, first_varint(b)?);
            return Some(if at > other_at { a.clone() } else { b.clone() });
        }
        types::SET_STRING_TYPE => {
            let mut all = strings(a)?;
            all.extend(strings(b)?);
            let mut out = u32::try_from(all.len()).ok()?.to_be_bytes().to_vec();
            all.iter()
                .for_each(|text| wire::write_bytes(text, &mut out, true));
            out
        }
        types::BOUNDED_TRIE_TYPE => {
            let (a, b) = (
                BoundedTrie::decode(&a[..]).ok()?,
                BoundedTrie::decode(&b[..]).ok()?,
            );
            merge_tries(a, b).encode_to_vec()
        }
        types::HISTOGRAM => {
            let (a, b) = (
                HistogramValue::decode(&a[..]).ok()?,
                HistogramValue::decode(&b[..]).ok()?,
            );
            merge_histograms(a, &b)?.encode_to_vec()
        }
        types::TOP_N_INT64_TYPE | types::BOTTOM_N_INT64_TYPE => {
            let (mut all, others) = (int_list(a)?, int_list(b)?);
            let most = all.len().max(others.len());
            all.extend(others);
            all.sort_unstable();
            if type_urn == types::TOP_N_INT64_TYPE {
                all.reverse();
            }
            all.truncate(most);
            let mut out = u32::try_from(all.len()).ok()?.to_be_bytes().to_vec();
            out.extend(all.into_iter().flat_map(encode_sum));
            out
        }
        types::TOP_N_DOUBLE_TYPE | types::BOTTOM_N_DOUBLE_TYPE => {
            let (mut all, others) = (double_list(a)?, double_list(b)?);
            let most = all.len().max(others.len());
            all.extend(others);
            all.sort_by(f64::total_cmp);
            if type_urn == types::TOP_N_DOUBLE_TYPE {
                all.reverse();
            }
            all.truncate(most);
            let mut out = u32::try_from(all.len()).ok()?.to_be_bytes().to_vec();
            out.extend(all.into_iter().flat_map(f64::to_be_bytes));
            out
        }
        _ => return None,
    };
    Some(merged.into())
}

fn first_varint(payload: &Bytes) -> Option<i64> {
    Some(wire::read_varint(&mut &payload[..]).ok()? as i64)
}

fn double(input: &mut &[u8]) -> Option<f64> {
    Some(f64::from_be_bytes(wire::take_array(input, "a double").ok()?))
}

fn distribution_double(payload: &Bytes) -> Option<(i64, [f64; 3])> {
    let mut input = &payload[..];
    let count = wire::read_varint(&mut input).ok()? as i64;
    Some((
        count,
        [double(&mut input)?, double(&mut input)?, double(&mut input)?],
    ))
}

fn count_of(input: &mut &[u8]) -> Option<usize> {
    usize::try_from(wire::read_i32_be(input, "a count").ok()?).ok()
}

fn strings(payload: &Bytes) -> Option<BTreeSet<Vec<u8>>> {
    let mut input = &payload[..];
    let count = count_of(&mut input)?;
    (0..count)
        .map(|_| Some(wire::read_bytes(&mut input, true).ok()?.to_vec()))
        .collect()
}

fn int_list(payload: &Bytes) -> Option<Vec<i64>> {
    let mut input = &payload[..];
    let count = count_of(&mut input)?;
    (0..count)
        .map(|_| Some(wire::read_varint(&mut input).ok()? as i64))
        .collect()
}

fn double_list(payload: &Bytes) -> Option<Vec<f64>> {
    let mut input = &payload[..];
    let count = count_of(&mut input)?;
    (0..count).map(|_| double(&mut input)).collect()
}

/// Most leaves of a trie that names no bound, as in Beam's SDKs.
const DEFAULT_BOUND: i32 = 100;

fn merge_tries(a: BoundedTrie, b: BoundedTrie) -> BoundedTrie {
    if is_empty(&a) {
        return b;
    }
    if is_empty(&b) || (a.root.is_none() && b.root.is_none() && a.singleton == b.singleton) {
        return a;
    }
    let bound = match (a.bound, b.bound) {
        (0, 0) => DEFAULT_BOUND,
        (0, bound) | (bound, 0) => bound,
        (a, b) => a.min(b),
    };
    let mut root = root(a);
    merge_nodes(&mut root, root_of(b));
    while leaves(&root) > i64::from(bound.max(1)) {
        trim(&mut root);
    }
    BoundedTrie {
        bound,
        root: Some(root),
        singleton: Vec::new(),
    }
}

fn is_empty(trie: &BoundedTrie) -> bool {
    trie.root.is_none() && trie.singleton.is_empty()
}

fn root_of(trie: BoundedTrie) -> BoundedTrieNode {
    root(trie)
}

fn root(trie: BoundedTrie) -> BoundedTrieNode {
    trie.root.unwrap_or_else(|| {
        trie.singleton
            .into_iter()
            .rev()
            .fold(BoundedTrieNode::default(), |child, part| BoundedTrieNode {
                truncated: false,
                children: [(part, child)].into(),
            })
    })
}

fn merge_nodes(into: &mut BoundedTrieNode, other: BoundedTrieNode) {
    if into.truncated {
        return;
    }
    if other.truncated {
        *into = other;
        into.children.clear();
        return;
    }
    for (part, child) in other.children {
        match into.children.entry(part) {
            std::collections::hash_map::Entry::Occupied(mut own) => merge_nodes(own.get_mut(), child),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(child);
            }
        }
    }
}

fn leaves(node: &BoundedTrieNode) -> i64 {
    if node.children.is_empty() {
        1
    } else {
        node.children.values().map(leaves).sum()
    }
}

/// Cuts the largest branch by one level.
fn trim(node: &mut BoundedTrieNode) {
    let largest = node.children.values_mut().max_by_key(|child| leaves(child));
    match largest {
        Some(largest) if leaves(largest) > 1 => trim(largest),
        _ => {
            node.children.clear();
            node.truncated = true;
        }
    }
}

fn merge_histograms(mut a: HistogramValue, b: &HistogramValue) -> Option<HistogramValue> {
    if a.bucket_options != b.bucket_options {
        return None;
    }
    a.count = Some(a.count.unwrap_or(0).wrapping_add(b.count.unwrap_or(0)));
    if a.bucket_counts.len() < b.bucket_counts.len() {
        a.bucket_counts.resize(b.bucket_counts.len(), 0);
    }
    for (own, other) in a.bucket_counts.iter_mut().zip(&b.bucket_counts) {
        *own = own.wrapping_add(*other);
    }
    Some(a)
}

#[cfg(test)]
mod tests {
    use purlin_proto::pipeline::histogram_value;

    use super::*;

    fn ints<const N: usize>(values: [i64; N]) -> Bytes {
        values.into_iter().flat_map(encode_sum).collect()
    }

    #[test]
    fn numbers_add_up() {
        assert_eq!(
            merge(types::SUM_INT64_TYPE, &ints([3]), &ints([-5])),
            Some(ints([-2]))
        );
        let merged = merge(
            types::DISTRIBUTION_INT64_TYPE,
            &ints([2, 10, 4, 6]),
            &ints([1, -1, -1, -1]),
        );
        assert_eq!(merged, Some(ints([3, 9, -1, 6])));
        assert_eq!(
            merge(types::LATEST_INT64_TYPE, &ints([20, 1]), &ints([10, 2])),
            Some(ints([20, 1]))
        );
        let sum = merge(
            types::SUM_DOUBLE_TYPE,
            &1.5f64.to_be_bytes().to_vec().into(),
            &2f64.to_be_bytes().to_vec().into(),
        );
        assert_eq!(sum, Some(3.5f64.to_be_bytes().to_vec().into()));
    }

    #[test]
    fn sets_unite() {
        let set = |texts: &[&str]| {
            let mut out = (texts.len() as u32).to_be_bytes().to_vec();
            texts
                .iter()
                .for_each(|text| wire::write_bytes(text.as_bytes(), &mut out, true));
            Bytes::from(out)
        };
        assert_eq!(
            merge(types::SET_STRING_TYPE, &set(&["b", "a"]), &set(&["b", "c"])),
            Some(set(&["a", "b", "c"]))
        );
    }

    #[test]
    fn tries_stay_within_their_bound() {
        let path = |parts: &[&str]| BoundedTrie {
            bound: 2,
            root: None,
            singleton: parts.iter().map(|part| (*part).to_owned()).collect(),
        };
        let encoded = |trie: &BoundedTrie| Bytes::from(trie.encode_to_vec());
        let two = merge(
            types::BOUNDED_TRIE_TYPE,
            &encoded(&path(&["a", "b"])),
            &encoded(&path(&["a", "c"])),
        )
        .unwrap();
        let trie = BoundedTrie::decode(&two[..]).unwrap();
        assert_eq!(leaves(trie.root.as_ref().unwrap()), 2);
        let three = merge(types::BOUNDED_TRIE_TYPE, &two, &encoded(&path(&["a", "d"]))).unwrap();
        let root = BoundedTrie::decode(&three[..]).unwrap().root.unwrap();
        assert_eq!(leaves(&root), 1);
        assert!(root.children["a"].truncated);
    }

    #[test]
    fn histograms_of_the_same_buckets_add_up() {
        let histogram = |counts: &[i64], width: f64| {
            let linear = histogram_value::bucket_options::Linear {
                number_of_buckets: Some(3),
                width: Some(width),
                start: Some(0.0),
            };
            let value = HistogramValue {
                count: Some(counts.iter().sum()),
                bucket_options: Some(histogram_value::BucketOptions {
                    bucket_type: Some(histogram_value::bucket_options::BucketType::Linear(linear)),
                }),
                bucket_counts: counts.to_vec(),
            };
            Bytes::from(value.encode_to_vec())
        };
        // Empty buckets at the end are left out.
        assert_eq!(
            merge(
                types::HISTOGRAM,
                &histogram(&[1], 2.0),
                &histogram(&[2, 0, 4], 2.0)
            ),
            Some(histogram(&[3, 0, 4], 2.0))
        );
        assert_eq!(
            merge(types::HISTOGRAM, &histogram(&[1], 2.0), &histogram(&[1], 3.0)),
            None
        );
    }

    #[test]
    fn malformed_payloads_are_no_panic() {
        for urn in types::ALL {
            for bad in [
                &b""[..],
                b"\xff",
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                b"\x7f\xff\xff\xff",
            ] {
                let _ = merge(urn, &Bytes::from_static(bad), &Bytes::from_static(bad));
            }
        }
    }
}
