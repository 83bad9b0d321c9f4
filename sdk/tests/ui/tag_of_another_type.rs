//! Another type to a tagged output.
use purlin::prelude::*;

fn main() {
    let p = Pipeline::new();
    let bad = OutputTag::<String>::new("bad");
    let to = bad.clone();
    let split = ParDo::of("Split", move |n: i64, ctx: &mut Context<'_, i64>| {
        ctx.output_to(&to, n);
        Ok(())
    });
    p.apply(Create::new([1i64])).apply(split.with_outputs(&bad));
}

//~ mismatched types
//~ expected `String`, found `i64`
