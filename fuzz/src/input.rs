//! Decisions out of bytes.

use bytes::Bytes;

/// Bytes, taken one decision at a time. Where they end every decision is the first one.
pub(crate) struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&byte, rest)) => {
                self.0 = rest;
                byte
            }
            None => 0,
        }
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        let number = if limit > 256 {
            usize::from(self.byte()) << 8 | usize::from(self.byte())
        } else {
            usize::from(self.byte())
        };
        number % limit.max(1)
    }

    pub(crate) fn yes(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Up to `most` bytes.
    pub(crate) fn bytes(&mut self, most: usize) -> Bytes {
        let length = self.below(most + 1).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        Bytes::copy_from_slice(taken)
    }

    /// One of a list that is not empty.
    pub(crate) fn pick<'l, T>(&mut self, list: &'l [T]) -> Option<&'l T> {
        list.get(self.below(list.len()))
    }

    /// A number of the kind that breaks things.
    pub(crate) fn number(&mut self) -> i64 {
        const ODD: &[i64] = &[
            0,
            1,
            -1,
            2,
            255,
            i64::MAX,
            i64::MIN,
            i32::MAX as i64,
            i32::MIN as i64,
        ];
        match self.pick(ODD) {
            Some(&odd) if self.yes() => odd,
            _ => i64::from(self.byte()) * 7,
        }
    }
}

/// A small generator for tests: the same numbers each time.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    /// Up to `most` bytes; small numbers are as likely as all others together, as in real messages.
    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        let byte = |random: &mut Self| match random.below(2) {
            0 => random.below(8) as u8,
            _ => random.below(256) as u8,
        };
        (0..length).map(|_| byte(self)).collect()
    }
}
