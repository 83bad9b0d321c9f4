//! A test for each runner that is an async function.
use purlin::prelude::*;

#[purlin::test]
async fn sums(p: TestPipeline) {
    p.run();
}

fn main() {}

//~ a test of a pipeline is no async function
