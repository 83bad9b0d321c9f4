//! A batch through a model, in as many calls as it takes.

use std::ops::Range;

use purlin::BoxError;

use crate::models::Loaded;
use crate::shape::Shape;
use crate::{InferenceError, ModelHandler};

/// What a model gave for examples, in their order; or the error of all of them.
pub(crate) type Each<I> = Result<Vec<Result<I, BoxError>>, BoxError>;

/// One call of the model, of examples of a batch that is filled up to a size. Where failures are kept, each example may fail alone.
pub(crate) fn call<H: ModelHandler, S: Shape>(
    loaded: &Loaded<H>,
    batch: &[S::Of<H::Example>],
    pad_to: usize,
    keeps_failures: bool,
) -> Each<H::Inference> {
    let mut examples: Vec<&H::Example> = batch.iter().map(S::value).collect();
    let padding = (examples.len() < pad_to)
        .then(|| loaded.handler.padding())
        .flatten();
    if let Some(filling) = padding.as_ref().or(examples.last().copied()) {
        examples.resize(examples.len().max(pad_to), filling);
    }
    let mut inferences: Vec<Result<H::Inference, BoxError>> = match keeps_failures {
        true => loaded.handler.run_each(&examples, &loaded.model)?,
        false => {
            let inferences = loaded.handler.run(&examples, &loaded.model)?;
            inferences.into_iter().map(Ok).collect()
        }
    };
    if inferences.len() != examples.len() {
        return Err(InferenceError::Count {
            model: loaded.id.clone(),
            found: inferences.len(),
            wanted: examples.len(),
        }
        .into());
    }
    inferences.truncate(batch.len());
    Ok(inferences)
}

/// How a batch is taken apart.
pub(crate) struct Parts<'a> {
    /// Whether what fails is halved until the examples at fault stand alone; without it the first error ends it.
    pub bisects: bool,
    /// So many examples are run at a time at most.
    pub limit: usize,
    /// Whether an error says that memory did not suffice.
    pub is_out_of_memory: &'a dyn Fn(&BoxError) -> bool,
    /// Is told by how many examples memory was exceeded.
    pub out_of_memory: &'a mut dyn FnMut(usize),
    /// Is told that a call failed for another reason.
    pub failed: &'a mut dyn FnMut(),
}

/// Runs parts of a batch: all of it in one call where that goes well. The results come in the order of the examples.
///
/// # Errors
/// The first error, unless what fails is halved; and when the model does not answer in time or is not available.
pub(crate) fn run_parts<I>(
    examples: usize,
    parts: Parts<'_>,
    run: &mut dyn FnMut(Range<usize>) -> Each<I>,
) -> Each<I> {
    let mut limit = parts.limit.max(1);
    let mut results = Vec::with_capacity(examples);
    // The parts still to run, the next one last.
    let mut stack: Vec<Range<usize>> = std::iter::once(0..examples).collect();
    while let Some(part) = stack.pop() {
        if part.len() > limit {
            let middle = part.start + limit;
            stack.push(middle..part.end);
            stack.push(part.start..middle);
            continue;
        }
        if part.is_empty() {
            continue;
        }
        match run(part.clone()) {
            Ok(done) => {
                if done.iter().any(Result::is_err) {
                    (parts.failed)();
                }
                results.extend(done);
            }
            Err(error) if part.len() > 1 && (parts.is_out_of_memory)(&error) => {
                (parts.out_of_memory)(part.len());
                limit = limit.min(part.len() / 2);
                stack.push(part);
            }
            Err(error) => {
                (parts.failed)();
                if !parts.bisects || ends_all(&error) {
                    return Err(error);
                }
                if part.len() == 1 {
                    results.push(Err(error));
                    continue;
                }
                let middle = part.start + part.len() / 2;
                stack.push(middle..part.end);
                stack.push(part.start..middle);
            }
        }
    }
    Ok(results)
}

/// What the model makes of other examples will not be known: the thread that runs it is still at it, or it is not available.
fn ends_all(error: &BoxError) -> bool {
    matches!(
        error.downcast_ref::<InferenceError>(),
        Some(InferenceError::Timeout { .. } | InferenceError::Unavailable(_))
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever fails for whatever reason: each example gets its own result, once and in order.
        #[test]
        fn each_example_gets_its_result(
            bad in proptest::collection::vec(any::<bool>(), 0..60),
            memory in 1usize..70,
            limit in 1usize..70,
        ) {
            let (mut told, mut failures) = (usize::MAX, 0);
            let parts = Parts {
                bisects: true,
                limit,
                is_out_of_memory: &|error| error.to_string() == "memory",
                out_of_memory: &mut |size| told = told.min(size / 2),
                failed: &mut || failures += 1,
            };
            let results = run_parts(bad.len(), parts, &mut |part| {
                assert!(part.len() <= limit);
                if part.len() > memory {
                    Err("memory".into())
                } else if bad[part.clone()].iter().any(|bad| *bad) {
                    Err("bad".into())
                } else {
                    Ok(part.map(Ok).collect())
                }
            })
            .unwrap();
            prop_assert_eq!(results.len(), bad.len());
            for (index, (result, bad)) in results.into_iter().zip(&bad).enumerate() {
                match result {
                    Ok(found) => prop_assert!(!bad && found == index),
                    Err(error) => prop_assert!(*bad && error.to_string() == "bad"),
                }
            }
            prop_assert!(told == usize::MAX || told >= memory.div_ceil(2));
            prop_assert_eq!(failures == 0, !bad.contains(&true));
        }
    }

    #[test]
    fn examples_that_fail_alone_are_not_halved_and_a_model_that_is_away_ends_all() {
        let (mut calls, mut failures) = (0, 0);
        let mut run_four = |run: &mut dyn FnMut(Range<usize>) -> Each<usize>| {
            let parts = Parts {
                bisects: true,
                limit: 8,
                is_out_of_memory: &|_| false,
                out_of_memory: &mut |_| (),
                failed: &mut || failures += 1,
            };
            run_parts(4, parts, run)
        };
        let results = run_four(&mut |part| {
            calls += 1;
            Ok(part
                .map(|n| if n == 2 { Err("two".into()) } else { Ok(n) })
                .collect())
        });
        let shown: Vec<String> = results
            .unwrap()
            .iter()
            .map(|result| format!("{result:?}"))
            .collect();
        assert_eq!(shown, ["Ok(0)", "Ok(1)", r#"Err("two")"#, "Ok(3)"]);
        let error = run_four(&mut |_| {
            calls += 1;
            Err(InferenceError::Unavailable("refused".into()).into())
        });
        assert_eq!(
            error.unwrap_err().to_string(),
            "the model is not available: refused"
        );
        assert_eq!((calls, failures), (2, 2));
    }

    #[test]
    fn a_smaller_batch_is_remembered_by_who_asks() {
        let mut most = 64;
        let mut calls = Vec::new();
        for _ in 0..2 {
            let mut halved = most;
            let parts = Parts {
                bisects: false,
                limit: most,
                is_out_of_memory: &|_| true,
                out_of_memory: &mut |size| halved = size / 2,
                failed: &mut || (),
            };
            let run = &mut |part: Range<usize>| {
                calls.push(part.len());
                if part.len() > 10 {
                    Err("memory".into())
                } else {
                    Ok(part.map(Ok).collect())
                }
            };
            assert_eq!(run_parts(20, parts, run).unwrap().len(), 20);
            most = halved;
        }
        assert_eq!(calls, [20, 10, 10, 10, 10]);
        let parts = Parts {
            bisects: false,
            limit: 4,
            is_out_of_memory: &|_| true,
            out_of_memory: &mut |_| (),
            failed: &mut || (),
        };
        // A single example that does not fit is an error as others are.
        let error = run_parts::<()>(3, parts, &mut |_| Err("memory".into()));
        assert_eq!(error.unwrap_err().to_string(), "memory");
    }
}
