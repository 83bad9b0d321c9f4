//! What an `ArtifactInformation` says, read once and checked.

use std::fmt;

use bytes::Bytes;
use prost::Message;
use purlin_proto::pipeline::{
    ArtifactFilePayload, ArtifactInformation, ArtifactStagingToRolePayload, ArtifactUrlPayload,
    EmbeddedFilePayload, MavenPayload, PyPiPayload,
};
use purlin_proto::urns::{artifact_roles, artifact_types};

use crate::name::{UnsafeName, check_name};

/// Role of the program that the Rust SDK stages: it is the SDK harness. Its payload is that of a file with a name.
pub const WORKER_BINARY_ROLE: &str = "purlin:artifact:role:rust_worker_binary:v1";

/// Why an artifact cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribeError {
    /// Its name is not one that a worker may write.
    #[error(transparent)]
    UnsafeName(#[from] UnsafeName),
    /// A part of it cannot be read.
    #[error("artifact of type {type_urn:?}: its {part} is no valid message: {reason}")]
    Malformed {
        /// Type of the artifact.
        type_urn: String,
        /// Which part: the type payload or the role payload.
        part: &'static str,
        /// Why.
        reason: String,
    },
}

/// Where an artifact comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file of whoever gave the artifact.
    File {
        /// Its path there.
        path: String,
        /// Its hash in lower case; empty if it is not known.
        sha256: String,
    },
    /// A file of a web server.
    Url {
        /// Where.
        url: String,
        /// Its hash in lower case; empty if it is not known.
        sha256: String,
    },
    /// It is here.
    Embedded(Bytes),
    /// Workers get it from an index of packages.
    Package(Package),
    /// Of a type that only its giver knows, such as a deferred one.
    Other(String),
}

/// A package of an index. It is no file: workers install it themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Package {
    /// Of the Python Package Index.
    Python {
        /// Its name.
        name: String,
        /// Its version; empty for any.
        version: String,
    },
    /// Of a Maven repository.
    Java {
        /// Group, name and version, with colons between.
        artifact: String,
        /// Where; empty for Maven Central.
        repository: String,
    },
}

impl Package {
    /// As pip takes it, if it is a Python package.
    pub fn pip(&self) -> Option<String> {
        match self {
            Package::Python { name, version } if version.is_empty() => Some(name.clone()),
            Package::Python { name, version } => Some(format!("{name}=={version}")),
            Package::Java { .. } => None,
        }
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Package::Python { name, version } if version.is_empty() => write!(f, "Python package {name}"),
            Package::Python { name, version } => write!(f, "Python package {name}=={version}"),
            Package::Java { artifact, repository } => {
                let repository = match repository.as_str() {
                    "" => "Maven Central",
                    url => url,
                };
                write!(f, "Java package {artifact} of {repository}")
            }
        }
    }
}

/// What an artifact says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The name under which workers find it, if its role gives it one: a plain relative path.
    pub staged_name: Option<String>,
    /// Where it comes from.
    pub source: Source,
    /// Whether it is the program that runs the worker.
    pub is_program: bool,
}

impl Described {
    /// Reads an artifact. A role that gives it a name must give it one that stays below a worker's folder.
    pub fn read(artifact: &ArtifactInformation) -> Result<Self, DescribeError> {
        let is_program = artifact.role_urn == WORKER_BINARY_ROLE;
        let staged_name = if is_program || artifact.role_urn == artifact_roles::STAGING_TO {
            let role: ArtifactStagingToRolePayload =
                decode(artifact, &artifact.role_payload, "role payload")?;
            check_name(&role.staged_name)?;
            Some(role.staged_name)
        } else {
            None
        };
        Ok(Self {
            staged_name,
            source: Source::read(artifact)?,
            is_program,
        })
    }

    /// Its hash in lower case; empty if it is not known.
    pub fn sha256(&self) -> &str {
        match &self.source {
            Source::File { sha256, .. } | Source::Url { sha256, .. } => sha256,
            Source::Embedded(_) | Source::Package(_) | Source::Other(_) => "",
        }
    }

    /// The name under which a worker finds it: that of its role, or else the last part of where it comes from.
    pub fn file_name(&self) -> Result<String, UnsafeName> {
        if let Some(name) = &self.staged_name {
            return Ok(name.clone());
        }
        let path = match &self.source {
            Source::File { path, .. } => path,
            Source::Url { url, .. } => url,
            Source::Embedded(_) | Source::Package(_) | Source::Other(_) => "",
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        check_name(name).map(|()| name.to_owned())
    }
}

/// What it is called in messages. It is no name for a file.
impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.staged_name, &self.source) {
            (Some(name), _) => f.write_str(name),
            (None, Source::File { path, .. }) => f.write_str(path),
            (None, Source::Url { url, .. }) => f.write_str(url),
            (None, Source::Package(package)) => write!(f, "{package}"),
            (None, Source::Embedded(_)) => f.write_str(artifact_types::EMBEDDED),
            (None, Source::Other(urn)) => f.write_str(urn),
        }
    }
}

impl Source {
    fn read(artifact: &ArtifactInformation) -> Result<Self, DescribeError> {
        let payload = &artifact.type_payload;
        let part = "type payload";
        Ok(match artifact.type_urn.as_str() {
            artifact_types::FILE => {
                let file: ArtifactFilePayload = decode(artifact, payload, part)?;
                let sha256 = file.sha256.to_lowercase();
                Source::File {
                    path: file.path,
                    sha256,
                }
            }
            artifact_types::URL => {
                let url: ArtifactUrlPayload = decode(artifact, payload, part)?;
                let sha256 = url.sha256.to_lowercase();
                Source::Url { url: url.url, sha256 }
            }
            artifact_types::EMBEDDED => {
                let file: EmbeddedFilePayload = decode(artifact, payload, part)?;
                Source::Embedded(file.data)
            }
            artifact_types::PYPI => {
                let package: PyPiPayload = decode(artifact, payload, part)?;
                Source::Package(Package::Python {
                    name: package.artifact_id,
                    version: package.version,
                })
            }
            artifact_types::MAVEN => {
                let package: MavenPayload = decode(artifact, payload, part)?;
                Source::Package(Package::Java {
                    artifact: package.artifact,
                    repository: package.repository_url,
                })
            }
            other => Source::Other(other.to_owned()),
        })
    }
}

fn decode<T: Message + Default>(
    artifact: &ArtifactInformation,
    payload: &Bytes,
    part: &'static str,
) -> Result<T, DescribeError> {
    T::decode(payload.clone()).map_err(|error| DescribeError::Malformed {
        type_urn: artifact.type_urn.clone(),
        part,
        reason: error.to_string(),
    })
}

/// A file that workers find under a name.
pub fn file(path: &str, sha256: &str, staged_name: &str) -> ArtifactInformation {
    let role = ArtifactStagingToRolePayload {
        staged_name: staged_name.to_owned(),
    };
    let payload = ArtifactFilePayload {
        path: path.to_owned(),
        sha256: sha256.to_owned(),
    };
    ArtifactInformation {
        type_urn: artifact_types::FILE.to_owned(),
        type_payload: payload.encode_to_vec().into(),
        role_urn: artifact_roles::STAGING_TO.to_owned(),
        role_payload: role.encode_to_vec().into(),
    }
}

/// The program that runs a Rust pipeline's workers.
pub fn worker_binary(path: &str, sha256: &str, staged_name: &str) -> ArtifactInformation {
    ArtifactInformation {
        role_urn: WORKER_BINARY_ROLE.to_owned(),
        ..file(path, sha256, staged_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(type_urn: &str, payload: impl Message) -> ArtifactInformation {
        ArtifactInformation {
            type_urn: type_urn.to_owned(),
            type_payload: payload.encode_to_vec().into(),
            ..Default::default()
        }
    }

    #[test]
    fn artifacts_are_read_as_they_were_written() {
        let jar = Described::read(&file("/a/b.jar", "00FF", "lib/b.jar")).unwrap();
        assert_eq!((jar.sha256(), jar.is_program), ("00ff", false));
        assert_eq!(jar.file_name().unwrap(), "lib/b.jar");
        let program = Described::read(&worker_binary("/a/b", "", "worker")).unwrap();
        assert!(program.is_program && program.sha256().is_empty());
        assert_eq!(program.to_string(), "worker");
    }

    #[test]
    fn a_file_without_a_name_is_named_by_where_it_comes_from() {
        let url = ArtifactUrlPayload {
            url: "http://x/y/z.whl".into(),
            sha256: String::new(),
        };
        let url = Described::read(&of(artifact_types::URL, url)).unwrap();
        assert_eq!(url.file_name().unwrap(), "z.whl");
        assert_eq!(url.to_string(), "http://x/y/z.whl");
        let up = ArtifactFilePayload {
            path: "/a/..".into(),
            sha256: String::new(),
        };
        let up = Described::read(&of(artifact_types::FILE, up)).unwrap();
        assert!(up.file_name().is_err());
        let deferred = Described::read(&of("deferred", ())).unwrap();
        assert_eq!(deferred.source, Source::Other("deferred".into()));
        assert!(deferred.file_name().is_err());
    }

    #[test]
    fn packages_are_told_as_their_installers_take_them() {
        let package = |version: &str| {
            let payload = PyPiPayload {
                artifact_id: "numpy".into(),
                version: version.into(),
            };
            let described = Described::read(&of(artifact_types::PYPI, payload)).unwrap();
            match described.source {
                Source::Package(package) => package,
                other => panic!("{other:?} is no package"),
            }
        };
        assert_eq!(package("2.1").pip().unwrap(), "numpy==2.1");
        assert_eq!(package("").pip().unwrap(), "numpy");
        assert_eq!(package("2.1").to_string(), "Python package numpy==2.1");
        let java = MavenPayload {
            artifact: "a:b:1".into(),
            repository_url: String::new(),
        };
        let java = Described::read(&of(artifact_types::MAVEN, java)).unwrap();
        assert_eq!(java.to_string(), "Java package a:b:1 of Maven Central");
    }

    #[test]
    fn unsafe_names_and_broken_payloads_are_errors() {
        for bad in ["", "/etc/passwd", "../x"] {
            let error = Described::read(&file("/x", "", bad)).unwrap_err();
            assert!(matches!(error, DescribeError::UnsafeName(_)), "{bad}: {error}");
        }
        let broken = ArtifactInformation {
            type_payload: Bytes::from_static(b"\xff"),
            ..file("/x", "", "x")
        };
        let error = Described::read(&broken).unwrap_err().to_string();
        assert!(
            error.contains("type payload") && error.contains(artifact_types::FILE),
            "{error}"
        );
    }
}
