//! Many walks at once: while one waits for its node, the others go on.

use crate::forest::Forest;

/// So many walks go side by side.
pub const LANES: usize = 8;

/// Walks rows of one tree. `starts` are the rows' places in `rows`; the nodes become those of their leaves.
#[inline]
pub fn walk<const SETS: bool>(forest: &Forest, rows: [&[f64]; LANES], at: &mut [u32; LANES]) {
    loop {
        let mut moved = 0;
        for lane in 0..LANES {
            let next = forest.step::<SETS>(at[lane], rows[lane]);
            moved |= next ^ at[lane];
            at[lane] = next;
        }
        if moved == 0 {
            return;
        }
    }
}
