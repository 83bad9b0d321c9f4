//! The rules of user state, from user code to the engine's tables: what a bundle reads of what is stored and of what it has
//! changed itself.

use purlin::prelude::*;
use purlin_model::state_rules::{Part, RULES, Step};

/// Does what the table says: an element is the number of a rule, and the number of one of its bundles.
#[derive(Clone)]
struct Follow {
    bag: BagState<String>,
    map: MultimapState<String, String>,
    list: OrderedListState<String>,
}

impl Follow {
    fn add(&self, ctx: &mut KeyedContext<'_, String>, to: Part, value: &str) -> DoFnResult {
        let value = value.to_owned();
        match to {
            Part::Bag => self.bag.add(ctx, &value),
            Part::Values(key) => self.map.add(ctx, &key.to_owned(), &value),
            Part::List(number, _) => self.list.add(ctx, number, &value),
            Part::Keys | Part::Entries => Err("nothing is added to keys or entries".into()),
        }
    }

    fn clear(&self, ctx: &mut KeyedContext<'_, String>, what: Part) -> DoFnResult {
        match what {
            Part::Bag => self.bag.clear(ctx),
            Part::Values(key) => self.map.remove(ctx, &key.to_owned()),
            Part::Keys => self.map.clear(ctx),
            Part::List(start, end) => self.list.clear_range(ctx, start..end),
            Part::Entries => Err("a multimap is cleared by its keys".into()),
        }
    }

    fn read(&self, ctx: &mut KeyedContext<'_, String>, what: Part) -> Result<Vec<String>, BoxError> {
        Ok(match what {
            Part::Bag => self.bag.read(ctx)?,
            Part::Values(key) => self.map.get(ctx, &key.to_owned())?,
            Part::Keys => self.map.keys(ctx)?,
            Part::Entries => {
                let entries = self.map.entries(ctx)?.into_iter();
                entries.flat_map(|(key, values)| [key, values.concat()]).collect()
            }
            Part::List(start, end) => {
                let values = self.list.read_range(ctx, start..end)?.into_iter();
                values
                    .map(|(number, value)| format!("{number}={value}"))
                    .collect()
            }
        })
    }
}

impl StatefulDoFn for Follow {
    type Key = i64;
    type Value = i64;
    type Out = String;
    purlin::fields!(bag, map, list);

    fn process(&mut self, rule: i64, bundle: i64, ctx: &mut KeyedContext<'_, String>) -> DoFnResult {
        let rule = RULES[rule as usize];
        for step in rule.bundles[bundle as usize] {
            match *step {
                Step::Add(to, value) => self.add(ctx, to, value)?,
                Step::Clear(what) => self.clear(ctx, what)?,
                Step::Finds(what, expected) => {
                    let found = self.read(ctx, what)?;
                    if found != expected {
                        ctx.output(format!("{}: bundle {bundle}: {step:?}: {found:?}", rule.says));
                    }
                }
            }
        }
        ctx.output("done".into());
        Ok(())
    }
}

#[test]
fn the_rules_of_state_hold() {
    let p = TestPipeline::new();
    let most = RULES.iter().map(|rule| rule.bundles.len()).max().unwrap_or(0);
    // All that comes between two advances of the watermark is committed before the second.
    let mut stream = TestStream::new();
    for bundle in 0..most {
        let at = Timestamp::from_millis(bundle as i64);
        let rules = RULES.iter().enumerate();
        let with_it = rules.filter(|(_, rule)| bundle < rule.bundles.len());
        let elements = with_it.map(|(rule, _)| ((rule as i64, bundle as i64), at));
        stream = stream.elements(elements).advance_watermark_to(at);
    }
    let follow = Follow {
        bag: BagState::new("bag"),
        map: MultimapState::new("map"),
        list: OrderedListState::new("list"),
    };
    let said = p
        .apply(stream.advance_watermark_to_infinity())
        .stateful_par_do("Follow", follow);
    let steps = RULES.iter().map(|rule| rule.bundles.len()).sum::<usize>();
    PAssert::that(&said).contains_in_any_order(vec!["done".to_owned(); steps]);
    p.run();
}
