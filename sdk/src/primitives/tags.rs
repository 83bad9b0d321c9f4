//! The additional outputs of a transform, by their tags.

use purlin_model::Element;

use crate::dofn::{OutputTag, TagSpec};
use crate::pipeline::{PCollection, PValue, Pipeline};
use crate::windowing::Windowing;

/// One tag, or a tuple of tags.
pub trait OutputTags {
    /// The PCollection of each tag.
    type Collections: PValue;
    /// The tags without their types.
    #[doc(hidden)]
    fn specs(&self) -> Vec<TagSpec>;
    /// New outputs of the transform that is being expanded.
    #[doc(hidden)]
    fn collections(&self, pipeline: &Pipeline, windowing: &Windowing, bounded: bool) -> Self::Collections;
}

impl OutputTags for () {
    type Collections = ();
    fn specs(&self) -> Vec<TagSpec> {
        Vec::new()
    }
    fn collections(&self, _: &Pipeline, _: &Windowing, _: bool) {}
}

impl<T: Element> OutputTags for OutputTag<T> {
    type Collections = PCollection<T>;
    fn specs(&self) -> Vec<TagSpec> {
        vec![self.into()]
    }
    fn collections(&self, pipeline: &Pipeline, windowing: &Windowing, bounded: bool) -> PCollection<T> {
        pipeline.new_collection(self.name(), windowing.clone(), bounded)
    }
}

impl<T: OutputTags> OutputTags for &T {
    type Collections = T::Collections;
    fn specs(&self) -> Vec<TagSpec> {
        (**self).specs()
    }
    fn collections(&self, pipeline: &Pipeline, windowing: &Windowing, bounded: bool) -> Self::Collections {
        (**self).collections(pipeline, windowing, bounded)
    }
}

macro_rules! tuple {
    ($($name:ident),+) => {
        impl<$($name: OutputTags),+> OutputTags for ($($name,)+) {
            type Collections = ($($name::Collections,)+);
            #[allow(non_snake_case)]
            fn specs(&self) -> Vec<TagSpec> {
                let ($($name,)+) = self;
                let mut all = Vec::new();
                $(all.extend($name.specs());)+
                all
            }
            #[allow(non_snake_case)]
            fn collections(&self, pipeline: &Pipeline, windowing: &Windowing, bounded: bool) -> Self::Collections {
                let ($($name,)+) = self;
                ($($name.collections(pipeline, windowing, bounded),)+)
            }
        }
    };
}

tuple!(A);
tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
