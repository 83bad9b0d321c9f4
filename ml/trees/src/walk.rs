//! Many walks at once: while one waits for its node, the others go on.

use crate::forest::Forest;

/// So many walks go side by side.
pub const LANES: usize = 8;

/// What the splits and values of some walks are, so that walks need not ask at each step.
#[derive(Debug, Clone, Copy)]
pub struct Kinds {
    /// Some splits are by categories.
    pub categories: bool,
    /// Some values are NaN.
    pub nans: bool,
}

/// Walks from nodes to leaves. The row of each walk begins at its base in `data`.
#[inline]
pub fn walk(forest: &Forest, data: &[f64], bases: [usize; LANES], at: &mut [u32; LANES], kinds: Kinds) {
    match (kinds.categories, kinds.nans) {
        (false, false) => walk_kind::<false, false>(forest, data, bases, at),
        (false, true) => walk_kind::<false, true>(forest, data, bases, at),
        // Of categories few steps are left that could be spared.
        (true, _) => walk_kind::<true, true>(forest, data, bases, at),
    }
}

#[inline]
fn walk_kind<const SETS: bool, const NANS: bool>(
    forest: &Forest,
    data: &[f64],
    bases: [usize; LANES],
    at: &mut [u32; LANES],
) {
    loop {
        let mut moved = 0;
        for lane in 0..LANES {
            let next = forest.step::<SETS, NANS>(at[lane], data, bases[lane]);
            moved |= next ^ at[lane];
            at[lane] = next;
        }
        if moved == 0 {
            return;
        }
    }
}
