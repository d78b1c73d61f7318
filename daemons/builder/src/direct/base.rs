//! The base image, as far as a layer on top of it needs it: its manifest, its configuration, and what it has on the way
//! to where the package goes.

use super::LeftToEngine;
use super::cache::Cache;
use super::dockerfile::Plan;
use crate::context::{Directory, Placed};
use crate::registry::{DOCKER_MANIFEST, OCI_MANIFEST, Registry, RegistryError};
use dinp_common::auth::hex;
use dinp_common::model::ImageRef;
use flate2::bufread::MultiGzDecoder;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use tokio_util::io::{StreamReader, SyncIoBridge};

/// Most bytes of a configuration; those of the largest images have some hundred thousand.
const LARGEST_CONFIG: usize = 8 << 20;

pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const OCI_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// What a manifest says of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct List {
    manifests: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    digest: String,
    #[serde(default)]
    platform: Platform,
}

#[derive(Debug, Default, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

/// A base image.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) repository: String,
    pub(crate) config: Map<String, Value>,
    /// Its layers, by the OCI's media types.
    pub(crate) layers: Vec<Descriptor>,
}

/// Why there is no base to build on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BaseError {
    #[error(transparent)]
    Left(#[from] LeftToEngine),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("read the base image")]
    Read(#[source] io::Error),
}

impl Base {
    /// Fetches the manifest of an image and its configuration.
    pub(crate) async fn fetch(registry: &Registry, image: &ImageRef) -> Result<Self, BaseError> {
        let repository = image.repository();
        let nonsense =
            |what: &str, error: serde_json::Error| registry.nonsense(format!("has {what} that is none: {error}"));
        let (mut kind, mut text) = registry.manifest(repository, image.reference()).await?;
        if kind != OCI_MANIFEST && kind != DOCKER_MANIFEST {
            let list: List = serde_json::from_slice(&text).map_err(|error| nonsense("a list of manifests", error))?;
            let own = list.manifests.iter().find(|listed| listed.platform.is_own());
            let own = own.ok_or_else(|| LeftToEngine::new("the base is not for this machine"))?;
            (kind, text) = registry.manifest(repository, &own.digest).await?;
        }
        if kind != OCI_MANIFEST && kind != DOCKER_MANIFEST {
            return Err(LeftToEngine::new(format!("the base is a {kind}")).into());
        }
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| nonsense("a manifest", error))?;
        let layers = manifest.layers.into_iter().map(of_oci).collect::<Result<_, _>>()?;
        let config = read_blob(registry, repository, &manifest.config.digest).await?;
        let config: Map<String, Value> =
            serde_json::from_slice(&config).map_err(|error| nonsense("a configuration", error))?;
        let on_build = config.get("config").and_then(|config| config.get("OnBuild")).and_then(Value::as_array);
        if on_build.is_some_and(|instructions| !instructions.is_empty()) {
            return Err(LeftToEngine::new("the base has instructions of its own (ONBUILD)").into());
        }
        Ok(Self { repository: repository.to_owned(), config, layers })
    }

    /// Where a plan puts the package, on what the base has there.
    pub(crate) async fn place(&self, registry: &Registry, plan: &Plan, cache: &Cache) -> Result<Placed, BaseError> {
        let directory = plan.destination.trim_start_matches('/').to_owned();
        let digests: Vec<&str> = self.layers.iter().map(|layer| layer.digest.as_str()).collect();
        let key = format!("{} {directory} {}", digests.join(" "), plan.workdirs.join(" "));
        let ways = match cache.get::<Ways>("base", &key) {
            Some(known) => known,
            None => {
                let wanted = plan.workdirs.iter().map(|path| path.trim_start_matches('/').to_owned());
                let mut ways = Ways::to(wanted.chain([directory.clone()]), &directory);
                for layer in &self.layers {
                    ways = self.look(registry, layer, ways).await?;
                }
                cache.put("base", &key, &ways);
                ways
            }
        };
        let way = ways.to_there(&directory)?;
        for workdir in &plan.workdirs {
            let workdir = workdir.trim_start_matches('/');
            if !is_on_the_way(workdir, &directory) && !ways.has(workdir) {
                return Err(LeftToEngine::new(format!("the base has no directory /{workdir}")).into());
            }
        }
        Ok(Placed { directory, way })
    }

    async fn look(&self, registry: &Registry, layer: &Descriptor, mut ways: Ways) -> Result<Ways, BaseError> {
        let content = registry.blob(&self.repository, &layer.digest).await?.bytes_stream().map_err(io::Error::other);
        let content = BufReader::with_capacity(256 << 10, SyncIoBridge::new(StreamReader::new(content)));
        let is_packed = layer.media_type == OCI_GZIP;
        let looked = tokio::task::spawn_blocking(move || {
            if is_packed { ways.read(MultiGzDecoder::new(content)) } else { ways.read(content) }.map(|()| ways)
        });
        looked.await.unwrap_or_else(|error| Err(error.into())).map_err(BaseError::Read)
    }
}

impl Platform {
    fn is_own(&self) -> bool {
        let own = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        self.os == "linux" && self.architecture == own
    }
}

/// The same blob under the OCI's media type.
fn of_oci(layer: Descriptor) -> Result<Descriptor, LeftToEngine> {
    let media_type = match layer.media_type.as_str() {
        OCI_GZIP | DOCKER_GZIP => OCI_GZIP,
        OCI_TAR => OCI_TAR,
        other => return Err(LeftToEngine::new(format!("a layer of the base is a {other}"))),
    };
    Ok(Descriptor { media_type: media_type.to_owned(), ..layer })
}

/// A small blob, whole and as its digest says.
async fn read_blob(registry: &Registry, repository: &str, digest: &str) -> Result<Vec<u8>, RegistryError> {
    let mut answer = registry.blob(repository, digest).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|source| registry.away(source))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LARGEST_CONFIG {
            return Err(registry.nonsense(format!("has a configuration of more than {LARGEST_CONFIG} bytes")));
        }
    }
    if format!("sha256:{}", hex(&Sha256::digest(&bytes))) != digest {
        return Err(registry.nonsense(format!("gives something else for {digest}")));
    }
    Ok(bytes)
}

/// What a base has at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Part {
    Nothing,
    Directory(Directory),
    Other,
}

/// What a base has on the ways to some directories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ways {
    /// What there is, by path.
    parts: BTreeMap<String, Part>,
    /// The directory that must be empty.
    directory: String,
    /// Why a layer by itself would not be what the Engine makes.
    trouble: Option<String>,
}

impl Ways {
    fn to(directories: impl Iterator<Item = String>, directory: &str) -> Self {
        let mut parts = BTreeMap::new();
        for path in directories {
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            parts.extend(ends.map(|end| (path[..end].to_owned(), Part::Nothing)));
        }
        Self { parts, directory: directory.to_owned(), trouble: None }
    }

    /// Looks at a layer, of which the lower ones have been seen.
    fn read(&mut self, content: impl Read) -> io::Result<()> {
        let mut archive = tar::Archive::new(content);
        for entry in archive.entries()? {
            let entry = entry?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = path.trim_start_matches("./").trim_matches('/').to_owned();
            let header = entry.header();
            let part = match header.entry_type().is_dir() {
                // An empty field is a zero to all who unpack it.
                true => Part::Directory(Directory {
                    path: path.clone(),
                    mode: header.mode().unwrap_or_default() & 0o7777,
                    uid: header.uid().unwrap_or_default(),
                    gid: header.gid().unwrap_or_default(),
                }),
                false => Part::Other,
            };
            self.note(&path, part);
        }
        // Whoever sends it should not be cut off before the end.
        let mut rest = BufReader::new(archive.into_inner());
        while !rest.fill_buf()?.is_empty() {
            let length = rest.buffer().len();
            rest.consume(length);
        }
        Ok(())
    }

    fn note(&mut self, path: &str, there: Part) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let counts = |path: &str| self.parts.contains_key(path);
        let removes = name.strip_prefix(".wh.").is_some_and(|removed| {
            let removed = if parent.is_empty() { removed.to_owned() } else { format!("{parent}/{removed}") };
            counts(&removed) || (name == ".wh..wh..opq" && counts(parent))
        });
        if removes {
            self.trouble = Some(format!("a layer of the base removes what was at /{path}"));
        }
        if path.strip_prefix(self.directory.as_str()).is_some_and(|rest| rest.starts_with('/')) {
            self.trouble = Some(format!("the base has something in /{}", self.directory));
        }
        if let Some(part) = self.parts.get_mut(path) {
            *part = there;
        }
    }

    /// Whether the base has a directory, by way of directories alone.
    fn has(&self, directory: &str) -> bool {
        self.parts.iter().all(|(path, part)| !is_on_the_way(path, directory) || matches!(part, Part::Directory(_)))
    }

    /// The directories on the way to one, outermost first: as they are, or as the Engine makes them.
    fn to_there(&self, directory: &str) -> Result<Vec<Directory>, LeftToEngine> {
        if let Some(trouble) = &self.trouble {
            return Err(LeftToEngine::new(trouble));
        }
        let way = self.parts.iter().filter(|(path, _)| is_on_the_way(path, directory));
        way.map(|(path, part)| match part {
            Part::Directory(there) => Ok(there.clone()),
            Part::Nothing => Ok(Directory { path: path.clone(), mode: 0o755, uid: 0, gid: 0 }),
            Part::Other => Err(LeftToEngine::new(format!("/{path} of the base is no directory"))),
        })
        .collect()
    }
}

/// Whether a path is that of a directory, or of one that it lies in.
fn is_on_the_way(path: &str, directory: &str) -> bool {
    directory.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a layer of these entries says; a directory's name ends with a slash.
    fn seen(entries: &[&str]) -> Result<Vec<(String, u32)>, String> {
        let mut tar = tar::Builder::new(Vec::new());
        for name in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_mode(0o710);
            header.set_entry_type(match name {
                name if name.ends_with('/') => tar::EntryType::Directory,
                name if name.ends_with('@') => tar::EntryType::Symlink,
                _ => tar::EntryType::Regular,
            });
            if name.ends_with('@') {
                tar.append_link(&mut header, name.trim_end_matches('@'), "elsewhere").unwrap();
            } else {
                tar.append_data(&mut header, name, io::empty()).unwrap();
            }
        }
        let mut ways = Ways::to(["srv".to_owned(), "opt/my/app".to_owned()].into_iter(), "opt/my/app");
        ways.read(&tar.into_inner().unwrap()[..]).unwrap();
        let way = ways.to_there("opt/my/app").map_err(|left| left.to_string())?;
        Ok(way.into_iter().map(|directory| (directory.path, directory.mode)).collect())
    }

    #[test]
    fn directories_on_the_way_stay_as_they_are_and_others_are_made() {
        let paths = ["opt", "opt/my", "opt/my/app"];
        let way = |modes: [u32; 3]| paths.map(str::to_owned).into_iter().zip(modes).collect::<Vec<_>>();
        assert_eq!(seen(&[]).unwrap(), way([0o755; 3]));
        assert_eq!(seen(&["./opt/", "srv/", "opt/other"]).unwrap(), way([0o710, 0o755, 0o755]));
        assert_eq!(seen(&["opt/", "opt/my/", "opt/my/app/", "opt/my/app2"]).unwrap(), way([0o710; 3]));
        assert_eq!(seen(&["opt@", "opt/"]).unwrap(), way([0o710, 0o755, 0o755]), "what comes later counts");
    }

    #[test]
    fn where_a_layer_would_be_something_else_it_is_left_to_the_engine() {
        for entries in [
            &["opt@"][..],
            &["opt/", "opt/my"],
            &["opt/my/app/", "opt/my/app/there"],
            &["opt/.wh.my"],
            &[".wh.opt"],
            &["opt/my/.wh..wh..opq"],
        ] {
            assert!(seen(entries).is_err(), "{entries:?}");
        }
    }
}
