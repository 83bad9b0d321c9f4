//! Large batches in parts: for threads, and for the processor's cache.

use crate::walk::LANES;

/// Rows that are prepared together take so many bytes: tree after tree walks them, so they are many for each tree that is fetched, but
/// few enough to stay in the second cache.
const BLOCK_BYTES: usize = 256 << 10;

/// So many walks take longer than it takes to start a thread.
const WALKS_OF_A_THREAD: usize = 8_000;

/// How many rows of this length are prepared together.
pub fn rows_of_a_block(len: usize) -> usize {
    (BLOCK_BYTES / (len.max(1) * size_of::<f64>())).clamp(4 * LANES, 4096)
}

/// Has rows, with `width` values of the output each, run by so many threads at most; `walks` tells how much there is to do. `run` is
/// told the number of its first row.
pub fn in_parts<R: Sync, T: Send, E: Send>(
    rows: &[R],
    out: &mut [T],
    width: usize,
    threads: usize,
    walks: usize,
    run: &(impl Fn(usize, &[R], &mut [T]) -> Result<(), E> + Sync),
) -> Result<(), E> {
    let threads = threads.min(walks / WALKS_OF_A_THREAD).max(1);
    let part = rows.len().div_ceil(threads).next_multiple_of(LANES).max(1);
    if rows.len() <= part {
        return run(0, rows, out);
    }
    std::thread::scope(|scope| {
        let parts = rows.chunks(part).zip(out.chunks_mut(part * width)).enumerate();
        let mut parts = parts.map(|(number, (rows, out))| (number * part, rows, out));
        // The first one is this thread's.
        let own = parts.next();
        let others: Vec<_> = parts
            .map(|(first, rows, out)| scope.spawn(move || run(first, rows, out)))
            .collect();
        let mut result = own.map_or(Ok(()), |(first, rows, out)| run(first, rows, out));
        for other in others {
            match other.join() {
                Ok(other) => result = result.and(other),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        result
    })
}
