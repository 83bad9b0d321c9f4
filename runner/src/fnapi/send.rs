//! Puts a bundle's input into messages of the data stream.

use bytes::Bytes;
use purlin_proto::fn_execution as fnapi;

use super::collector::{data_entry, payload_bytes, timer_entry};
use crate::worker::WorkInput;

/// A message is sent when it holds this many bytes; only a single piece may make it larger.
const MESSAGE_BYTES: usize = 2 << 20;
/// Entries in one message, so that a bundle of many tiny pieces does not make one huge message.
const MESSAGE_ENTRIES: usize = 256;

/// The messages for a bundle's whole input, in order; the last one closes the source and all timer families.
///
/// Data and timers never share a message, save for those that only close a stream: harnesses may take one kind
/// before the other, and between them order matters. Pieces are not split, so elements stay whole.
pub(crate) fn messages(
    instruction: &str,
    source: &str,
    families: &[(String, String)],
    input: Vec<WorkInput>,
) -> Vec<fnapi::Elements> {
    let mut out = Vec::new();
    let mut current = fnapi::Elements::default();
    let mut size = 0;
    for piece in input {
        let (is_data, bytes) = match &piece {
            WorkInput::Elements(data) => (true, data.len()),
            WorkInput::Timers { data, .. } => (false, data.len()),
        };
        if bytes == 0 {
            continue;
        }
        let other_kind = if is_data {
            !current.timers.is_empty()
        } else {
            !current.data.is_empty()
        };
        let entries = current.data.len() + current.timers.len();
        if other_kind || entries == MESSAGE_ENTRIES || (size > 0 && size + bytes > MESSAGE_BYTES) {
            out.push(std::mem::take(&mut current));
            size = 0;
        }
        size += bytes;
        match piece {
            WorkInput::Elements(data) => current.data.push(data_entry(instruction, source, data, false)),
            WorkInput::Timers {
                transform,
                family,
                data,
            } => {
                current
                    .timers
                    .push(timer_entry(instruction, &transform, &family, data, false));
            }
        }
    }
    if !source.is_empty() {
        current
            .data
            .push(data_entry(instruction, source, Bytes::new(), true));
    }
    for (transform, family) in families {
        current
            .timers
            .push(timer_entry(instruction, transform, family, Bytes::new(), true));
    }
    out.push(current);
    out
}

/// The payload of a message, in bytes.
pub(crate) fn size(elements: &fnapi::Elements) -> usize {
    payload_bytes(&elements.data, &elements.timers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(n: usize) -> WorkInput {
        WorkInput::Elements(Bytes::from(vec![7; n]))
    }

    fn timers(n: usize) -> WorkInput {
        WorkInput::Timers {
            transform: "t".into(),
            family: "f".into(),
            data: Bytes::from(vec![8; n]),
        }
    }

    /// `d12` is 12 bytes of data, `t3` three of timers, `D` and `T` close a stream.
    fn sketch(messages: &[fnapi::Elements]) -> Vec<String> {
        let data = |d: &fnapi::elements::Data| {
            if d.is_last {
                "D".into()
            } else {
                format!("d{}", d.data.len())
            }
        };
        let timer = |t: &fnapi::elements::Timers| {
            if t.is_last {
                "T".into()
            } else {
                format!("t{}", t.timers.len())
            }
        };
        let all = messages.iter().map(|m| {
            m.data
                .iter()
                .map(data)
                .chain(m.timers.iter().map(timer))
                .collect::<Vec<String>>()
                .join(" ")
        });
        all.collect()
    }

    #[test]
    fn empty_inputs_are_closed_too() {
        let families = [("t".to_owned(), "f".to_owned())];
        assert_eq!(sketch(&messages("i", "s", &families, vec![])), ["D T"]);
    }

    #[test]
    fn kinds_do_not_mix_and_order_stays() {
        let families = [("t".to_owned(), "f".to_owned())];
        let input = vec![elements(1), elements(2), timers(3), elements(4), elements(0)];
        assert_eq!(
            sketch(&messages("i", "s", &families, input)),
            ["d1 d2", "t3", "d4 D T"]
        );
    }

    #[test]
    fn messages_are_bounded_but_pieces_stay_whole() {
        let input = vec![
            elements(MESSAGE_BYTES - 1),
            elements(1),
            elements(3 * MESSAGE_BYTES),
            elements(5),
        ];
        let sizes: Vec<usize> = messages("i", "s", &[], input).iter().map(size).collect();
        assert_eq!(sizes, [MESSAGE_BYTES, 3 * MESSAGE_BYTES, 5]);
    }

    #[test]
    fn many_tiny_pieces_make_several_messages() {
        let input = (0..MESSAGE_ENTRIES + 1).map(|_| elements(1)).collect();
        assert_eq!(messages("i", "s", &[], input).len(), 2);
    }
}
