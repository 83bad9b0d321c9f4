//! Reads of state and side inputs over the state stream.

use super::*;

fn page<T: Element>(values: &[T]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|v| v.encode(&mut out, true));
    out
}

/// Adds two states, which it asks for at once.
#[derive(Clone)]
struct AddStates {
    a: ValueState<i64>,
    b: BagState<i64>,
    c: MapState<i64, i64>,
    list: OrderedListState<i64>,
}

impl StatefulDoFn for AddStates {
    type Key = i64;
    type Value = i64;
    type Out = i64;
    purlin::fields!(a, b, c, list);

    fn process(&mut self, _: i64, value: i64, ctx: &mut KeyedContext<'_, i64>) -> crate::DoFnResult {
        self.a.read_later(ctx)?;
        // It was asked for, and is not asked for again.
        self.a.read_later(ctx)?;
        self.b.read_later(ctx)?;
        self.c.get_later(ctx, &value)?;
        let b: i64 = self.b.read(ctx)?.iter().sum();
        let a = self.a.read(ctx)?.unwrap_or_default();
        let c = self.c.get(ctx, &value)?.unwrap_or_default();
        self.c.get_later(ctx, &value)?;
        // Asked for in vain.
        self.list.read_range_later(ctx, 0..5)?;
        ctx.output(a + b + c + value);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn states_that_are_asked_for_ahead_are_on_their_way_together() {
    let p = Pipeline::new();
    let dofn = AddStates {
        a: ValueState::new("a"),
        b: BagState::new("b"),
        c: MapState::new("c"),
        list: OrderedListState::new("list"),
    };
    p.apply(Create::new([(0i64, 0i64)]))
        .stateful_par_do("AddStates", dofn)
        .reshuffle("After");
    let mut runner = Runner::start(&p, "AddStates", &[], vec![page(&[20i64]).into()]).await;
    // The answer to the first does not come before the third was asked for.
    runner.services.0.together.store(3, Ordering::SeqCst);
    runner.bundle("b1");
    runner.send("b1", encoded(&[(1i64, 5i64)]), true);
    assert_eq!(runner.output("b1").await.0, encoded(&[65i64]));
    done(runner.answer().await);
    // The list's request is the fourth, and may not have come yet.
    assert!(matches!(runner.services.0.asked.load(Ordering::SeqCst), 3 | 4));
}

/// What to make of a side input that is read as it comes.
#[derive(Clone)]
struct Peek(SideInput<crate::side_input::Iterable<String>>);

impl DoFn for Peek {
    type In = i64;
    type Out = String;
    fn process(&mut self, n: i64, ctx: &mut Context<'_, String>) -> crate::DoFnResult {
        let texts = ctx.side(&self.0)?;
        let wanted = usize::try_from(n)?;
        for text in texts.iter().take(wanted) {
            ctx.output(text?);
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_an_iterable_side_input_are_asked_for_when_they_are_wanted() {
    let p = Pipeline::new();
    let side = p.apply_named("Side", Create::new(["x".to_owned()])).as_iterable();
    let main = p.apply(Create::new([0i64])).reshuffle("Before");
    main.apply(ParDo::new("Peek", Peek(side.clone())).with_side_input(&side))
        .reshuffle("After");
    let texts = ["to", "be", "or", "not"].map(str::to_owned);
    let bytes = page(&texts);
    // The second text lies in two pages; the third page is empty.
    let pages = [&bytes[..4], &bytes[4..8], &[], &bytes[8..]].map(Bytes::copy_from_slice);
    let mut runner = Runner::start(&p, "Peek", &[], pages.to_vec()).await;
    // How many are wanted, and the pages that were asked for by then: the first is kept for the bundle, the others are not.
    for (wanted, asked) in [(&[1i64][..], 1), (&[2], 3), (&[9, 9], 10)] {
        let bundle = format!("b{asked}");
        runner.bundle(&bundle);
        runner.send(&bundle, encoded(wanted), true);
        let expected: Vec<String> = wanted
            .iter()
            .flat_map(|n| texts.iter().take(*n as usize).cloned())
            .collect();
        assert_eq!(runner.output(&bundle).await.0, encoded(&expected));
        done(runner.answer().await);
        assert_eq!(
            runner.services.0.asked.load(Ordering::SeqCst),
            asked,
            "{wanted:?}"
        );
    }
}
