//! Samples of elements: the last few of each PCollection, within bounds of bytes.

use bytes::Bytes;
use purlin_proto::fn_execution::{SampleDataResponse, SampledElement};

use super::log::boundary;

/// Samples of a PCollection that are kept.
const MAX_SAMPLES: usize = 10;
/// Bytes of one sample that are kept; a longer element is cut.
const MAX_BYTES: usize = 16 << 10;
/// Bytes of all samples of a job that are kept; beyond that, none is added.
const MAX_JOB_BYTES: usize = 4 << 20;

/// Bytes that a sample takes beside its element.
const SAMPLE_BYTES: usize = 64;

/// Adds what a worker tells.
pub(super) fn add(kept: &mut SampleDataResponse, more: SampleDataResponse) {
    let all = kept.element_samples.iter();
    let all = all.map(|(id, list)| id.len() + list.elements.iter().map(size).sum::<usize>());
    let mut bytes: usize = all.sum();
    for (id, list) in more.element_samples {
        if !kept.element_samples.contains_key(&id) {
            if bytes + id.len() > MAX_JOB_BYTES {
                continue;
            }
            bytes += id.len();
        }
        let own = &mut kept.element_samples.entry(id).or_default().elements;
        let new = list.elements.len().saturating_sub(MAX_SAMPLES);
        for sample in list.elements.into_iter().skip(new).map(cut) {
            if own.len() >= MAX_SAMPLES {
                bytes -= size(&own.remove(0));
            }
            if bytes + size(&sample) <= MAX_JOB_BYTES {
                bytes += size(&sample);
                own.push(sample);
            }
        }
    }
}

/// Those of some PCollections; no ids: of all.
pub(super) fn chosen(kept: &SampleDataResponse, ids: &[String]) -> SampleDataResponse {
    let lists = kept.element_samples.iter();
    let lists = lists.filter(|(id, _)| ids.is_empty() || ids.contains(id));
    SampleDataResponse {
        element_samples: lists.map(|(id, list)| (id.clone(), list.clone())).collect(),
    }
}

/// Its bytes, and what it takes beside them.
fn size(sample: &SampledElement) -> usize {
    let error = sample.exception.as_ref().map_or(0, |exception| {
        exception.error.len() + exception.transform_id.len() + exception.instruction_id.len()
    });
    sample.element.len() + error + SAMPLE_BYTES
}

/// A copy of its own, not longer than allowed: the bytes that came are part of a message that may be large.
fn cut(mut sample: SampledElement) -> SampledElement {
    let end = sample.element.len().min(MAX_BYTES);
    sample.element = Bytes::copy_from_slice(&sample.element[..end]);
    if let Some(exception) = &mut sample.exception {
        let end = boundary(&exception.error, MAX_BYTES);
        exception.error.truncate(end);
        exception.error.shrink_to_fit();
    }
    sample
}

#[cfg(test)]
mod tests {
    use purlin_proto::fn_execution::sample_data_response::ElementList;

    use super::*;

    fn told(id: &str, sizes: &[usize]) -> SampleDataResponse {
        let elements = sizes.iter().map(|&size| SampledElement {
            element: vec![1; size].into(),
            ..Default::default()
        });
        let list = ElementList {
            elements: elements.collect(),
        };
        SampleDataResponse {
            element_samples: [(id.to_owned(), list)].into(),
        }
    }

    #[test]
    fn the_last_ten_are_kept_within_bounds_of_bytes() {
        let mut kept = SampleDataResponse::default();
        add(&mut kept, told("a", &[1, 2, 3]));
        add(&mut kept, told("a", &[4, 5, 6, 7, 8, 9, 10, 11, 100_000_000]));
        let sizes: Vec<usize> = kept.element_samples["a"].elements.iter().map(size).collect();
        assert_eq!(
            sizes,
            [3, 4, 5, 6, 7, 8, 9, 10, 11, MAX_BYTES].map(|bytes| bytes + SAMPLE_BYTES)
        );
        for n in 0..1000 {
            add(&mut kept, told(&n.to_string(), &[MAX_BYTES; 10]));
        }
        let all = kept.element_samples.values().flat_map(|list| &list.elements);
        assert!(all.map(size).sum::<usize>() <= MAX_JOB_BYTES);
        assert_eq!(chosen(&kept, &["a".to_owned()]).element_samples.len(), 1);
    }

    #[test]
    fn names_of_pcollections_are_within_the_bounds_too() {
        let mut kept = SampleDataResponse::default();
        for n in 0..100 {
            add(&mut kept, told(&"n".repeat(100_000 - n), &[]));
        }
        assert_eq!(kept.element_samples.len(), MAX_JOB_BYTES / 100_000);
    }
}
