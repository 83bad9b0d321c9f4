//! The graph under construction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use purlin_model::CoderSpec;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::stage::Node;
use crate::windowing::{CustomFn, SdkWindowFn, Windowing};

/// Index of a PCollection in the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CollectionId(pub usize);

/// Index of a transform in the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TransformIndex(pub usize);

pub(crate) struct Transform {
    pub name: String,
    pub spec: Option<(String, Bytes)>,
    pub inputs: Vec<(String, CollectionId)>,
    pub outputs: Vec<(String, CollectionId)>,
    pub children: Vec<TransformIndex>,
    pub in_environment: bool,
    /// Annotations without a value.
    pub annotations: Vec<String>,
}

pub(crate) struct Collection {
    pub name: String,
    pub coder: CoderSpec,
    pub windowing: Windowing,
    pub bounded: bool,
}

/// Coders by their ids, each once.
#[derive(Default)]
pub(crate) struct CoderTable {
    ids: FxHashMap<CoderSpec, String>,
    pub specs: Vec<(String, CoderSpec)>,
}

impl CoderTable {
    pub fn id(&mut self, spec: &CoderSpec) -> String {
        if let Some(id) = self.ids.get(spec) {
            return id.clone();
        }
        for component in &spec.components {
            self.id(component);
        }
        let id = format!("c{}", self.specs.len());
        self.specs.push((id.clone(), spec.clone()));
        self.ids.insert(spec.clone(), id.clone());
        id
    }

    pub fn get(&self, spec: &CoderSpec) -> Option<&String> {
        self.ids.get(spec)
    }
}

/// What tidies up behind a run, in the process that launched it.
pub(crate) type AtEnd = Arc<dyn Fn() + Send + Sync>;

pub(crate) struct Graph {
    pub id: u64,
    /// The first is the root: it stands for the pipeline.
    pub transforms: Vec<Transform>,
    pub collections: Vec<Collection>,
    pub coders: CoderTable,
    pub problems: Vec<String>,
    pub nodes: FxHashMap<String, Arc<dyn Node>>,
    /// Window functions of the user's own, by name.
    pub window_fns: FxHashMap<String, CustomFn>,
    pub views: u64,
    /// To be called when a run has ended, however it did.
    pub at_end: Vec<AtEnd>,
    names: FxHashSet<String>,
    scopes: Vec<TransformIndex>,
}

const ROOT: TransformIndex = TransformIndex(0);

impl Graph {
    pub fn new() -> Graph {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Graph {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            transforms: vec![Transform::named(String::new())],
            collections: Vec::new(),
            coders: CoderTable::default(),
            problems: Vec::new(),
            nodes: FxHashMap::default(),
            window_fns: FxHashMap::default(),
            views: 0,
            at_end: Vec::new(),
            names: FxHashSet::default(),
            scopes: Vec::new(),
        }
    }

    fn current(&self) -> TransformIndex {
        self.scopes.last().copied().unwrap_or(ROOT)
    }

    fn current_mut(&mut self) -> &mut Transform {
        let at = self.current();
        &mut self.transforms[at.0]
    }

    pub fn current_name(&self) -> &str {
        &self.transforms[self.current().0].name
    }

    pub fn roots(&self) -> &[TransformIndex] {
        &self.transforms[ROOT.0].children
    }

    pub fn collection(&self, id: CollectionId) -> &Collection {
        &self.collections[id.0]
    }

    /// Opens a transform: what is added until [`Graph::leave`] is inside of it.
    pub fn enter(&mut self, name: &str, inputs: Vec<CollectionId>) -> TransformIndex {
        let parent = self.current_name();
        let name = if name.is_empty() { "Unnamed" } else { name };
        let full = if parent.is_empty() {
            name.to_owned()
        } else {
            format!("{parent}/{name}")
        };
        let mut unique = full.clone();
        let mut number = 2;
        while !self.names.insert(unique.clone()) {
            unique = format!("{full}_{number}");
            number += 1;
        }
        let index = TransformIndex(self.transforms.len());
        let mut transform = Transform::named(unique);
        transform.inputs = tagged("in", inputs);
        self.transforms.push(transform);
        self.current_mut().children.push(index);
        self.scopes.push(index);
        index
    }

    /// Closes a transform.
    pub fn leave(&mut self, transform: TransformIndex, outputs: Vec<CollectionId>) {
        while let Some(scope) = self.scopes.pop() {
            if scope == transform {
                break;
            }
        }
        let transform = &mut self.transforms[transform.0];
        // Outputs that the transform made itself are there already, under their own tags.
        if transform.outputs.is_empty() {
            transform.outputs = tagged("out", outputs);
        }
    }

    pub fn set_spec(&mut self, urn: &str, payload: Bytes) {
        self.current_mut().spec = Some((urn.to_owned(), payload));
    }

    pub fn annotate(&mut self, key: String) {
        self.current_mut().annotations.push(key);
    }

    pub fn in_environment(&mut self) {
        self.current_mut().in_environment = true;
    }

    pub fn add_input(&mut self, tag: &str, id: CollectionId) {
        self.current_mut().inputs.push((tag.to_owned(), id));
    }

    pub fn add_collection(
        &mut self,
        tag: &str,
        coder: CoderSpec,
        windowing: Windowing,
        bounded: bool,
    ) -> CollectionId {
        self.coders.id(&coder);
        self.coders.id(&windowing.window_fn.window_coder_spec());
        let id = CollectionId(self.collections.len());
        let name = format!("{}.{tag}", self.current_name());
        self.collections.push(Collection {
            name,
            coder,
            windowing,
            bounded,
        });
        self.current_mut().outputs.push((tag.to_owned(), id));
        id
    }

    /// Gives a collection that was just made another windowing strategy.
    pub fn rewindow(&mut self, id: CollectionId, windowing: Windowing) {
        self.coders.id(&windowing.window_fn.window_coder_spec());
        self.collections[id.0].windowing = windowing;
    }

    pub fn register(&mut self, node: Arc<dyn Node>) -> String {
        let path = self.current_name().to_owned();
        self.nodes.insert(path.clone(), node);
        path
    }
}

impl Transform {
    fn named(name: String) -> Transform {
        Transform {
            name,
            spec: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            children: Vec::new(),
            in_environment: false,
            annotations: Vec::new(),
        }
    }
}

fn tagged(tag: &str, ids: Vec<CollectionId>) -> Vec<(String, CollectionId)> {
    match ids[..] {
        [one] => vec![(tag.to_owned(), one)],
        _ => ids
            .into_iter()
            .enumerate()
            .map(|(i, id)| (format!("{tag}{i}"), id))
            .collect(),
    }
}
