//! Committed state as those outside of the job read it.

use alloc::borrow::ToOwned;
use alloc::vec::Vec;

use bytes::Bytes;
use thiserror::Error;

use super::{Cell, CellId, StateTable};
use crate::graph::TransformId;

/// A key's state in a window, as the last bundle that was committed left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedState {
    /// Encoded.
    pub window: Bytes,
    /// What is in it.
    pub content: StateContent,
}

/// Data of a state as workers appended it: each piece holds whole elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateContent {
    /// Of a bag, and of all that workers keep in one: values, sets, accumulators.
    Bag(Vec<Bytes>),
    /// Of a map or multimap, by its keys.
    Multimap(Vec<(Bytes, Vec<Bytes>)>),
    /// Of an ordered list: each piece is a number and a value in a length prefix.
    OrderedList(Vec<Bytes>),
}

/// A state that is too large to be read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the state has {bytes} bytes, and {most} at most are read at once")]
pub struct StateTooLarge {
    /// Its size.
    pub bytes: usize,
    /// The bound.
    pub most: usize,
}

impl StateTable {
    /// A key's state in each window that has some, in the order of the encoded windows. Copies no data.
    pub fn committed(
        &self,
        transform: TransformId,
        state: &str,
        key: &Bytes,
        most: usize,
    ) -> Result<Vec<CommittedState>, StateTooLarge> {
        let id = CellId {
            transform,
            state: state.to_owned(),
        };
        let windows = self.keys.get(key).into_iter().flatten();
        let cells = windows.filter_map(|(window, cells)| Some((window, cells.get(&id)?)));
        let cells: Vec<_> = cells.collect();
        let bytes: usize = cells.iter().map(|(_, cell)| cell.bytes()).sum();
        if bytes > most {
            return Err(StateTooLarge { bytes, most });
        }
        let committed = cells.into_iter().map(|(window, cell)| CommittedState {
            window: window.clone(),
            content: match cell {
                Cell::Bag(data) => StateContent::Bag(data.clone()),
                Cell::Multimap(map) => StateContent::Multimap(
                    map.iter()
                        .map(|(key, data)| (key.clone(), data.clone()))
                        .collect(),
                ),
                Cell::OrderedList(list) => {
                    StateContent::OrderedList(list.values().flatten().cloned().collect())
                }
            },
        });
        Ok(committed.collect())
    }
}

impl Cell {
    fn bytes(&self) -> usize {
        let sum = |data: &Vec<Bytes>| data.iter().map(Bytes::len).sum::<usize>();
        match self {
            Cell::Bag(data) => sum(data),
            Cell::Multimap(map) => map.iter().map(|(key, data)| key.len() + sum(data)).sum(),
            Cell::OrderedList(list) => list.values().map(sum).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Overlay;
    use super::*;
    use crate::event::{StateKey, StatePart};

    #[test]
    fn only_what_is_committed_is_read_and_only_so_much() {
        let mut table = StateTable::default();
        let key = StateKey {
            transform: TransformId(1),
            state: "s".into(),
            window: Bytes::from_static(b"w"),
            key: Bytes::from_static(b"k"),
            part: StatePart::Bag,
        };
        let read = |table: &StateTable, most| table.committed(TransformId(1), "s", &key.key, most);
        let mut overlay = Overlay::default();
        table
            .append(&mut overlay, &key, Bytes::from_static(b"abc"))
            .unwrap();
        assert_eq!(read(&table, 3), Ok(Vec::new()));
        table.commit(overlay);
        let expected = CommittedState {
            window: key.window.clone(),
            content: StateContent::Bag(alloc::vec![Bytes::from_static(b"abc")]),
        };
        assert_eq!(read(&table, 3), Ok(alloc::vec![expected]));
        assert_eq!(read(&table, 2), Err(StateTooLarge { bytes: 3, most: 2 }));
        assert_eq!(table.committed(TransformId(2), "s", &key.key, 3), Ok(Vec::new()));
    }
}
