//! The jar that runs a pipeline on Flink: Beam's runner, the pipeline, its options and its artifacts.
//!
//! | entry | holds |
//! |---|---|
//! | a manifest; all of Beam's job server for Flink, or, in the manifest, where that is on the cluster | Beam's runner |
//! | `BEAM-PIPELINE/pipeline-manifest.json` | which pipeline to run: `pipeline` |
//! | `BEAM-PIPELINE/pipeline/pipeline.json`, `pipeline-options.json` | the pipeline and its options, as JSON |
//! | `BEAM-PIPELINE/pipeline/artifacts/SHA256/NAME` | what workers need, from where Beam's runner hands it to them |

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use prost::Message as _;
use purlin_artifacts::{DescribeError, Described, Source};
use purlin_proto::pipeline::{ArtifactFilePayload, ArtifactInformation, Pipeline};
use tempfile::TempPath;
use tokio::runtime::Handle;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::json::{JsonError, to_json};
use crate::artifacts::Store;

/// What runs the pipeline in the jar.
pub(super) const ENTRY_CLASS: &str = "org.apache.beam.runners.flink.FlinkPipelineRunner";
const MANIFEST: &str = "META-INF/MANIFEST.MF";
/// What the job server's own is called in the jar. As long as the other name.
const OLD_MANIFEST: &str = "META-INF/ORIGINAL.MF";
const PIPELINES: &str = "BEAM-PIPELINE/pipeline-manifest.json";
const PIPELINE: &str = "BEAM-PIPELINE/pipeline/pipeline.json";
const OPTIONS: &str = "BEAM-PIPELINE/pipeline/pipeline-options.json";
const ARTIFACTS: &str = "BEAM-PIPELINE/pipeline/artifacts";
/// Where the job server says which Flink it holds.
const FLINK_VERSION: &str = ".flink-runtime.version.properties";
/// A line of a manifest has at most so many bytes.
const MANIFEST_LINE: usize = 70;

/// Why there is no jar.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JarError {
    /// No job server is known.
    #[error(
        "Beam's runner for Flink {version} is not on this machine: --flink_job_server_jar names no file, and {looked} holds no {name}; \
         `make setup-flink` fetches one, or download it from Maven Central (org.apache.beam:beam-runners-flink-{version}-job-server)"
    )]
    NoRunner {
        /// Of Flink, without the last number.
        version: String,
        /// Where it was looked for.
        looked: String,
        /// What the file would be called.
        name: String,
    },
    /// A runner for another Flink.
    #[error(
        "the cluster runs Flink {cluster}, and {jar} is Beam's runner for Flink {runner}, which does not run there; give \
         --flink_job_server_jar a beam-runners-flink-{cluster_minor}-job-server jar, or a folder of them"
    )]
    Version {
        /// Of the cluster.
        cluster: String,
        /// The same, without the last number.
        cluster_minor: String,
        /// Which file.
        jar: String,
        /// Of the Flink in it.
        runner: String,
    },
    /// A file that is no jar, or cannot be read.
    #[error("{path}: {error}; --flink_job_server_jar must be Beam's job server for Flink")]
    Runner {
        /// Which file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// An artifact that is not there.
    #[error("artifact {name} cannot be read: {error}")]
    Artifact {
        /// What it is called.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// An artifact that is not staged.
    #[error(
        "artifact {name} of type {urn} was not staged with the job, and Flink's workers could not fetch it; give files of this machine"
    )]
    NotStaged {
        /// What it is called.
        name: String,
        /// Its type.
        urn: String,
    },
    /// No room, mostly.
    #[error(
        "cannot write the job's jar in {folder}: {error}; is the disk full? TMPDIR names another folder for temporary files"
    )]
    Write {
        /// Where.
        folder: String,
        /// Why.
        error: io::Error,
    },
    /// An artifact that cannot be understood.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// A pipeline that cannot be written.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The task that wrote it.
    #[error("writing the job's jar failed; see the service's log")]
    Panicked,
}

/// What is said when nothing can be written in a folder.
pub(super) fn unwritable<E: Into<io::Error>>(folder: &Path) -> impl Fn(E) -> JarError {
    move |error| JarError::Write {
        folder: folder.display().to_string(),
        error: error.into(),
    }
}

/// Beam's runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Runner {
    /// A file of this machine, all of which goes into the jar.
    Here(PathBuf),
    /// A file of every machine of the cluster, by its path there.
    OnCluster(String),
}

/// A version without its last number: `1.19` of `1.19.3`.
fn minor(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// Beam's runner for a cluster: the file given, or of the folder given, or of that in which Beam's Python SDK keeps jars, the newest one
/// for this Flink. A runner for an older Flink of the same major version is taken with a warning: newer clusters mostly run it.
pub(super) fn find(given: Option<&Path>, version: &str) -> Result<PathBuf, JarError> {
    let wanted = minor(version);
    let name = format!("beam-runners-flink-{wanted}-job-server");
    let cache = std::env::home_dir().map(|home| home.join(".apache_beam/cache/jars"));
    let folder = match given {
        Some(path) if !path.is_dir() => return checked(path, version),
        Some(path) => Some(path.to_owned()),
        None => cache,
    };
    let files = folder
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten();
    let fitting = files.filter_map(Result::ok).filter(|file| {
        let file = file.file_name();
        file.to_str()
            .is_some_and(|file| file.starts_with(&name) && file.ends_with(".jar"))
    });
    let newest = fitting.map(|file| file.path()).max_by_key(|path| numbers(path));
    newest.ok_or_else(|| JarError::NoRunner {
        version: wanted,
        looked: folder.map_or_else(|| "the home folder".into(), |folder| folder.display().to_string()),
        name: format!("{name}-VERSION.jar"),
    })
}

/// The numbers in a file's name, by which versions are compared.
fn numbers(path: &Path) -> Vec<u32> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// A runner that is a file, unless it is for a Flink that the cluster does not run.
fn checked(path: &Path, cluster: &str) -> Result<PathBuf, JarError> {
    let Some(runner) = flink_of(path)? else {
        return Ok(path.to_owned());
    };
    let (has, wants) = (version_of(cluster), version_of(&runner));
    if has.0 != wants.0 || has.1 < wants.1 {
        return Err(JarError::Version {
            cluster: cluster.to_owned(),
            cluster_minor: minor(cluster),
            jar: path.display().to_string(),
            runner,
        });
    }
    if has.1 > wants.1 {
        tracing::warn!(
            "{} is Beam's runner for Flink {runner}, and the cluster runs {cluster}: it may not work",
            path.display()
        );
    }
    Ok(path.to_owned())
}

fn version_of(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// The version of the Flink that a job server holds; none if it does not say.
fn flink_of(path: &Path) -> Result<Option<String>, JarError> {
    let failed = |error: io::Error| JarError::Runner {
        path: path.display().to_string(),
        error,
    };
    let file = File::open(path).map_err(failed)?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| failed(error.into()))?;
    let Ok(mut entry) = archive.by_name(FLINK_VERSION) else {
        return Ok(None);
    };
    let mut text = String::new();
    entry.read_to_string(&mut text).map_err(failed)?;
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("project.version="));
    Ok(version.map(|version| version.trim().to_owned()))
}

/// Writes the jar of a job to a temporary file of a folder. What was staged goes in, and the pipeline in it names where. Takes long.
pub(super) fn write(
    runner: &Runner,
    mut pipeline: Pipeline,
    options: &prost_types::Struct,
    store: &Store,
    folder: &Path,
    runtime: &Handle,
) -> Result<TempPath, JarError> {
    let failed = unwritable::<io::Error>(folder);
    let (file, path) = tempfile::Builder::new()
        .prefix("flink-")
        .suffix(".jar")
        .tempfile_in(folder)
        .map_err(&failed)?
        .into_parts();
    let mut jar = Jar {
        zip: begin(runner, file, folder)?,
        folder,
        written: HashSet::new(),
    };
    jar.add(MANIFEST, manifest(runner).as_bytes())?;
    let environments = pipeline
        .components
        .iter_mut()
        .flat_map(|components| components.environments.values_mut());
    for dependency in environments.flat_map(|environment| &mut environment.dependencies) {
        jar.add_artifact(dependency, store, runtime)?;
    }
    jar.add(PIPELINES, br#"{"defaultJobName":"pipeline"}"#)?;
    jar.add(OPTIONS, &to_json(options)?)?;
    jar.add(PIPELINE, &to_json(&pipeline)?)?;
    let mut file = jar.zip.finish().map_err(unwritable(folder))?;
    file.flush().map_err(failed)?;
    Ok(path)
}

fn entry() -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(3))
}

/// The jar with what is in it for all pipelines, but for its manifest.
fn begin(runner: &Runner, mut file: File, folder: &Path) -> Result<ZipWriter<File>, JarError> {
    let Runner::Here(path) = runner else {
        return Ok(ZipWriter::new(file));
    };
    let failed = |error| JarError::Runner {
        path: path.display().to_string(),
        error,
    };
    let mut source = File::open(path).map_err(failed)?;
    io::copy(&mut source, &mut file).map_err(unwritable(folder))?;
    rename_manifest(&mut file).map_err(failed)?;
    file.rewind().map_err(unwritable(folder))?;
    ZipWriter::new_append(file).map_err(|error| failed(error.into()))
}

/// Gives the manifest of the job server, which starts that and no pipeline, another name, in its two places: the jar has its own.
fn rename_manifest(file: &mut File) -> io::Result<()> {
    // What is before the name there, by the format.
    const HEADER: u64 = 30;
    const CENTRAL_HEADER: u64 = 46;
    let places = {
        let mut archive = ZipArchive::new(BufReader::new(&*file))?;
        let Some(index) = archive.index_for_name(MANIFEST) else {
            return Ok(());
        };
        let entry = archive.by_index_raw(index)?;
        [
            entry.header_start() + HEADER,
            entry.central_header_start() + CENTRAL_HEADER,
        ]
    };
    for place in places {
        file.seek(SeekFrom::Start(place))?;
        file.write_all(OLD_MANIFEST.as_bytes())?;
    }
    Ok(())
}

/// The manifest, whose class path is Beam's runner if that is not in the jar.
fn manifest(runner: &Runner) -> String {
    let mut text = format!("Manifest-Version: 1.0\r\nMain-Class: {ENTRY_CLASS}\r\n");
    if let Runner::OnCluster(path) = runner {
        let url = if path.contains(":/") {
            path.to_owned()
        } else {
            format!("file:{path}")
        };
        add_line(&mut text, &format!("Class-Path: {}", url.replace(' ', "%20")));
    }
    text.push_str("\r\n");
    text
}

/// Adds a line to a manifest.
fn add_line(text: &mut String, line: &str) {
    // Longer lines go on in the next one, after a space.
    let mut room = MANIFEST_LINE;
    for c in line.chars() {
        if room < c.len_utf8() {
            text.push_str("\r\n ");
            room = MANIFEST_LINE - 1;
        }
        text.push(c);
        room -= c.len_utf8();
    }
    text.push_str("\r\n");
}

/// A jar that is being written.
struct Jar<'a> {
    zip: ZipWriter<File>,
    /// Where.
    folder: &'a Path,
    /// Names of the artifacts that are in it.
    written: HashSet<String>,
}

impl Jar<'_> {
    fn add(&mut self, name: &str, content: &[u8]) -> Result<(), JarError> {
        self.zip
            .start_file(name, entry())
            .map_err(unwritable(self.folder))?;
        self.zip.write_all(content).map_err(unwritable(self.folder))
    }

    /// Takes a staged artifact into the jar, if it is not there yet, and says in its place where it is.
    fn add_artifact(
        &mut self,
        artifact: &mut ArtifactInformation,
        store: &Store,
        runtime: &Handle,
    ) -> Result<(), JarError> {
        let described = Described::read(artifact)?;
        let name = described.to_string();
        let staged = match &described.source {
            Source::File { path, .. } => store.known(path),
            // Beam's runner hands these on, or workers get them themselves.
            Source::Url { .. } | Source::Embedded(_) | Source::Package(_) => return Ok(()),
            Source::Other(_) => None,
        };
        let Some(sha256) = staged else {
            return Err(JarError::NotStaged {
                name,
                urn: artifact.type_urn.clone(),
            });
        };
        let place = format!(
            "{ARTIFACTS}/{sha256}/{}",
            described.staged_name.as_deref().unwrap_or("file")
        );
        if self.written.insert(place.clone()) {
            let failed = |error| JarError::Artifact {
                name: name.clone(),
                error,
            };
            self.zip
                .start_file(&*place, entry().large_file(true))
                .map_err(unwritable(self.folder))?;
            let mut content = runtime.block_on(store.open(&sha256)).map_err(failed)?;
            while let Some(piece) = runtime.block_on(content.next()) {
                self.zip
                    .write_all(&piece.map_err(failed)?)
                    .map_err(unwritable(self.folder))?;
            }
        }
        artifact.type_payload = ArtifactFilePayload {
            path: format!("classpath://{place}"),
            sha256,
        }
        .encode_to_vec()
        .into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost_types::Struct;
    use purlin_proto::pipeline::{Components, Environment};

    use super::*;

    /// A jar with these entries.
    fn base(folder: &Path, name: &str, entries: &[(&str, &str)]) -> PathBuf {
        let path = folder.join(name);
        let mut jar = ZipWriter::new(File::create(&path).unwrap());
        for (name, content) in entries {
            jar.start_file(*name, entry()).unwrap();
            jar.write_all(content.as_bytes()).unwrap();
        }
        jar.finish().unwrap();
        path
    }

    fn content(jar: &Path, name: &str) -> String {
        let mut archive = ZipArchive::new(File::open(jar).unwrap()).unwrap();
        let mut text = String::new();
        archive.by_name(name).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    fn pipeline(artifact: ArtifactInformation) -> Pipeline {
        let environment = Environment {
            dependencies: vec![artifact.clone(), artifact],
            ..Default::default()
        };
        Pipeline {
            components: Some(Components {
                environments: [("e".to_owned(), environment)].into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn artifact(path: &str, sha256: &str) -> ArtifactInformation {
        purlin_artifacts::file(path, sha256, "lib/words.txt")
    }

    #[tokio::test]
    async fn a_jar_holds_the_runner_the_pipeline_and_what_was_staged() {
        let folder = tempfile::tempdir().unwrap();
        let store = std::sync::Arc::new(Store::new(None, true).await.unwrap());
        let mut incoming = store.begin("words.txt", "").await.unwrap();
        incoming.write(Bytes::from_static(b"a few words")).await.unwrap();
        let (path, sha256) = incoming.finish("job").await.unwrap();
        let starts_itself = "Main-Class: JobServer\r\n";
        let runner = base(
            folder.path(),
            "runner.jar",
            &[(MANIFEST, starts_itself), ("Runner.class", "class")],
        );
        for runner in [
            Runner::Here(runner),
            Runner::OnCluster("/opt/flink/usrlib/beam runner.jar".into()),
        ] {
            let (store, own, path) = (store.clone(), runner.clone(), path.clone());
            let write = move || {
                write(
                    &own,
                    pipeline(artifact(&path, "")),
                    &Struct::default(),
                    &store,
                    &std::env::temp_dir(),
                    &Handle::current(),
                )
                .unwrap()
            };
            let jar = tokio::task::spawn_blocking(write).await.unwrap();
            match runner {
                Runner::Here(_) => {
                    assert_eq!(content(&jar, "Runner.class"), "class");
                    assert_eq!(content(&jar, OLD_MANIFEST), starts_itself);
                }
                Runner::OnCluster(_) => assert!(
                    content(&jar, "META-INF/MANIFEST.MF")
                        .contains("Class-Path: file:/opt/flink/usrlib/beam%20runner.jar\r\n")
                ),
            }
            assert!(content(&jar, MANIFEST).contains(&format!("Main-Class: {ENTRY_CLASS}\r\n")));
            assert_eq!(content(&jar, PIPELINES), r#"{"defaultJobName":"pipeline"}"#);
            assert_eq!(content(&jar, OPTIONS), "{}");
            let place = format!("{ARTIFACTS}/{sha256}/lib/words.txt");
            assert_eq!(content(&jar, &place), "a few words");
            let written: serde_json::Value = serde_json::from_str(&content(&jar, PIPELINE)).unwrap();
            let dependencies = written["components"]["environments"]["e"]["dependencies"]
                .as_array()
                .unwrap();
            assert_eq!(dependencies.len(), 2);
            for dependency in dependencies {
                let kept = artifact(&format!("classpath://{place}"), &sha256);
                let kept = super::super::json::to_json(&pipeline(kept)).unwrap();
                let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
                assert_eq!(
                    *dependency,
                    kept["components"]["environments"]["e"]["dependencies"][0]
                );
            }
        }
    }

    #[tokio::test]
    async fn what_was_not_staged_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(None, true).await.unwrap();
        let runner = Runner::Here(base(folder.path(), "runner.jar", &[]));
        let write = move || {
            write(
                &runner,
                pipeline(artifact("/etc/passwd", "")),
                &Struct::default(),
                &store,
                &std::env::temp_dir(),
                &Handle::current(),
            )
        };
        let error = tokio::task::spawn_blocking(write).await.unwrap().unwrap_err();
        assert!(matches!(error, JarError::NotStaged { .. }), "{error}");
        assert!(error.to_string().contains("lib/words.txt"), "{error}");
    }

    #[test]
    fn a_runner_is_found_by_the_clusters_version() {
        let folder = tempfile::tempdir().unwrap();
        let of = |version: &str| format!("project.version={version}\n");
        for (flink, beam) in [("1.18", "2.60.0"), ("1.19", "2.9.0"), ("1.19", "2.62.0")] {
            base(
                folder.path(),
                &format!("beam-runners-flink-{flink}-job-server-{beam}.jar"),
                &[],
            );
        }
        let found = find(Some(folder.path()), "1.19.3").unwrap();
        assert_eq!(
            found.file_name().unwrap(),
            "beam-runners-flink-1.19-job-server-2.62.0.jar"
        );
        let missing = find(Some(folder.path()), "1.17.1").unwrap_err().to_string();
        assert!(
            missing.contains("beam-runners-flink-1.17-job-server"),
            "{missing}"
        );

        let jar = base(folder.path(), "runner.jar", &[(FLINK_VERSION, &of("1.19.0"))]);
        assert_eq!(find(Some(&jar), "1.19.3").unwrap(), jar);
        assert_eq!(find(Some(&jar), "1.20.5").unwrap(), jar);
        for other in ["1.17.2", "2.0.0"] {
            let error = find(Some(&jar), other).unwrap_err().to_string();
            assert!(error.contains(other) && error.contains("1.19.0"), "{error}");
        }
        let error = find(Some(&folder.path().join("none.jar")), "1.19.3")
            .unwrap_err()
            .to_string();
        assert!(error.contains("none.jar"), "{error}");
    }

    #[test]
    fn long_lines_of_a_manifest_go_on_in_the_next() {
        let text = manifest(&Runner::OnCluster(format!("/{}", "x".repeat(200))));
        assert!(text.lines().all(|line| line.len() <= 72), "{text}");
        let joined = text.replace("\r\n ", "");
        assert!(
            joined.contains(&format!("file:/{}\r\n", "x".repeat(200))),
            "{joined}"
        );
    }
}
