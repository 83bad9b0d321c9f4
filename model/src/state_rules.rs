//! The rules of user state as a table: what a bundle reads of what is stored, and of what it has changed itself.
//!
//! A runner keeps what a running bundle changes apart from what is stored; an SDK keeps what it has read and changed until the
//! bundle ends. Each does so in a form of its own, and both must come to the same: they run [`RULES`] in their tests.

/// A part of a state that is read or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of a bag.
    Bag,
    /// The values of one key of a multimap.
    Values(&'static str),
    /// The keys of a multimap.
    Keys,
    /// The keys of a multimap, each followed by its values in one.
    Entries,
    /// The numbers of an ordered list from the first on and before the second; what is added has the first.
    List(i64, i64),
}

/// What a bundle does with a part of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Adds a value.
    Add(Part, &'static str),
    /// Removes what is there.
    Clear(Part),
    /// Reads, and must find this. Values of a list are found as `NUMBER=VALUE`.
    Finds(Part, &'static [&'static str]),
}

/// A rule, and an example of it: what bundles that follow each other do with the state of one key.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// What holds.
    pub says: &'static str,
    /// The bundles, each of which is committed before the next one begins.
    pub bundles: &'static [&'static [Step]],
}

use Part::{Bag, Entries, Keys, List, Values};
use Step::{Add, Clear, Finds};

const ALL: Part = List(i64::MIN, i64::MAX);

/// The rules.
pub const RULES: &[Rule] = &[
    Rule {
        says: "what a bundle adds it reads at once, after what is stored",
        bundles: &[
            &[Finds(Bag, &[]), Add(Bag, "a"), Finds(Bag, &["a"]), Add(Bag, "b")],
            &[Add(Bag, "c"), Finds(Bag, &["a", "b", "c"])],
            &[Finds(Bag, &["a", "b", "c"])],
        ],
    },
    Rule {
        says: "values that are equal stay apart",
        bundles: &[
            &[Add(Bag, "a"), Add(Bag, "a")],
            &[Add(Bag, "a"), Finds(Bag, &["a", "a", "a"])],
        ],
    },
    Rule {
        says: "clearing removes what is stored and what was added, and what is added later stays",
        bundles: &[
            &[Add(Bag, "a")],
            &[
                Add(Bag, "b"),
                Clear(Bag),
                Finds(Bag, &[]),
                Add(Bag, "c"),
                Finds(Bag, &["c"]),
            ],
            &[Finds(Bag, &["c"]), Clear(Bag)],
            &[Finds(Bag, &[]), Add(Bag, "d")],
            &[Finds(Bag, &["d"])],
        ],
    },
    Rule {
        says: "what was read before it is cleared is gone afterwards",
        bundles: &[
            &[Add(Bag, "a")],
            &[Finds(Bag, &["a"]), Clear(Bag), Finds(Bag, &[])],
            &[Finds(Bag, &[])],
        ],
    },
    Rule {
        says: "values of a key of a multimap keep their order, over bundles too",
        bundles: &[
            &[
                Add(Values("x"), "1"),
                Add(Values("y"), "2"),
                Add(Values("x"), "3"),
            ],
            &[
                Add(Values("x"), "4"),
                Finds(Values("x"), &["1", "3", "4"]),
                Finds(Values("z"), &[]),
            ],
            &[Finds(Values("x"), &["1", "3", "4"]), Finds(Values("y"), &["2"])],
        ],
    },
    Rule {
        says: "the keys of a multimap are those with values: stored and not cleared, or added",
        bundles: &[
            &[
                Add(Values("x"), "1"),
                Add(Values("y"), "2"),
                Finds(Keys, &["x", "y"]),
            ],
            &[
                Clear(Values("y")),
                Add(Values("z"), "3"),
                Clear(Values("w")),
                Finds(Keys, &["x", "z"]),
                Finds(Entries, &["x", "1", "z", "3"]),
                Add(Values("y"), "4"),
                Finds(Keys, &["x", "y", "z"]),
            ],
            &[Finds(Keys, &["x", "y", "z"]), Finds(Values("y"), &["4"])],
        ],
    },
    Rule {
        says: "a key that was added and cleared in one bundle never was",
        bundles: &[
            &[
                Add(Values("x"), "1"),
                Clear(Values("x")),
                Finds(Keys, &[]),
                Finds(Values("x"), &[]),
            ],
            &[Finds(Keys, &[]), Finds(Entries, &[])],
        ],
    },
    Rule {
        says: "entries of a multimap are what is stored and what was added",
        bundles: &[
            &[Add(Values("x"), "1"), Add(Values("y"), "2")],
            &[
                Add(Values("x"), "3"),
                Finds(Entries, &["x", "13", "y", "2"]),
                Clear(Values("x")),
                Finds(Entries, &["y", "2"]),
                Add(Values("x"), "4"),
                Finds(Entries, &["x", "4", "y", "2"]),
            ],
            &[Finds(Entries, &["x", "4", "y", "2"])],
        ],
    },
    Rule {
        says: "clearing a multimap clears all of its keys, and those that are added later stay",
        bundles: &[
            &[Add(Values("x"), "1"), Add(Values("y"), "2")],
            &[
                Clear(Values("x")),
                Add(Values("z"), "3"),
                Clear(Keys),
                Finds(Keys, &[]),
                Finds(Values("y"), &[]),
                Add(Values("y"), "4"),
                Finds(Entries, &["y", "4"]),
            ],
            &[
                Finds(Keys, &["y"]),
                Finds(Values("x"), &[]),
                Finds(Values("y"), &["4"]),
            ],
        ],
    },
    Rule {
        says: "an ordered list is read by number, equal numbers in the order in which they came",
        bundles: &[
            &[Add(List(5, 6), "a"), Add(List(-1, 0), "b"), Add(List(5, 6), "c")],
            &[
                Add(List(3, 4), "d"),
                Add(List(5, 6), "e"),
                Finds(ALL, &["-1=b", "3=d", "5=a", "5=c", "5=e"]),
            ],
            &[Finds(List(3, 6), &["3=d", "5=a", "5=c", "5=e"])],
        ],
    },
    Rule {
        says: "a range begins with its first number and ends before its last; an empty one holds nothing",
        bundles: &[
            &[Add(List(1, 2), "a"), Add(List(2, 3), "b"), Add(List(3, 4), "c")],
            &[
                Finds(List(1, 3), &["1=a", "2=b"]),
                Finds(List(2, 2), &[]),
                Finds(List(3, 1), &[]),
                Clear(List(2, 2)),
                Clear(List(3, 1)),
                Finds(ALL, &["1=a", "2=b", "3=c"]),
            ],
        ],
    },
    Rule {
        says: "clearing a range removes what is stored and what was added there, and nothing else",
        bundles: &[
            &[Add(List(1, 2), "a"), Add(List(2, 3), "b"), Add(List(3, 4), "c")],
            &[
                Finds(List(1, 2), &["1=a"]),
                Add(List(2, 3), "d"),
                Clear(List(2, 3)),
                Finds(ALL, &["1=a", "3=c"]),
                Add(List(2, 3), "e"),
                Finds(List(2, 4), &["2=e", "3=c"]),
            ],
            &[Finds(ALL, &["1=a", "2=e", "3=c"]), Clear(ALL)],
            &[Finds(ALL, &[])],
        ],
    },
    Rule {
        says: "ranges that are cleared may overlap",
        bundles: &[
            &[
                Add(List(1, 2), "a"),
                Add(List(4, 5), "b"),
                Add(List(7, 8), "c"),
                Add(List(9, 10), "d"),
            ],
            &[
                Clear(List(0, 5)),
                Clear(List(3, 8)),
                Finds(List(0, 9), &[]),
                Finds(ALL, &["9=d"]),
            ],
            &[Finds(ALL, &["9=d"])],
        ],
    },
];
