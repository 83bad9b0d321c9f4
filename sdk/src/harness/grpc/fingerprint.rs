//! Tells whether a worker built the pipeline that was launched.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use object::Object as _;
use prost::Message;
use purlin_proto::pipeline::{Components, PTransform, ParDoPayload, Pipeline};
use purlin_proto::urns::transforms;
use sha2::{Digest, Sha256};

/// One line per transform, in the order of construction: its name, and a hash of what it is.
pub(crate) fn fingerprint(pipeline: &Pipeline) -> Vec<String> {
    let nothing = Components::default();
    let components = pipeline.components.as_ref().unwrap_or(&nothing);
    let mut transforms: Vec<(&String, &PTransform)> = components.transforms.iter().collect();
    // Ids are numbered as transforms are applied.
    transforms.sort_by_key(|(id, _)| (id.len(), *id));
    transforms
        .into_iter()
        .map(|(_, t)| format!("{}={}", t.unique_name, hash(t, components)))
        .collect()
}

fn hash(transform: &PTransform, components: &Components) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    if let Some(spec) = &transform.spec {
        add(spec.urn.as_bytes());
        match ParDoPayload::decode(spec.payload.clone()) {
            // Its maps have no order.
            Ok(payload) if spec.urn == transforms::PAR_DO => {
                add(&payload.do_fn.map(|f| f.encode_to_vec()).unwrap_or_default());
                let keys = payload
                    .side_inputs
                    .into_keys()
                    .chain(payload.state_specs.into_keys());
                let mut keys: Vec<String> = keys.chain(payload.timer_family_specs.into_keys()).collect();
                keys.sort();
                keys.iter().for_each(|key| add(key.as_bytes()));
            }
            _ => add(&spec.payload),
        }
    }
    let ends = transform.inputs.iter().chain(&transform.outputs);
    let mut ends: Vec<_> = ends
        .map(|(tag, id)| {
            let collection = components.pcollections.get(id);
            let coder = collection
                .and_then(|c| components.coders.get(&c.coder_id))
                .map(Message::encode_to_vec);
            (
                tag,
                collection.map_or("", |c| c.unique_name.as_str()),
                coder.unwrap_or_default(),
            )
        })
        .collect();
    ends.sort();
    for (tag, name, coder) in ends {
        add(tag.as_bytes());
        add(name.as_bytes());
        add(&coder);
    }
    hash.finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// How a worker's pipeline differs from the launched one, if it does.
pub(super) fn difference(launched: &[String], here: &[String]) -> Option<String> {
    let name = |line: &str| line.rsplit_once('=').map_or(line, |(name, _)| name).to_owned();
    for (there, here) in launched.iter().zip(here) {
        if there == here {
            continue;
        }
        let (there, here) = (name(there), name(here));
        return Some(match there == here {
            true => format!("transform \"{there}\" is another one, or has other inputs, outputs or coders"),
            false => format!("where the launcher has transform \"{there}\", this worker has \"{here}\""),
        });
    }
    match (launched.get(here.len()), here.get(launched.len())) {
        (Some(missing), _) => Some(format!(
            "this worker's pipeline lacks transform \"{}\"",
            name(missing)
        )),
        (_, Some(extra)) => Some(format!(
            "this worker's pipeline has a transform \"{}\" more",
            name(extra)
        )),
        _ => None,
    }
}

/// What tells a build of a program from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BuildId {
    /// What the linker wrote into it (GNU's note), in hexadecimal digits. A copy without debug information has the same.
    Note(String),
    /// The SHA-256 of the file, where the linker wrote nothing.
    Hash(String),
}

impl BuildId {
    /// Of a program's file.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn of(program: &Path) -> io::Result<BuildId> {
        match note(&File::open(program)?) {
            Some(id) => Ok(BuildId::Note(
                id.iter().map(|byte| format!("{byte:02x}")).collect(),
            )),
            None => purlin_artifacts::hash_of(program).map(BuildId::Hash),
        }
    }

    /// The digits.
    pub(crate) fn text(&self) -> &str {
        match self {
            BuildId::Note(digits) | BuildId::Hash(digits) => digits,
        }
    }
}

fn note(file: &File) -> Option<Vec<u8>> {
    let file = object::ReadCache::new(BufReader::new(file));
    let elf = object::File::parse(&file).ok()?;
    let id = elf.build_id().ok()??;
    // A short one is a counter or a name, as some builds set it.
    (id.len() >= 16).then(|| id.to_vec())
}

/// Identifies the build of the running program.
pub(crate) fn build_id() -> io::Result<BuildId> {
    BuildId::of(&std::env::current_exe()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_first_transform_that_differs_is_named() {
        let of = |a: &str, b: &str| difference(&lines(a), &lines(b)).unwrap_or_default();
        assert_eq!(of("Read=1 Map=2", "Read=1 Map=2"), "");
        assert!(of("Read=1 Map=2 Write=3", "Read=1 Map=9 Write=8").contains("\"Map\" is another one"));
        assert!(
            of("Read=1 Map=2", "Read=1 Filter=2")
                .contains("launcher has transform \"Map\", this worker has \"Filter\"")
        );
        assert!(of("Read=1 Map=2", "Read=1").contains("lacks transform \"Map\""));
        assert!(of("Read=1", "Read=1 Map=2").contains("\"Map\" more"));
    }

    #[test]
    fn files_without_a_note_are_told_apart_by_what_is_in_them() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        let BuildId::Hash(hash) = BuildId::of(file.path()).unwrap() else {
            panic!("a text has no note");
        };
        assert!(hash.starts_with("ba7816bf") && hash.len() == 64, "{hash}");
    }
}
