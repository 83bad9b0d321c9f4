//! Side inputs: what has arrived of them, by window, and whether a main-input window can be processed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use purlin_coders::{DecodeError, Timestamp, Window, Windows};
use rustc_hash::FxHashMap;

use crate::chunk::{Chunk, ChunkError, CollectionFormat};
use crate::event::SideInputPart;
use crate::graph::{
    Collection, CollectionId, SideInput, SideInputAccess, TransformId, Trigger, WindowFn, WindowMapping,
    Windowing,
};
use crate::group::window_fn::side_input_window;
use crate::state::StateError;

/// A side input of a stage.
#[derive(Debug)]
pub(crate) struct SideView {
    pub transform: TransformId,
    pub index: usize,
    pub tag: String,
    pub collection: CollectionId,
    access: SideInputAccess,
    mapping: WindowMapping,
    window_fn: WindowFn,
    /// Whether the first pane of any window will do.
    early: bool,
    /// Whether the first pane of the global window will do.
    early_global: bool,
    format: CollectionFormat,
    /// Changes with the contents.
    pub token: u64,
    pub changed: bool,
    windows: BTreeMap<Window, Contents>,
    mapped: BTreeMap<Window, Window>,
    asked: BTreeSet<Window>,
    /// Main windows that the SDK is to map.
    pub to_ask: Vec<Window>,
}

#[derive(Debug)]
enum Contents {
    Iterable(Vec<Bytes>),
    Multimap {
        order: Vec<Bytes>,
        values: FxHashMap<Bytes, Vec<Bytes>>,
    },
}

/// Whether the trigger may fire before the watermark passes the end of the window.
pub(crate) fn fires_early(trigger: &Trigger) -> bool {
    match trigger {
        Trigger::Default | Trigger::Never => false,
        Trigger::AfterEndOfWindow { early, .. } => early.is_some(),
        Trigger::AfterAll(all) => all.iter().all(fires_early),
        Trigger::AfterEach(each) => each.first().is_some_and(fires_early),
        Trigger::AfterAny(any) => any.iter().any(fires_early),
        Trigger::OrFinally(main, until) => fires_early(main) || fires_early(until),
        Trigger::Repeat(inner) => fires_early(inner),
        Trigger::ElementCount(_)
        | Trigger::AfterProcessingTime(_)
        | Trigger::AfterSynchronizedProcessingTime
        | Trigger::Always => true,
    }
}

impl SideView {
    /// `scripted`: a TestStream moves the time of the job.
    pub fn new(
        transform: TransformId,
        index: usize,
        side: &SideInput,
        collection: &Collection,
        scripted: bool,
    ) -> SideView {
        let Windowing {
            window_fn, trigger, ..
        } = &collection.windowing;
        let custom = matches!(window_fn, WindowFn::Custom { .. });
        SideView {
            transform,
            index,
            tag: side.tag.clone(),
            collection: side.collection,
            access: side.access,
            mapping: if custom {
                WindowMapping::Sdk
            } else {
                side.mapping.clone()
            },
            window_fn: window_fn.clone(),
            // As Beam's model has it, a window is ready as soon as its trigger has fired. Where all of a window is sure to come
            // it is waited for: what is bounded is complete soon, and Beam's tests want a script's windows whole.
            early: fires_early(trigger) && !collection.bounded && !scripted,
            // For the end of the global window nobody can wait.
            early_global: fires_early(trigger),
            format: CollectionFormat::from(collection),
            token: 0,
            changed: true,
            windows: BTreeMap::new(),
            mapped: BTreeMap::new(),
            asked: BTreeSet::new(),
            to_ask: Vec::new(),
        }
    }

    /// Takes elements in.
    pub fn ingest(&mut self, chunk: &Chunk) -> Result<(), ChunkError> {
        self.changed = true;
        let SideView {
            windows,
            format,
            access,
            ..
        } = self;
        let mut runs: BTreeMap<Window, Vec<u8>> = BTreeMap::new();
        let mut last: Option<(Window, Vec<u8>)> = None;
        for (index, element) in (0..).zip(format.walk(&chunk.data)) {
            let error = |source| format.error(index, chunk.data.len(), source);
            let element = element.map_err(error)?;
            let value = chunk.data.slice(element.value());
            match access {
                SideInputAccess::Iterable => {
                    // Elements of one window follow each other.
                    if let (Windows::One(window), Some((open, run))) = (&element.windows, &mut last)
                        && window == open
                    {
                        run.extend_from_slice(&value);
                        continue;
                    }
                    if let Some((window, run)) = last.take() {
                        runs.entry(window).or_default().extend(run);
                    }
                    match &element.windows {
                        Windows::One(window) => last = Some((window.clone(), value.to_vec())),
                        Windows::Many(many) => {
                            many.iter()
                                .for_each(|w| runs.entry(w.clone()).or_default().extend_from_slice(&value));
                        }
                    }
                }
                SideInputAccess::Multimap => {
                    let (key, rest) = format.coder.split_kv(&value).map_err(error)?;
                    let rest = value.slice(key.len()..key.len() + rest.len());
                    for window in element.windows.iter() {
                        let empty = || Contents::Multimap {
                            order: Vec::new(),
                            values: FxHashMap::default(),
                        };
                        let contents = windows.entry(window.clone()).or_insert_with(empty);
                        let Contents::Multimap { order, values } = contents else {
                            continue;
                        };
                        match values.get_mut(key) {
                            Some(values) => values.push(rest.clone()),
                            None => {
                                let key = Bytes::copy_from_slice(key);
                                order.push(key.clone());
                                values.insert(key, vec![rest.clone()]);
                            }
                        }
                    }
                }
            }
        }
        if let Some((window, run)) = last {
            runs.entry(window).or_default().extend(run);
        }
        for (window, run) in runs {
            let contents = windows
                .entry(window)
                .or_insert_with(|| Contents::Iterable(Vec::new()));
            if let Contents::Iterable(chunks) = contents {
                chunks.push(run.into());
            }
        }
        Ok(())
    }

    /// Whether a main-input window can be processed. Notes what the SDK must be asked.
    pub fn is_ready(&mut self, main: &Window, watermark: Timestamp) -> bool {
        if watermark == Timestamp::MAX {
            return true;
        }
        let window = match &self.mapping {
            WindowMapping::Standard => side_input_window(&self.window_fn, main),
            WindowMapping::Sdk => {
                let mapped = self.mapped.get(main).cloned();
                if mapped.is_none() && self.asked.insert(main.clone()) {
                    self.to_ask.push(main.clone());
                }
                mapped
            }
        };
        let Some(window) = window else { return false };
        let early = if window == Window::Global {
            self.early_global
        } else {
            self.early
        };
        watermark > window.max_timestamp() || (early && self.windows.contains_key(&window))
    }

    /// Whether every main-input window can be processed.
    pub fn is_ready_for_all(&self, watermark: Timestamp) -> bool {
        watermark == Timestamp::MAX
            || (self.window_fn == WindowFn::Global
                && (watermark > Timestamp::END_OF_GLOBAL_WINDOW
                    || (self.early_global && self.windows.contains_key(&Window::Global))))
    }

    /// Forgets what no main-input element will read: `main` is the time that all main windows to come end at or after.
    pub fn collect(&mut self, main: Timestamp) {
        // With another mapping, which main windows read a side window is not known.
        if self.mapping == WindowMapping::Standard {
            let readable = |window: &Window| *window == Window::Global || window.max_timestamp() >= main;
            self.windows.retain(|window, _| readable(window));
        }
    }

    /// The SDK mapped windows.
    pub fn mapped(&mut self, main: Vec<Window>, side: Vec<Window>) {
        self.mapped.extend(main.into_iter().zip(side));
    }

    /// Answers a read.
    pub fn read(&self, window: &Bytes, part: &SideInputPart) -> Result<Vec<Bytes>, StateError> {
        let mut rest = &window[..];
        let bad = |source: DecodeError| StateError::Window {
            side_input: self.tag.clone(),
            source,
        };
        let window = self.format.window.decode(&mut rest, false).map_err(bad)?;
        let mismatch = |access, part| StateError::SideInputAccess {
            side_input: self.tag.clone(),
            access,
            part,
        };
        let multimap = "a multimap";
        match (self.windows.get(&window), part, self.access) {
            (Some(Contents::Iterable(chunks)), SideInputPart::Iterable, _) => Ok(chunks.clone()),
            (_, SideInputPart::Iterable, SideInputAccess::Multimap) => Err(mismatch(multimap, "iterating")),
            (_, SideInputPart::MultimapValues(_), SideInputAccess::Iterable) => {
                Err(mismatch("an iterable", "key"))
            }
            (_, SideInputPart::MultimapKeys | SideInputPart::MultimapEntries, SideInputAccess::Iterable) => {
                Err(mismatch("an iterable", "its keys"))
            }
            (Some(Contents::Multimap { order, values }), part, _) => Ok(match part {
                SideInputPart::MultimapValues(key) => values.get(key).cloned().unwrap_or_default(),
                SideInputPart::MultimapKeys => order.clone(),
                _ => entries(order, values),
            }),
            (Some(Contents::Iterable(_)) | None, _, _) => Ok(Vec::new()),
        }
    }
}

/// Pairs of key and iterable of values, encoded, in buffers of about a megabyte.
fn entries(order: &[Bytes], values: &FxHashMap<Bytes, Vec<Bytes>>) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let mut out = Vec::new();
    for key in order {
        let values = values.get(key).map_or(&[][..], Vec::as_slice);
        out.extend_from_slice(key);
        out.extend_from_slice(&(values.len() as u32).to_be_bytes());
        values.iter().for_each(|value| out.extend_from_slice(value));
        if out.len() >= 1 << 20 {
            chunks.push(Bytes::from(std::mem::take(&mut out)));
        }
    }
    if !out.is_empty() {
        chunks.push(out.into());
    }
    chunks
}

/// Main-input elements that wait for a side input.
#[derive(Debug, Default)]
pub(crate) struct Blocked {
    by_windows: BTreeMap<Windows, Vec<(Vec<u8>, u64, Timestamp)>>,
}

impl Blocked {
    /// Adds an element; returns the timestamps to hold and to release.
    pub fn push(
        &mut self,
        windows: Windows,
        element: &[u8],
        timestamp: Timestamp,
    ) -> (Option<Timestamp>, Option<Timestamp>) {
        let runs = self.by_windows.entry(windows).or_default();
        match runs.last_mut().filter(|run| run.0.len() < 1 << 20) {
            Some((data, count, min)) => {
                data.extend_from_slice(element);
                *count += 1;
                if timestamp < *min {
                    let old = std::mem::replace(min, timestamp);
                    return (Some(timestamp), Some(old));
                }
                (None, None)
            }
            None => {
                runs.push((element.to_vec(), 1, timestamp));
                (Some(timestamp), None)
            }
        }
    }

    /// Takes out what is ready.
    pub fn release(&mut self, mut ready: impl FnMut(&Windows) -> bool) -> Vec<Chunk> {
        let mut released = Vec::new();
        self.by_windows.retain(|windows, runs| {
            let go = ready(windows);
            if go {
                let chunks = std::mem::take(runs).into_iter();
                released.extend(chunks.map(|(data, count, min_timestamp)| Chunk {
                    data: data.into(),
                    count,
                    min_timestamp,
                }));
            }
            !go
        });
        released
    }

    pub fn is_empty(&self) -> bool {
        self.by_windows.is_empty()
    }
}
