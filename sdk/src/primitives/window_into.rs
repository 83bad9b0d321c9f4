//! `beam:transform:window_into:v1`.

use prost::Message;
use purlin_model::Element;
use purlin_proto::pipeline::WindowIntoPayload;
use purlin_proto::urns::transforms;

use crate::pipeline::{PCollection, PTransform};
use crate::windowing::{SdkWindowFn, Trigger, WindowFn, Windowing};

/// Gives the elements windows by their timestamps.
///
/// ```
/// use std::time::Duration;
/// use purlin::prelude::*;
///
/// let p = Pipeline::new();
/// let lines = p.apply(Create::new(["a".to_string()]));
/// let windowed = lines.window_into("Minutes", Windowing::fixed(Duration::from_secs(60)));
/// # p.build().unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct WindowInto {
    windowing: Windowing,
}

impl WindowInto {
    /// Windows by this strategy.
    pub fn new(windowing: Windowing) -> WindowInto {
        WindowInto { windowing }
    }
}

impl<T: Element> PTransform<PCollection<T>> for WindowInto {
    type Output = PCollection<T>;

    fn name(&self) -> String {
        "WindowInto".into()
    }

    fn expand(self, input: PCollection<T>) -> PCollection<T> {
        let pipeline = input.pipeline();
        if let Some(problem) = self.windowing.window_fn.problem() {
            pipeline.problem(problem);
        }
        if let Trigger::ElementCount(0) = self.windowing.trigger {
            pipeline.problem("a trigger by element count needs a count of at least 1");
        }
        if let WindowFn::Custom(custom) = &self.windowing.window_fn {
            pipeline.register_window_fn(custom);
        }
        // As in Beam's SDKs: runners need not know how to assign windows, and Prism does not.
        pipeline.in_environment();
        let payload = WindowIntoPayload {
            window_fn: Some(self.windowing.window_fn.to_spec()),
        };
        pipeline.set_spec(transforms::ASSIGN_WINDOWS, payload.encode_to_vec());
        pipeline.new_collection("out", self.windowing, input.is_bounded())
    }
}

impl<T: Element> PCollection<T> {
    /// Gives the elements windows; see [`WindowInto`].
    pub fn window_into(&self, name: &str, windowing: Windowing) -> PCollection<T> {
        self.apply_named(name, WindowInto::new(windowing))
    }

    /// The window function of this collection.
    pub fn window_fn(&self) -> WindowFn {
        self.windowing().window_fn
    }
}
