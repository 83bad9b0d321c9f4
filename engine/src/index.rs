//! Indices that each have a type of their own, so that a stage is not looked up where a collection is meant.

/// Defines an index into a [`typed_index_collections::TiVec`].
macro_rules! index {
    ($(#[$doc:meta])* $visibility:vis $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $visibility struct $name(pub u32);

        impl From<usize> for $name {
            /// No job has as many transforms, or what is made of them, as a u32 can count.
            fn from(index: usize) -> Self {
                Self(u32::try_from(index).unwrap_or(u32::MAX))
            }
        }

        impl From<$name> for usize {
            fn from(index: $name) -> Self {
                index.0 as usize
            }
        }
    };
}

pub(crate) use index;
