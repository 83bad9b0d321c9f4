//! What goes into transforms and comes out of them.

use super::{CollectionId, PCollection, Pipeline};

/// One PCollection of a [`PValue`], without its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectionRef(pub(crate) CollectionId);

/// A PCollection, or several: what a transform takes and gives.
pub trait PValue {
    /// The pipeline, if there is any PCollection in it.
    fn pipeline_of(&self) -> Option<Pipeline>;
    /// Shows each PCollection in it.
    fn collections(&self, visit: &mut dyn FnMut(CollectionRef));
}

/// The start of a pipeline: the input of root transforms.
#[derive(Clone, Debug)]
pub struct PBegin(pub Pipeline);

impl PBegin {
    /// The pipeline.
    pub fn pipeline(&self) -> &Pipeline {
        &self.0
    }
}

impl PValue for PBegin {
    fn pipeline_of(&self) -> Option<Pipeline> {
        Some(self.0.clone())
    }
    fn collections(&self, _visit: &mut dyn FnMut(CollectionRef)) {}
}

impl PValue for () {
    fn pipeline_of(&self) -> Option<Pipeline> {
        None
    }
    fn collections(&self, _visit: &mut dyn FnMut(CollectionRef)) {}
}

impl<T> PValue for PCollection<T> {
    fn pipeline_of(&self) -> Option<Pipeline> {
        Some(self.pipeline.clone())
    }
    fn collections(&self, visit: &mut dyn FnMut(CollectionRef)) {
        visit(CollectionRef(self.id));
    }
}

impl<V: PValue> PValue for Vec<V> {
    fn pipeline_of(&self) -> Option<Pipeline> {
        self.iter().find_map(PValue::pipeline_of)
    }
    fn collections(&self, visit: &mut dyn FnMut(CollectionRef)) {
        self.iter().for_each(|v| v.collections(visit));
    }
}

impl<V: PValue, const N: usize> PValue for [V; N] {
    fn pipeline_of(&self) -> Option<Pipeline> {
        self.iter().find_map(PValue::pipeline_of)
    }
    fn collections(&self, visit: &mut dyn FnMut(CollectionRef)) {
        self.iter().for_each(|v| v.collections(visit));
    }
}

macro_rules! tuple {
    ($($name:ident),+) => {
        impl<$($name: PValue),+> PValue for ($($name,)+) {
            #[allow(non_snake_case)]
            fn pipeline_of(&self) -> Option<Pipeline> {
                let ($($name,)+) = self;
                None$(.or_else(|| $name.pipeline_of()))+
            }
            #[allow(non_snake_case)]
            fn collections(&self, visit: &mut dyn FnMut(CollectionRef)) {
                let ($($name,)+) = self;
                $($name.collections(visit);)+
            }
        }
    };
}

tuple!(A);
tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
tuple!(A, B, C, D, E);
tuple!(A, B, C, D, E, F);
