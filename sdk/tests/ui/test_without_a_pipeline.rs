//! A test for each runner that does not take the pipeline.
use purlin::prelude::*;

#[purlin::test]
fn sums() {
    let p = TestPipeline::new();
    p.apply(Create::new([1i64]));
    p.run();
}

fn main() {}

//~ a test takes the pipeline and nothing else: fn sums(p: TestPipeline)
//~ test_without_a_pipeline.rs:5
