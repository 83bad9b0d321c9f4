//! What is told of windows of the user's own that are declared wrongly.

use purlin::prelude::*;

/// A window.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, purlin::Element)]
struct Group {
    number: i64,
}

impl WindowType for Group {
    fn max_timestamp(&self) -> Timestamp {
        Timestamp::from_millis(self.number)
    }
}

#[derive(Clone)]
struct Twice;

impl CustomWindowFn for Twice {
    type Window = Group;
    fn name(&self) -> String {
        "twice".into()
    }
    fn assign(&self, timestamp: Timestamp) -> Vec<Group> {
        vec![Group {
            number: timestamp.millis(),
        }]
    }
}

#[test]
fn two_window_functions_of_one_name_are_told() {
    #[derive(Clone)]
    struct Other;
    impl CustomWindowFn for Other {
        type Window = Group;
        fn name(&self) -> String {
            "twice".into()
        }
        fn assign(&self, _: Timestamp) -> Vec<Group> {
            Vec::new()
        }
    }
    let p = Pipeline::new();
    let numbers = p.apply(Create::new([1i64]));
    numbers.window_into("A", Windowing::custom(Twice));
    numbers.window_into("B", Windowing::custom(Other));
    let error = p.build().err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains("transform \"B\": two window functions"), "{error}");
}
