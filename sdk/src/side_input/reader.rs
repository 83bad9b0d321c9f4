//! Side inputs of a step.

use std::sync::Arc;

use purlin_model::Window;
use purlin_proto::fn_execution::state_key;

use super::{SideInput, View};
use crate::error::BoxError;
use crate::stage::bundle::BundleCell;
use crate::stage::state_cache::{AnyValue, SideKey};
use crate::windowing::WindowFn;

/// A side input of a step.
pub(crate) struct SideReader {
    pub view: u64,
    pub tag: String,
    pub name: String,
    pub window_fn: WindowFn,
    /// The window and value read last in this bundle.
    pub last: Option<(Window, AnyValue)>,
}

/// All side inputs of a step.
pub(crate) struct SideReaders {
    pub transform_id: String,
    pub bundle: std::rc::Rc<BundleCell>,
    pub readers: Vec<SideReader>,
}

impl SideReaders {
    pub fn start(&mut self) {
        self.readers.iter_mut().for_each(|reader| reader.last = None);
    }

    /// The value of a side input for a main-input window.
    pub fn read<V: View>(&mut self, view: &SideInput<V>, main: &Window) -> Result<Arc<V::Value>, BoxError> {
        let Some(reader) = self.readers.iter_mut().find(|r| r.view == view.id()) else {
            return Err(format!(
                "the side input of \"{}\" is read but not declared: add .with_side_input(&view) to the ParDo",
                view.name()
            )
            .into());
        };
        let window = match (&reader.window_fn, main) {
            (WindowFn::Global, _) => Window::Global,
            (window_fn, main) => window_fn.side_input_window(main).unwrap_or(Window::Global),
        };
        let any = match &reader.last {
            Some((last, value)) if *last == window => value.clone(),
            _ => {
                let value = load(&self.transform_id, &self.bundle, reader, view, &window)?;
                reader.last = Some((window, value.clone()));
                value
            }
        };
        any.downcast()
            .map_err(|_| "a side input has a value of another type".into())
    }
}

fn load<V: View>(
    transform_id: &str,
    bundle: &BundleCell,
    reader: &SideReader,
    view: &SideInput<V>,
    window: &Window,
) -> Result<AnyValue, BoxError> {
    let key = SideKey {
        transform: transform_id.to_owned(),
        tag: reader.tag.clone(),
        window: window.clone(),
    };
    let token = bundle.side_token(transform_id, &reader.tag);
    if let Some(token) = &token
        && let Some(value) = bundle.shared.side_input(&key, token)
    {
        return Ok(value);
    }
    let pages = bundle
        .pages(state_key::Type::IterableSideInput(state_key::IterableSideInput {
            transform_id: transform_id.to_owned(),
            side_input_id: reader.tag.clone(),
            window: window.to_bytes(),
        }))
        .map_err(|e| format!("side input \"{}\" cannot be read: {e}", reader.name))?;
    let whole = V::WHOLE || pages.is_whole();
    let value: AnyValue = view
        .open(pages)
        .map_err(|e| format!("side input \"{}\" in window {window}: {e}", reader.name))?;
    if let Some(token) = token.filter(|_| whole) {
        bundle.shared.put_side_input(key, token, value.clone());
    }
    Ok(value)
}
