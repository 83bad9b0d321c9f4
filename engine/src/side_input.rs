//! Side inputs: what has arrived of them, by window, and whether a main-input window can be processed.
//!
//! A window of a grouping can fire several times. The latest firing of a key replaces what earlier ones of that key gave:
//! see [`SideView::note_firing`].

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use bytes::Bytes;
use purlin_model::{Coder, DecodeError, PaneInfo, Timestamp, Timing, WalkedElement, Window, Windows, expiry};
use rustc_hash::FxHasher;
use typed_index_collections::TiSlice;

use crate::hash::FxHashSet;

use crate::chunk::{Chunk, ChunkError, CollectionFormat};
use crate::event::SideInputPart;
use crate::graph::{
    Collection, CollectionId, Graph, SideInput, SideInputAccess, TransformId, TransformKind, WindowFn,
    WindowMapping, Windowing,
};
use crate::side_content::ByKey;
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
    /// Whether a window may have fired before it expires: what has come of it by its end is then taken for its on-time pane.
    fires_open: bool,
    allowed_lateness_ms: i64,
    format: CollectionFormat,
    /// Changes with the contents.
    pub token: u64,
    pub changed: bool,
    windows: BTreeMap<Window, Contents>,
    /// Where a later firing may replace an earlier one: by window, which keys of the grouping have fired.
    fired: Option<BTreeMap<Window, FiredKeys>>,
    mapped: BTreeMap<Window, Window>,
    asked: BTreeSet<Window>,
    /// Main windows that the SDK is to map.
    pub to_ask: Vec<Window>,
}

#[derive(Debug)]
enum Contents {
    /// Of an iterable whose windows fire once.
    Iterable(Vec<Bytes>),
    /// Of a multimap, and of an iterable whose windows may fire again.
    ByKey(ByKey),
}

/// The keys of a grouping that have fired a window.
#[derive(Debug)]
struct FiredKeys {
    hashes: FxHashSet<u64>,
    /// They are the one key that stands for none.
    no_key: bool,
}

/// Whether a key stands for none: SDKs combine a whole collection as the values of one such key. It is encoded as nothing
/// (Java's `Void`), as an empty byte string (Rust's `()`) or, by a coder that only its SDK knows, as one zero byte (Python's
/// `None`, the fixed key of Go).
fn stands_for_no_key(coder: &Coder, key: &[u8]) -> bool {
    match coder {
        Coder::LengthPrefix(inner) if matches!(**inner, Coder::Bytes | Coder::Unknown { .. }) => {
            matches!(key, [0] | [1, 0])
        }
        Coder::Bytes => key == [0],
        _ => key.is_empty(),
    }
}

/// The GroupByKey whose panes the elements of a collection bear: the nearest one upstream, with the same windows all the
/// way. `None` where there is none, or more than one. `producers`: by collection, who makes it.
pub(crate) fn grouping_of(
    graph: &Graph,
    producers: &TiSlice<CollectionId, Option<TransformId>>,
    collection: CollectionId,
) -> Option<TransformId> {
    let window_fn = |id: CollectionId| &graph.collections[id].windowing.window_fn;
    let (mut found, mut seen, mut open) = (None, BTreeSet::new(), vec![collection]);
    while let Some(id) = open.pop() {
        if !seen.insert(id) || window_fn(id) != window_fn(collection) {
            continue;
        }
        let Some(producer) = producers[id] else {
            continue;
        };
        let transform = &graph.transforms[producer];
        match transform.kind {
            TransformKind::GroupByKey if found.is_some() => return None,
            TransformKind::GroupByKey => found = Some(producer),
            _ => open.extend(&transform.inputs),
        }
    }
    found
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
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
            window_fn,
            trigger,
            allowed_lateness_ms,
            ..
        } = &collection.windowing;
        let custom = matches!(window_fn, WindowFn::Custom(_));
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
            early: trigger.fires_early() && !collection.bounded && !scripted,
            // For the end of the global window nobody can wait.
            early_global: trigger.fires_early(),
            fires_open: trigger.fires_open(),
            allowed_lateness_ms: *allowed_lateness_ms,
            format: CollectionFormat::from(collection),
            token: 0,
            changed: true,
            windows: BTreeMap::new(),
            fired: None,
            mapped: BTreeMap::new(),
            asked: BTreeSet::new(),
            to_ask: Vec::new(),
        }
    }

    /// Windows may fire more than once: the grouping's firings are told by [`SideView::note_firing`].
    pub fn replaces(&mut self) {
        self.fired = Some(BTreeMap::new());
    }

    /// The grouping upstream fires a window of a key; the elements that come of it will bear the firing's pane.
    ///
    /// Where the key stands for none (a global combine) the firing replaces all that came of earlier ones. Of other keys,
    /// elements that still bear the key as theirs replace that key's earlier ones. Where they do not (a list of the values
    /// alone) nobody knows whose earlier ones they replace, and they are added.
    pub fn note_firing(&mut self, window: &Window, coder: &Coder, key: &[u8]) {
        let Some(fired) = &mut self.fired else { return };
        let no_key = stands_for_no_key(coder, key);
        let keys = fired.entry(window.clone()).or_insert_with(|| FiredKeys {
            hashes: FxHashSet::default(),
            no_key,
        });
        keys.no_key &= no_key;
        keys.hashes.insert(hash(key));
    }

    /// Takes elements in.
    pub fn ingest(&mut self, chunk: &Chunk) -> Result<(), ChunkError> {
        self.changed = true;
        match (self.access, &self.fired) {
            (SideInputAccess::Iterable, None) => self.ingest_iterable(chunk),
            _ => self.ingest_by_key(chunk),
        }
    }

    fn ingest_iterable(&mut self, chunk: &Chunk) -> Result<(), ChunkError> {
        let SideView { windows, format, .. } = self;
        let mut runs: BTreeMap<Window, Vec<u8>> = BTreeMap::new();
        let mut last: Option<(Window, Vec<u8>)> = None;
        for (index, element) in (0..).zip(format.walk(&chunk.data)) {
            let element = element.map_err(|source| format.error(index, chunk.data.len(), source))?;
            let value = &chunk.data[element.value()];
            // Elements of one window follow each other.
            if let (Windows::One(window), Some((open, run))) = (&element.windows, &mut last)
                && window == open
            {
                run.extend_from_slice(value);
                continue;
            }
            if let Some((window, run)) = last.take() {
                runs.entry(window).or_default().extend(run);
            }
            match &element.windows {
                Windows::One(window) => last = Some((window.clone(), value.to_vec())),
                Windows::Many(many) => {
                    many.iter()
                        .for_each(|w| runs.entry(w.clone()).or_default().extend_from_slice(value));
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

    fn ingest_by_key(&mut self, chunk: &Chunk) -> Result<(), ChunkError> {
        let format = self.format.clone();
        for (index, element) in (0..).zip(format.walk(&chunk.data)) {
            let error = |source| format.error(index, chunk.data.len(), source);
            let element = element.map_err(error)?;
            let whole = chunk.data.slice(element.value());
            let (key, value) = match self.access {
                SideInputAccess::Multimap => {
                    let (key, rest) = format.coder.split_kv(&whole).map_err(error)?;
                    (key, whole.slice(key.len()..key.len() + rest.len()))
                }
                // What is no pair has no key of its own.
                SideInputAccess::Iterable if format.coder.as_kv().is_none() => (&[][..], whole.clone()),
                SideInputAccess::Iterable => (format.coder.split_kv(&whole).map_err(error)?.0, whole.clone()),
            };
            self.add(&element, key, &value);
        }
        Ok(())
    }

    /// Adds an element to each of its windows, or replaces what it supersedes.
    fn add(&mut self, element: &WalkedElement, key: &[u8], value: &Bytes) {
        let PaneInfo { timing, index, .. } = element.pane;
        for window in element.windows.iter() {
            let contents = self
                .windows
                .entry(window.clone())
                .or_insert_with(|| Contents::ByKey(ByKey::default()));
            let Contents::ByKey(contents) = contents else {
                continue;
            };
            let fired = self.fired.as_ref().and_then(|fired| fired.get(window));
            // Go's SDK writes panes of no index where it has lost them.
            match fired.filter(|_| timing != Timing::Unknown && index >= 0) {
                None => contents.add(key, value.clone()),
                Some(keys) if keys.no_key => contents.replace_all(key, value.clone(), index),
                Some(keys) if keys.hashes.contains(&hash(key)) => contents.replace(key, value.clone(), index),
                Some(_) => contents.add_fired(key, value.clone(), index),
            }
        }
    }

    /// Whether a main-input window can be processed. Notes what the SDK must be asked.
    pub fn is_ready(&mut self, main: &Window, watermark: Timestamp) -> bool {
        if watermark == Timestamp::MAX {
            return true;
        }
        let window = match &self.mapping {
            WindowMapping::Standard => self.window_fn.side_input_window(main),
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
        // Where nothing has come, something late may still come for as long as that is allowed.
        watermark > expiry(&window, self.allowed_lateness_ms)
            || (self.windows.contains_key(&window)
                && (early || (self.fires_open && watermark > window.max_timestamp())))
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
            if let Some(fired) = &mut self.fired {
                fired.retain(|window, _| readable(window));
            }
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
        match (self.access, part) {
            (SideInputAccess::Multimap, SideInputPart::Iterable) => {
                return Err(mismatch("a multimap", "iterating"));
            }
            (SideInputAccess::Iterable, SideInputPart::MultimapValues(_)) => {
                return Err(mismatch("an iterable", "key"));
            }
            (SideInputAccess::Iterable, SideInputPart::MultimapKeys | SideInputPart::MultimapEntries) => {
                return Err(mismatch("an iterable", "its keys"));
            }
            _ => {}
        }
        Ok(match (self.windows.get(&window), part) {
            (None, _) => Vec::new(),
            (Some(Contents::Iterable(chunks)), _) => chunks.clone(),
            (Some(Contents::ByKey(contents)), SideInputPart::Iterable) => contents.all(),
            (Some(Contents::ByKey(contents)), SideInputPart::MultimapValues(key)) => {
                contents.of(key).cloned().collect()
            }
            (Some(Contents::ByKey(contents)), SideInputPart::MultimapKeys) => contents.keys().to_vec(),
            (Some(Contents::ByKey(contents)), SideInputPart::MultimapEntries) => contents.entries(),
        })
    }
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
                    let old = core::mem::replace(min, timestamp);
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
                let chunks = core::mem::take(runs).into_iter();
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

    /// The earliest timestamp; the end of time where there is no element.
    pub fn min_timestamp(&self) -> Timestamp {
        let runs = self.by_windows.values().flatten();
        runs.map(|(_, _, min)| *min).min().unwrap_or(Timestamp::MAX)
    }
}
