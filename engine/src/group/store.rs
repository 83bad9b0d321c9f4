//! Compact storage of many small groups: a hash table of indices, and entries in segments that are freed one by one.

use alloc::vec;
use alloc::vec::Vec;
use core::hash::Hasher;

use rustc_hash::FxHasher;

/// Hash of an encoded key. Hash a key once, use it for all of its windows.
#[inline]
pub(super) fn hash_key(key: &[u8]) -> u32 {
    let mut hasher = FxHasher::default();
    hasher.write(key);
    let hash = hasher.finish();
    (hash ^ (hash >> 32)) as u32
}

/// An open-addressing table from hashes to indices. Keys live with the entries, so it is eight bytes a slot.
#[derive(Debug, Default)]
pub(super) struct KeyTable {
    /// Hash in the upper half, index + 1 in the lower; 0 is free.
    slots: Vec<u64>,
    len: usize,
}

impl KeyTable {
    /// The index stored under this hash for which `is_key` holds.
    #[inline]
    pub(super) fn find(&self, hash: u32, mut is_key: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            if (slot >> 32) as u32 == hash {
                let index = slot as u32 - 1;
                if is_key(index) {
                    return Some(index);
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// The index that a look-up of this hash will see first, if it is of this hash.
    #[inline]
    pub(super) fn guess(&self, hash: u32) -> Option<u32> {
        let slot = *self.slots.get(hash as usize & self.slots.len().checked_sub(1)?)?;
        ((slot >> 32) as u32 == hash)
            .then(|| (slot as u32).checked_sub(1))
            .flatten()
    }

    /// Stores an index that is not there yet. Indices stay below `u32::MAX`.
    pub(super) fn insert(&mut self, hash: u32, index: u32) {
        if self.slots.len() * 3 <= self.len * 4 {
            self.grow();
        }
        self.len += 1;
        Self::place(&mut self.slots, u64::from(hash) << 32 | (u64::from(index) + 1));
    }

    #[inline]
    fn place(slots: &mut [u64], slot: u64) {
        let mask = slots.len() - 1;
        let mut at = (slot >> 32) as usize & mask;
        while slots[at] != 0 {
            at = (at + 1) & mask;
        }
        slots[at] = slot;
    }

    #[cold]
    fn grow(&mut self) {
        let mut slots = vec![0; (self.slots.len() * 2).max(8)];
        for &slot in self.slots.iter().filter(|&&slot| slot != 0) {
            Self::place(&mut slots, slot);
        }
        self.slots = slots;
    }
}

const SEGMENT: usize = 1 << 12;

/// A growing list whose memory is given back piece by piece when it is consumed.
#[derive(Debug)]
pub(super) struct Segments<T> {
    segments: Vec<Vec<T>>,
}

impl<T> Default for Segments<T> {
    fn default() -> Self {
        Segments { segments: Vec::new() }
    }
}

impl<T> Segments<T> {
    pub(super) fn len(&self) -> usize {
        match self.segments.last() {
            Some(last) => (self.segments.len() - 1) * SEGMENT + last.len(),
            None => 0,
        }
    }

    pub(super) fn push(&mut self, item: T) {
        match self.segments.last_mut() {
            Some(last) if last.len() < SEGMENT => last.push(item),
            Some(_) => {
                let mut segment = Vec::with_capacity(SEGMENT);
                segment.push(item);
                self.segments.push(segment);
            }
            None => self.segments.push(vec![item]),
        }
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> &T {
        &self.segments[index as usize / SEGMENT][index as usize % SEGMENT]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> &mut T {
        &mut self.segments[index as usize / SEGMENT][index as usize % SEGMENT]
    }

    pub(super) fn into_items(self) -> impl Iterator<Item = T> {
        self.segments.into_iter().flatten()
    }
}

/// Bytes that fit an entry without an allocation of their own.
const INLINE: usize = 29;

/// A key and what belongs to it, in one piece: small ones without an allocation.
#[derive(Debug)]
pub(super) struct Entry {
    bytes: EntryBytes,
    /// Number of values.
    pub(super) count: u64,
}

#[derive(Debug)]
enum EntryBytes {
    Inline {
        key_len: u8,
        len: u8,
        data: [u8; INLINE],
    },
    Heap {
        key_len: u32,
        data: Vec<u8>,
    },
}

impl Entry {
    /// An entry of one value.
    pub(super) fn new(key: &[u8], value: &[u8]) -> Entry {
        let len = key.len() + value.len();
        let bytes = if len <= INLINE {
            let mut data = [0; INLINE];
            data[..key.len()].copy_from_slice(key);
            data[key.len()..len].copy_from_slice(value);
            EntryBytes::Inline {
                key_len: key.len() as u8,
                len: len as u8,
                data,
            }
        } else {
            let mut data = Vec::with_capacity(len);
            data.extend_from_slice(key);
            data.extend_from_slice(value);
            EntryBytes::Heap {
                key_len: key.len() as u32,
                data,
            }
        };
        Entry { bytes, count: 1 }
    }

    #[inline]
    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        match &self.bytes {
            EntryBytes::Inline { key_len, len, data } => {
                data[..usize::from(*len)].split_at(usize::from(*key_len))
            }
            EntryBytes::Heap { key_len, data } => data.split_at(*key_len as usize),
        }
    }

    /// The bytes of a large entry, key first, and the length of its key.
    pub(super) fn into_large(self, min_bytes: usize) -> Result<(Vec<u8>, usize), Entry> {
        match self.bytes {
            EntryBytes::Heap { key_len, data } if data.len() >= min_bytes => Ok((data, key_len as usize)),
            _ => Err(self),
        }
    }

    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        self.parts().0
    }

    /// Something of where the key begins and of where the values end, which brings both near.
    #[inline]
    pub(super) fn ends(&self) -> u8 {
        match &self.bytes {
            EntryBytes::Inline { key_len, .. } => *key_len,
            EntryBytes::Heap { data, .. } => match &data[..] {
                [first, .., last] => first ^ last,
                _ => 0,
            },
        }
    }

    #[inline]
    pub(super) fn append(&mut self, value: &[u8]) {
        self.count += 1;
        match &mut self.bytes {
            EntryBytes::Heap { data, .. } => data.extend_from_slice(value),
            EntryBytes::Inline { key_len, len, data } => {
                let old = usize::from(*len);
                let new = old + value.len();
                if new <= INLINE {
                    data[old..new].copy_from_slice(value);
                    *len = new as u8;
                } else {
                    let mut heap = Vec::with_capacity(new.max(2 * INLINE));
                    heap.extend_from_slice(&data[..old]);
                    heap.extend_from_slice(value);
                    self.bytes = EntryBytes::Heap {
                        key_len: u32::from(*key_len),
                        data: heap,
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 40);
    }

    #[test]
    fn an_entry_moves_to_the_heap_when_it_grows() {
        let mut entry = Entry::new(b"key", b"");
        let mut values = Vec::new();
        for byte in 0..100u8 {
            entry.append(&[byte]);
            values.push(byte);
            assert_eq!(entry.parts(), (&b"key"[..], &values[..]));
        }
        assert_eq!(entry.count, 101);
    }

    #[test]
    fn the_table_finds_what_was_stored_and_tells_equal_hashes_apart() {
        let mut table = KeyTable::default();
        for index in 0..10_000u32 {
            // Few distinct hashes: long chains.
            assert_eq!(table.find(index % 100, |other| other == index), None);
            table.insert(index % 100, index);
        }
        for index in 0..10_000u32 {
            assert_eq!(table.find(index % 100, |other| other == index), Some(index));
        }
    }

    #[test]
    fn segments_keep_order() {
        let mut segments = Segments::default();
        let count = SEGMENT * 2 + 5;
        for index in 0..count {
            segments.push(index);
            assert_eq!(*segments.get(index as u32), index);
        }
        assert_eq!(segments.len(), count);
        assert!(segments.into_items().eq(0..count));
    }
}
