//! Window functions and windows of the user's own.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use purlin_model::{
    CoderSpec, CustomWindows, DecodeError, Element, Timestamp, Window, WindowCoder, Windows, urns, wire,
};

/// A type of windows: any [`Element`] that knows the largest timestamp in it. Two windows are the same if they are
/// encoded alike.
///
/// ```
/// use purlin::prelude::*;
/// use purlin::windowing::WindowType;
///
/// /// A shift in a plant, with its own number.
/// #[derive(Clone, Debug, serde::Serialize, serde::Deserialize, purlin::Element)]
/// struct Shift {
///     number: i64,
/// }
///
/// impl WindowType for Shift {
///     fn max_timestamp(&self) -> Timestamp {
///         Timestamp::from_millis((self.number + 1) * 8 * 3_600_000 - 1)
///     }
/// }
/// ```
pub trait WindowType: Element + fmt::Debug {
    /// The largest timestamp in the window.
    fn max_timestamp(&self) -> Timestamp;

    /// How runners are told of the windows' encoding. They put the largest timestamp before it, and need not know more
    /// than its length.
    #[doc(hidden)]
    fn window_coder() -> CoderSpec {
        CoderSpec::of(
            urns::LENGTH_PREFIX,
            vec![CoderSpec::atom("purlin:coder:window:v1")],
        )
    }

    #[doc(hidden)]
    fn to_window(&self) -> Window {
        let mut encoded = Vec::new();
        wire::write_bytes(&self.to_bytes(), &mut encoded, true);
        Window::Custom {
            max_timestamp: self.max_timestamp(),
            encoded: encoded.into(),
        }
    }

    #[doc(hidden)]
    fn from_window(window: &Window) -> Option<Self> {
        let (Window::Custom { encoded, .. } | Window::Opaque { encoded }) = window else {
            return None;
        };
        let mut rest = &encoded[..];
        let bytes = wire::read_bytes(&mut rest, true).ok()?;
        Self::from_bytes(bytes).ok()
    }
}

/// What tells a window: a [`Window`], or one of a [`WindowType`] such as [`IntervalWindow`].
pub trait IntoWindow {
    /// The window.
    fn into_window(self) -> Window;
}

impl IntoWindow for Window {
    fn into_window(self) -> Window {
        self
    }
}

impl<W: WindowType> IntoWindow for W {
    fn into_window(self) -> Window {
        self.to_window()
    }
}

/// The times from `start` to before `end`, as in Beam's fixed and sliding windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IntervalWindow {
    /// Where it starts.
    pub start: Timestamp,
    /// Where it ends; this point is not in it.
    pub end: Timestamp,
}

impl Element for IntervalWindow {
    fn coder() -> CoderSpec {
        CoderSpec::atom(urns::INTERVAL_WINDOW)
    }
    fn encode(&self, out: &mut Vec<u8>, _nested: bool) {
        self.to_window().encode(out);
    }
    fn decode(input: &mut &[u8], nested: bool) -> Result<Self, DecodeError> {
        match WindowCoder::Interval.decode(input, nested)? {
            Window::Interval { start, end } => Ok(IntervalWindow { start, end }),
            other => Ok(IntervalWindow {
                start: Timestamp::MIN,
                end: other.max_timestamp(),
            }),
        }
    }
}

impl WindowType for IntervalWindow {
    fn max_timestamp(&self) -> Timestamp {
        self.end.plus_millis(-1)
    }
    fn window_coder() -> CoderSpec {
        CoderSpec::atom(urns::INTERVAL_WINDOW)
    }
    fn to_window(&self) -> Window {
        Window::Interval {
            start: self.start,
            end: self.end,
        }
    }
    fn from_window(window: &Window) -> Option<Self> {
        match window {
            Window::Interval { start, end } => Some(IntervalWindow {
                start: *start,
                end: *end,
            }),
            _ => None,
        }
    }
}

/// Several windows that become one.
#[derive(Clone, Debug)]
pub struct Merged<W> {
    /// Indices of those that are merged.
    pub from: Vec<usize>,
    /// What they become.
    pub into: W,
}

/// A window function of the user's own.
///
/// ```
/// use purlin::prelude::*;
/// use purlin::windowing::{CustomWindowFn, IntervalWindow};
///
/// /// One window up to noon and one from noon on, on each day.
/// #[derive(Clone)]
/// struct HalfDays;
///
/// impl CustomWindowFn for HalfDays {
///     type Window = IntervalWindow;
///
///     fn name(&self) -> String {
///         "half days".into()
///     }
///
///     fn assign(&self, timestamp: Timestamp) -> Vec<IntervalWindow> {
///         let half = 12 * 3_600_000;
///         let start = timestamp.millis().div_euclid(half) * half;
///         let at = Timestamp::from_millis;
///         vec![IntervalWindow { start: at(start), end: at(start + half) }]
///     }
/// }
///
/// let p = Pipeline::new();
/// p.apply(Create::new([("a".to_string(), 1i64)]))
///     .window_into("HalfDays", Windowing::custom(HalfDays))
///     .combine_per_key("Sum", Sum::new());
/// p.run(&PipelineOptions::default())?;
/// # Ok::<(), RunError>(())
/// ```
pub trait CustomWindowFn: Clone + Send + Sync + 'static {
    /// Its windows.
    type Window: WindowType;

    /// Whether windows of one key merge by [`CustomWindowFn::merge`].
    const MERGES: bool = false;
    /// Whether each element is in exactly one window.
    const ASSIGNS_TO_ONE_WINDOW: bool = true;

    /// A name, with all settings in it: window functions of one pipeline that have the same name are the same one.
    fn name(&self) -> String;

    /// The windows of an element of this timestamp.
    fn assign(&self, timestamp: Timestamp) -> Vec<Self::Window>;

    /// What becomes of the windows of one key. Windows that are not named stay as they are.
    fn merge(&self, _windows: &[Self::Window]) -> Vec<Merged<Self::Window>> {
        Vec::new()
    }

    /// The window of a side input of these windows that belongs to a window of the main input: by default the last one
    /// of an element at the main window's largest timestamp.
    fn side_input_window(&self, main: &Window) -> Option<Self::Window> {
        self.assign(main.max_timestamp()).pop()
    }
}

/// A [`CustomWindowFn`] without its type.
pub(crate) trait AnyWindowFn: Send + Sync {
    fn name(&self) -> &str;
    fn type_name(&self) -> &'static str;
    fn merges(&self) -> bool;
    fn assigns_to_one_window(&self) -> bool;
    fn coder(&self) -> CoderSpec;
    fn assign(&self, timestamp: Timestamp) -> Windows;
    /// The window as it was assigned, of one that came without its largest timestamp.
    fn restore(&self, window: &Window) -> Option<Window>;
    /// `None`: it does not map that window.
    fn side_input_window(&self, main: &Window) -> Option<Window>;
    /// Merged windows with those they came from.
    ///
    /// # Errors
    /// What is wrong with the windows or the merge.
    fn merge(&self, windows: &[Window]) -> Result<Vec<(Window, Vec<Window>)>, String>;
}

struct Typed<F> {
    f: F,
    name: String,
}

impl<F: CustomWindowFn> AnyWindowFn for Typed<F> {
    fn name(&self) -> &str {
        &self.name
    }
    fn type_name(&self) -> &'static str {
        std::any::type_name::<F>()
    }
    fn merges(&self) -> bool {
        F::MERGES
    }
    fn assigns_to_one_window(&self) -> bool {
        F::ASSIGNS_TO_ONE_WINDOW
    }
    fn coder(&self) -> CoderSpec {
        F::Window::window_coder()
    }
    fn assign(&self, timestamp: Timestamp) -> Windows {
        let windows = self.f.assign(timestamp);
        windows.iter().map(WindowType::to_window).collect()
    }
    fn restore(&self, window: &Window) -> Option<Window> {
        F::Window::from_window(window).map(|window| window.to_window())
    }
    fn side_input_window(&self, main: &Window) -> Option<Window> {
        self.f.side_input_window(main).map(|window| window.to_window())
    }
    fn merge(&self, windows: &[Window]) -> Result<Vec<(Window, Vec<Window>)>, String> {
        let typed: Option<Vec<F::Window>> = windows.iter().map(F::Window::from_window).collect();
        let typed = typed.ok_or_else(|| format!("a window of \"{}\" cannot be decoded", self.name))?;
        let mut used = vec![false; windows.len()];
        let mut all = Vec::new();
        for Merged { from, into } in self.f.merge(&typed) {
            let mut olds = Vec::new();
            for index in from {
                match used.get_mut(index) {
                    Some(used) if !*used => *used = true,
                    Some(_) => {
                        return Err(format!(
                            "window function \"{}\" merges window {index} twice",
                            self.name
                        ));
                    }
                    None => {
                        let count = windows.len();
                        let name = &self.name;
                        return Err(format!(
                            "window function \"{name}\" merges window {index} of {count}"
                        ));
                    }
                }
                olds.push(windows[index].clone());
            }
            all.push((into.to_window(), olds));
        }
        Ok(all)
    }
}

/// A window function of the user's own; see [`CustomWindowFn`].
#[derive(Clone)]
pub struct CustomFn(Arc<dyn AnyWindowFn>);

impl CustomFn {
    pub(crate) fn new<F: CustomWindowFn>(f: F) -> CustomFn {
        let name = f.name();
        CustomFn(Arc::new(Typed { f, name }))
    }

    pub(crate) fn inner(&self) -> &dyn AnyWindowFn {
        &*self.0
    }

    pub(crate) fn window_coder(&self) -> CoderSpec {
        self.0.coder()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    pub(crate) fn payload(&self) -> Bytes {
        use prost::Message;
        let payload = crate::closure::ClosurePayload {
            path: self.name().to_owned(),
            type_name: self.0.type_name().to_owned(),
        };
        payload.encode_to_vec().into()
    }
}

impl PartialEq for CustomFn {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.0.type_name() == other.0.type_name()
    }
}

impl Eq for CustomFn {}

impl Hash for CustomFn {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl CustomWindows for CustomFn {
    fn merges(&self) -> bool {
        self.0.merges()
    }

    fn assigns_to_one_window(&self) -> bool {
        self.0.assigns_to_one_window()
    }

    fn assign(&self, timestamp: Timestamp) -> Windows {
        self.0.assign(timestamp)
    }

    fn side_input_window(&self, main: &Window) -> Option<Window> {
        self.0.side_input_window(main)
    }
}

impl fmt::Display for CustomFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for CustomFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CustomFn({})", self.name())
    }
}
