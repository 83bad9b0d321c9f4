//! One bad item costs one result, not a batch.

/// Runs a batch; when it fails, each half, and so on until the items at fault stand alone.
///
/// `run` gives as many results as it gets items, or fails. The results come in the order of the items.
pub fn bisect<T, R, E>(items: &[T], run: &mut impl FnMut(&[T]) -> Result<Vec<R>, E>) -> Vec<Result<R, E>> {
    let mut results = Vec::with_capacity(items.len());
    // The parts still to run, the next one last.
    let mut parts = vec![items];
    while let Some(part) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        match run(part) {
            Ok(done) => results.extend(done.into_iter().map(Ok)),
            Err(error) if part.len() == 1 => results.push(Err(error)),
            Err(_) => {
                let (left, right) = part.split_at(part.len() / 2);
                parts.push(right);
                parts.push(left);
            }
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_gets_its_own_result() {
        for bad in [vec![], vec![0], vec![7], vec![3, 4], (0..8).collect()] {
            let mut calls = 0;
            let items: Vec<i32> = (0..8).collect();
            let results = bisect(&items, &mut |part: &[i32]| {
                calls += 1;
                match part.iter().find(|item| bad.contains(*item)) {
                    Some(item) => Err(*item),
                    None => Ok(part.iter().map(|item| item * 10).collect()),
                }
            });
            let expected: Vec<Result<i32, i32>> = items
                .iter()
                .map(|item| {
                    if bad.contains(item) {
                        Err(*item)
                    } else {
                        Ok(item * 10)
                    }
                })
                .collect();
            assert_eq!(results, expected);
            assert!(calls < 16 && (calls == 1) == bad.is_empty());
        }
        assert!(bisect(&[], &mut |_: &[i32]| Ok::<Vec<i32>, i32>(vec![])).is_empty());
    }
}
