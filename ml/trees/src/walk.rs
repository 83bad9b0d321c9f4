//! Many walks at once: while one waits for its node, the others go on.

use std::ops::Range;

use crate::forest::Forest;

/// So many walks go side by side.
pub const LANES: usize = 8;

/// What the splits and values of some walks are, so that walks need not ask at each step.
#[derive(Debug, Clone, Copy)]
struct Kinds {
    /// Some splits are by categories.
    categories: bool,
    /// Some values are NaN.
    nans: bool,
}

/// Walks from nodes to leaves. The row of each walk begins at its base in `data`.
#[inline]
fn walk(forest: &Forest, data: &[f64], bases: [usize; LANES], at: &mut [u32; LANES], kinds: Kinds) {
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

/// Walks all rows through some of the trees: `take` is told the row, the tree and the leaf's node. For one row it is told the trees in
/// their order, so that sums are the original's to the last bit.
pub fn walk_all(forest: &Forest, trees: Range<usize>, data: &[f64], mut take: impl FnMut(usize, usize, u32)) {
    let len = forest.row_len();
    let rows = data.len() / len;
    let nans = data.iter().fold(false, |nans, value| nans | value.is_nan());
    let whole = rows - rows % LANES;
    // Side by side, rows of one tree.
    for tree in trees.clone() {
        let shape = forest.trees[tree];
        let kinds = Kinds {
            categories: shape.categories,
            nans,
        };
        for first in (0..whole).step_by(LANES) {
            let bases = std::array::from_fn(|lane| (first + lane) * len);
            let mut at = [shape.root; LANES];
            walk(forest, data, bases, &mut at, kinds);
            for (row, at) in (first..).zip(at) {
                take(row, tree, at);
            }
        }
    }
    // Of the few rows that are left, trees of one row.
    for row in whole..rows {
        let mut tree = trees.start;
        while tree < trees.end {
            let count = LANES.min(trees.end - tree);
            // Lanes to spare walk the last tree again.
            let shapes: [_; LANES] = std::array::from_fn(|lane| forest.trees[tree + lane.min(count - 1)]);
            let mut at = shapes.map(|shape| shape.root);
            let kinds = Kinds {
                categories: shapes.iter().any(|shape| shape.categories),
                nans,
            };
            walk(forest, data, [row * len; LANES], &mut at, kinds);
            for (tree, at) in (tree..).zip(at).take(count) {
                take(row, tree, at);
            }
            tree += count;
        }
    }
}
