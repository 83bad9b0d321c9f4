//! Names under which workers find their files.

use std::path::{Component, Path};

/// A name that points out of a worker's folder, or is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("artifact name {name:?} is not a plain relative path, so it is not taken; rename it")]
pub struct UnsafeName {
    /// The name.
    pub name: String,
}

/// Checks that a file of this name stays below the folder in which it is written.
pub fn check_name(name: &str) -> Result<(), UnsafeName> {
    let plain = !name.is_empty()
        && !name.contains(['\\', '\0'])
        && Path::new(name)
            .components()
            .all(|c| matches!(c, Component::Normal(_)));
    match plain {
        true => Ok(()),
        false => Err(UnsafeName {
            name: name.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_folder() {
        for good in ["a", "a/b.txt", "a b", "..a"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "..",
            "./x",
            "a\0b",
            "..\\x",
        ] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
