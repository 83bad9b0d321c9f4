//! The store.

use std::path::{Path, PathBuf};

use purlin_artifacts::is_hash;

use crate::error::StoreError;
use crate::folder::Folder;
use crate::kind::{Input, Kind, inspect};
use crate::name::{LATEST, ModelName, compare};
use crate::place::{Added, Place};
use crate::record::{Record, measure};

/// A store of models, in a folder or an object store. Many programs may use it at a time.
///
/// ```
/// use purlin_models::ModelStore;
///
/// # let folder = tempfile::tempdir()?;
/// # let model = folder.path().join("model.txt");
/// # std::fs::write(&model, "tree\nmax_feature_idx=3\nend of trees\n")?;
/// # let url = folder.path().join("models").display().to_string();
/// let store = ModelStore::open(&url)?;
/// store.add("prices", None, &model, &[])?;
/// let found = store.resolve("prices:latest")?;
/// assert_eq!((found.version.as_str(), found.kind.name()), ("1", "lightgbm"));
/// assert_eq!(found.inputs[0].to_string(), "features:FP64[-1,4]");
/// assert!(found.path.is_file());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ModelStore {
    url: String,
    place: Box<dyn Place>,
    cache: PathBuf,
}

impl std::fmt::Debug for ModelStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ModelStore({})", self.url)
    }
}

/// A model of a store whose file is on this machine and is what was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredModel {
    /// Its file, for any handler that takes a path.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The file's SHA-256, in 64 hexadecimal digits.
    pub sha256: String,
    /// Its kind.
    pub kind: Kind,
    /// Its inputs; none where the file does not tell.
    pub inputs: Vec<Input>,
}

impl StoredModel {
    /// Checks that the model takes these inputs, in any order, and no others. Where a model's file does not tell its inputs, and
    /// none were told
    /// when it was added, nothing can be checked.
    ///
    /// # Errors
    /// When it takes others: what it takes, and what was expected.
    pub fn expect_inputs(&self, expected: &[Input]) -> Result<(), StoreError> {
        check_inputs(&format!("{}:{}", self.name, self.version), &self.inputs, expected)
    }
}

fn check_inputs(model: &str, found: &[Input], expected: &[Input]) -> Result<(), StoreError> {
    let fits = |one: &Input| expected.iter().any(|other| one.fits(other));
    if found.is_empty() || (found.len() == expected.len() && found.iter().all(fits)) {
        return Ok(());
    }
    Err(StoreError::Inputs {
        model: model.to_owned(),
        found: list(found.iter()),
        expected: list(expected.iter()),
    })
}

fn list<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    match items.is_empty() {
        true => "none".to_owned(),
        false => items.join(", "),
    }
}

impl ModelStore {
    /// The store in this folder, or at a URL such as `s3://bucket/models` (with the feature `object-store`). It need not be there
    /// yet.
    ///
    /// Models of an object store are copied to a folder of this machine: `PURLIN_MODEL_CACHE`, or `purlin/models` in the user's
    /// folder for
    /// caches.
    ///
    /// # Errors
    /// When the URL cannot be used.
    pub fn open(url: &str) -> Result<ModelStore, StoreError> {
        let wrong = |reason: &str| StoreError::Url {
            url: url.to_owned(),
            reason: reason.to_owned(),
        };
        let place: Box<dyn Place> = match url.split_once("://") {
            None if url.is_empty() => {
                return Err(wrong("name a folder, or a URL such as s3://bucket/models"));
            }
            None => Box::new(Folder::new(PathBuf::from(url))),
            Some(("file", path)) => Box::new(Folder::new(PathBuf::from(path))),
            #[cfg(feature = "object-store")]
            Some(_) => Box::new(crate::objects::Objects::open(url)?),
            #[cfg(not(feature = "object-store"))]
            Some(_) => {
                return Err(wrong(
                    "object stores need the feature object-store of purlin-models: build with --features object-store",
                ));
            }
        };
        Ok(ModelStore {
            url: url.to_owned(),
            place,
            cache: cache_folder(),
        })
    }

    /// Copies models of an object store to this folder.
    #[must_use]
    pub fn with_cache(mut self, folder: impl AsRef<Path>) -> ModelStore {
        self.cache = folder.as_ref().to_owned();
        self
    }

    /// All models: for each name its versions, the newest last.
    ///
    /// # Errors
    /// When the store cannot be read, or a record in it is broken.
    pub fn list(&self) -> Result<Vec<Record>, StoreError> {
        let mut names = self.place.names()?;
        names.sort();
        let mut records = Vec::new();
        for name in names {
            for version in self.versions(&name)? {
                // One that was removed meanwhile is not there.
                records.extend(self.record(&name, &version)?);
            }
        }
        Ok(records)
    }

    fn versions(&self, name: &str) -> Result<Vec<String>, StoreError> {
        let mut versions = self.place.versions(name)?;
        versions.sort_by(|one, other| compare(one, other).then_with(|| one.cmp(other)));
        Ok(versions)
    }

    fn record(&self, name: &str, version: &str) -> Result<Option<Record>, StoreError> {
        let Some((path, bytes)) = self.place.record(name, version)? else {
            return Ok(None);
        };
        let wrong = |reason: String| StoreError::Record {
            path: path.clone(),
            reason,
        };
        let record: Record = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if record.name != name || record.version != version {
            return Err(wrong(format!("it is that of {}:{}", record.name, record.version)));
        }
        if !is_file_name(&record.file) || !is_hash(&record.sha256) {
            return Err(wrong("its file or its sha256 is none".to_owned()));
        }
        Ok(Some(record))
    }

    /// The record of a model.
    ///
    /// # Errors
    /// When there is no such model: which there are.
    pub fn find(&self, model: &str) -> Result<Record, StoreError> {
        let ModelName { name, version } = model.parse()?;
        let versions = self.versions(&name)?;
        if versions.is_empty() {
            let mut known = self.place.names()?;
            known.sort();
            return Err(StoreError::NoModel {
                store: self.url.clone(),
                name,
                known: list(known.iter()),
            });
        }
        let wanted = version.as_ref().or(versions.last());
        let found = wanted.map(|wanted| self.record(&name, wanted)).transpose()?;
        found.flatten().ok_or_else(|| StoreError::NoVersion {
            store: self.url.clone(),
            name,
            version: version.unwrap_or_else(|| LATEST.to_owned()),
            known: list(versions.iter()),
        })
    }

    /// A model by `NAME:VERSION`, `NAME:latest` or `NAME`, with its file on this machine, checked against its hash.
    ///
    /// # Errors
    /// When there is no such model, or its file is not what was added.
    pub fn resolve(&self, model: &str) -> Result<StoredModel, StoreError> {
        let record = self.find(model)?;
        let path = self.checked(&record)?;
        Ok(StoredModel {
            path,
            name: record.name,
            version: record.version,
            sha256: record.sha256,
            kind: record.kind,
            inputs: record.inputs,
        })
    }

    /// Checks that a model's file is what was added, and still a model that can be used.
    ///
    /// # Errors
    /// When it is not: what is wrong.
    pub fn verify(&self, model: &str) -> Result<Record, StoreError> {
        let record = self.find(model)?;
        let path = self.checked(&record)?;
        inspect(&path).map_err(|reason| StoreError::Bad {
            path: path.display().to_string(),
            reason,
        })?;
        Ok(record)
    }

    fn checked(&self, record: &Record) -> Result<PathBuf, StoreError> {
        let (path, shown) = self.place.local(record, &self.cache)?;
        let changed = |found: String| StoreError::Changed {
            model: format!("{}:{}", record.name, record.version),
            store: self.url.clone(),
            path: shown.clone(),
            found,
            expected: format!("{} bytes with the SHA-256 {}", record.bytes, record.sha256),
        };
        match measure(&path) {
            Ok((_, sha256)) if sha256 == record.sha256 => Ok(path),
            Ok((bytes, sha256)) => Err(changed(format!("{bytes} bytes with the SHA-256 {sha256}"))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(changed("been removed".to_owned()))
            }
            Err(error) => Err(StoreError::files("read", &path)(error)),
        }
    }

    /// Adds a model file under a name. The version is the next whole number, unless told. Its inputs are those that the file
    /// tells; where it
    /// tells none, those that are expected are written down for it.
    ///
    /// Versions never change, and appear all at once: who resolves the newest version meanwhile gets the one before or this one.
    ///
    /// # Errors
    /// When the file is no model that can be used, takes other inputs than are expected, or the version is there already.
    pub fn add(
        &self,
        name: &str,
        version: Option<&str>,
        file: &Path,
        expected: &[Input],
    ) -> Result<Record, StoreError> {
        check_name(name, version)?;
        let inspected = inspect(file).map_err(|reason| StoreError::Bad {
            path: file.display().to_string(),
            reason,
        })?;
        if !expected.is_empty() {
            check_inputs(&file.display().to_string(), &inspected.inputs, expected)?;
        }
        let (bytes, sha256) = measure(file).map_err(StoreError::files("read", file))?;
        let inputs = match inspected.inputs.is_empty() {
            true => expected.to_vec(),
            false => inspected.inputs,
        };
        let mut record = Record {
            name: name.to_owned(),
            version: String::new(),
            file: file_name(file),
            bytes,
            sha256,
            kind: inspected.kind,
            inputs,
        };
        loop {
            record.version = match version {
                Some(version) => version.to_owned(),
                None => self.next_version(name)?,
            };
            match (self.place.add(&record, file)?, version) {
                (Added::Done, _) => return Ok(record),
                // Another was faster: the next number is free, maybe.
                (Added::Exists, None) => {}
                (Added::Exists, Some(_)) => {
                    return Err(StoreError::Exists {
                        store: self.url.clone(),
                        name: record.name,
                        version: record.version,
                    });
                }
            }
        }
    }

    fn next_version(&self, name: &str) -> Result<String, StoreError> {
        let versions = self.versions(name)?;
        let numbers = versions.iter().filter_map(|version| version.parse::<u64>().ok());
        Ok(numbers.max().unwrap_or(0).saturating_add(1).to_string())
    }

    /// Removes a version of a model, which has to be named.
    ///
    /// # Errors
    /// When there is no such version, or none is named.
    pub fn remove(&self, model: &str) -> Result<(), StoreError> {
        let asked: ModelName = model.parse()?;
        let Some(version) = asked.version else {
            return Err(StoreError::Url {
                url: model.to_owned(),
                reason: "name the version that is to be removed: NAME:VERSION".to_owned(),
            });
        };
        if self.place.remove(&asked.name, &version)? {
            return Ok(());
        }
        // The error says what there is.
        self.find(&format!("{}:{version}", asked.name)).map(drop)?;
        Ok(())
    }
}

fn check_name(name: &str, version: Option<&str>) -> Result<(), StoreError> {
    let text = format!("{name}:{}", version.unwrap_or(LATEST));
    let read: ModelName = text.parse()?;
    match (read.version, version) {
        (None, Some(_)) => Err(StoreError::Url {
            url: text,
            reason: "latest is the newest version, whichever that is: give another".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The name that a file has in the store.
fn file_name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let safe: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    match is_file_name(&safe) {
        true => safe,
        false => format!("model-{safe}").chars().take(100).collect(),
    }
}

fn is_file_name(name: &str) -> bool {
    crate::name::is_safe(name) && name != crate::place::RECORD
}

fn cache_folder() -> PathBuf {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("PURLIN_MODEL_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("purlin/models")))
        .or_else(|| Some(variable("HOME")?.join(".cache/purlin/models")))
        .unwrap_or_else(|| std::env::temp_dir().join("purlin-models"))
}
