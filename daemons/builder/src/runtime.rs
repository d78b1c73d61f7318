//! Runtimes: how a package becomes an image. Files of the operator in `/etc/dinp/builder.d`, read at each use.

use crate::package::{EntryKind, Format, Inventory};
use crate::procfile::Procfile;
use crate::template::{Template, TemplateError};
use dinp_common::api::builder::RuntimeView;
use dinp_common::model::{ImageRef, InvalidValue, RuntimeName};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Where a package says by itself how it is started.
const PROCFILE: &str = "Procfile";

/// Why a runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// There is none of that name.
    #[error("runtime \"{name}\" does not exist; there are: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The description makes no sense.
    #[error("{}: {problem}", path.display())]
    Description {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The template makes no sense.
    #[error("{}", path.display())]
    Template {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: TemplateError,
    },
    /// The base image is no reference.
    #[error("{}: base", path.display())]
    Base {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: InvalidValue,
    },
}

/// `<runtime>.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    description: String,
    base: String,
    packages: Vec<Format>,
    #[serde(default)]
    required: Vec<String>,
    #[serde(default)]
    required_executable: bool,
    #[serde(default)]
    template: Option<String>,
    #[serde(default)]
    network: bool,
}

/// A way to make an image.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Its name.
    pub name: RuntimeName,
    /// What it takes, as a sentence.
    pub description: String,
    /// The image that it builds on.
    pub base: ImageRef,
    /// Its Dockerfile.
    pub template: Template,
    /// Whether instructions of the template may use the network.
    pub network: bool,
    packages: Vec<Format>,
    required: Vec<String>,
    required_executable: bool,
}

impl Runtime {
    /// Whether it can make an image of such a package; the error is a sentence.
    pub fn check(&self, format: Format, inventory: &Inventory) -> Result<(), String> {
        let name = &self.name;
        if !self.packages.contains(&format) {
            let taken = words(self.packages.iter().map(Format::to_string));
            return Err(format!("the package is of format {format}, but runtime {name} takes {taken}"));
        }
        if self.required.is_empty() {
            return Ok(());
        }
        let files: Vec<_> =
            self.required.iter().filter_map(|path| inventory.get(path)).filter(|found| found.is_file()).collect();
        if files.is_empty() {
            let wanted = words(self.required.iter().cloned());
            let hint = inventory.only_directory().map_or(String::new(), |directory| {
                format!("; all of it lies in {directory}/: pack what is in that directory, not the directory")
            });
            return Err(format!("runtime {name} needs {wanted} at the top of the package, which is not there{hint}"));
        }
        if self.required_executable {
            let Some(started) = files.iter().find(|file| file.is_executable()) else {
                let path = &files[0].entry.path;
                return Err(format!("runtime {name} needs {path} to be executable: chmod +x {path} before packing"));
            };
            if let Some(fault) = started.fault {
                return Err(format!("{} cannot be started: {fault}", started.entry.path));
            }
        }
        match self.procfile(inventory) {
            Some(procfile) if !procfile.has_web => {
                Err(format!("runtime {name} starts the line web: of the {PROCFILE}, which has none"))
            }
            _ => Ok(()),
        }
    }

    /// What the owner of a package should know of what is in it, and what is done with it.
    pub fn notes(&self, inventory: &Inventory) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(procfile) = self.procfile(inventory).filter(|procfile| !procfile.others.is_empty()) {
            let others = procfile.others.join(", ");
            notes.push(format!("note: of the {PROCFILE} only web is run; not run: {others}"));
        }
        let (faults, more) = inventory.faults();
        notes.extend(faults.iter().map(|(path, fault)| format!("note: {path} is of no use in an image: {fault}")));
        if more > 0 {
            notes.push(format!("note: so are {more} further files"));
        }
        notes
    }

    /// The paths of which one must be in a package.
    pub fn required(&self) -> &[String] {
        &self.required
    }

    /// The Procfile of a package, for a runtime that asks for one.
    fn procfile(&self, inventory: &Inventory) -> Option<Procfile> {
        let found = inventory.get(PROCFILE).filter(|_| self.required.iter().any(|path| path == PROCFILE))?;
        let is_read = matches!(found.entry.kind, EntryKind::File { .. });
        is_read.then(|| Procfile::parse(&String::from_utf8_lossy(&found.beginning)))
    }

    /// What callers are told.
    pub fn view(&self) -> RuntimeView {
        RuntimeView { name: self.name.clone(), description: self.description.clone() }
    }
}

/// `a`, `a or b`, `a, b or c`.
fn words(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    match items.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => "nothing".into(),
    }
}

/// What the bases of runtimes stand for.
#[derive(Debug, Clone)]
pub struct Bases {
    registry: String,
    tag: String,
    digests: BTreeMap<String, String>,
}

impl Bases {
    /// Bases of this registry, with this tag (by default the suite of this host's distribution), and the digests of some of
    /// them by `repository:tag`.
    pub fn new(registry: String, tag: Option<String>, digests: BTreeMap<String, String>) -> Self {
        let tag = tag.or_else(own_suite).unwrap_or_else(|| "latest".into());
        Self { registry, tag, digests }
    }

    /// The image that a runtime names: `{registry}` and `{base_tag}` are replaced, and it gets its digest where that is known.
    fn resolve(&self, base: &str) -> Result<ImageRef, InvalidValue> {
        let base: ImageRef = base.replace("{registry}", &self.registry).replace("{base_tag}", &self.tag).parse()?;
        if base.registry() != self.registry || base.digest().is_some() {
            return Ok(base);
        }
        let digest = self.digests.get(&format!("{}:{}", base.repository(), base.reference()));
        digest.map_or(Ok(base.clone()), |digest| base.with_digest(digest))
    }
}

/// The directory of the runtimes.
#[derive(Debug, Clone)]
pub struct Runtimes {
    directory: PathBuf,
    bases: Bases,
}

impl Runtimes {
    /// Runtimes of this directory.
    pub fn new(directory: PathBuf, bases: Bases) -> Self {
        Self { directory, bases }
    }

    /// The names that there are.
    pub fn names(&self) -> Result<Vec<RuntimeName>, RuntimeError> {
        let failed = |source| RuntimeError::Read { path: self.directory.clone(), source };
        let mut names = Vec::new();
        for file in std::fs::read_dir(&self.directory).map_err(failed)? {
            let file = file.map_err(failed)?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(".toml")).and_then(|name| name.parse().ok());
            names.extend(name);
        }
        names.sort();
        Ok(names)
    }

    /// All that can be used, and what is wrong with the others.
    pub fn list(&self) -> Result<(Vec<Runtime>, Vec<RuntimeError>), RuntimeError> {
        let (mut sound, mut broken) = (Vec::new(), Vec::new());
        for name in self.names()? {
            match self.load(&name) {
                Ok(runtime) => sound.push(runtime),
                Err(error) => broken.push(error),
            }
        }
        Ok((sound, broken))
    }

    /// A runtime by its name.
    pub fn get(&self, name: &RuntimeName) -> Result<Runtime, RuntimeError> {
        let names = self.names()?;
        if names.contains(name) {
            return self.load(name);
        }
        let known = if names.is_empty() { "none".to_owned() } else { words(names.iter().map(ToString::to_string)) };
        Err(RuntimeError::Unknown { name: name.to_string(), known })
    }

    fn load(&self, name: &RuntimeName) -> Result<Runtime, RuntimeError> {
        let path = self.directory.join(format!("{name}.toml"));
        let described: Description = toml::from_str(&read(&path)?).map_err(|error| RuntimeError::Description {
            path: path.clone(),
            problem: error.to_string().trim().into(),
        })?;
        let template_name = described.template.unwrap_or_else(|| format!("{name}.Dockerfile"));
        if template_name.contains('/') {
            let problem = "template must be the name of a file in the same directory".into();
            return Err(RuntimeError::Description { path, problem });
        }
        let base = self.bases.resolve(&described.base).map_err(|source| RuntimeError::Base { path, source })?;
        let template_path = self.directory.join(template_name);
        let template = Template::parse(&read(&template_path)?)
            .map_err(|source| RuntimeError::Template { path: template_path, source })?;
        Ok(Runtime {
            name: name.clone(),
            description: described.description,
            base,
            template,
            network: described.network,
            packages: described.packages,
            required: described.required,
            required_executable: described.required_executable,
        })
    }
}

fn read(path: &Path) -> Result<String, RuntimeError> {
    std::fs::read_to_string(path).map_err(|source| RuntimeError::Read { path: path.to_owned(), source })
}

/// The suite of this host's distribution: base images are made of its packages and tagged with its name.
fn own_suite() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    let suite = value.trim_matches('"');
    (!suite.is_empty()).then(|| suite.to_owned())
}
