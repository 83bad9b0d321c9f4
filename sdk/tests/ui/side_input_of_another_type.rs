//! A side input that is used as another view.
use purlin::prelude::*;

fn main() {
    let p = Pipeline::new();
    let rates = p.apply(Create::new([1.5])).as_list();
    let view = rates.clone();
    let convert = ParDo::of("Convert", move |n: f64, ctx: &mut Context<'_, f64>| {
        let rate: f64 = *ctx.side(&view)?;
        ctx.output(n * rate);
        Ok(())
    });
    p.apply(Create::new([1.0])).apply(convert.with_side_input(&rates));
}

//~ mismatched types
//~ expected `f64`, found `Vec<
