//! Runtimes: how a package becomes an image.

mod files;

pub use files::{RuntimeError, Runtimes};

use crate::own_dockerfile::{self, Allowed};
use crate::package::{EntryKind, Format, Found, Inventory};
use crate::procfile::Procfile;
use crate::template::Template;
use dinp_common::api::builder::RuntimeView;
use dinp_common::model::{ImageRef, RuntimeName};

/// Where a package says by itself how it is started.
const PROCFILE: &str = "Procfile";
/// The script that starts a package before all else, in each runtime that looks for it.
const CONTROL: &str = "control";
/// Where a package says by itself how its image is made.
const DOCKERFILE: &str = "Dockerfile";

/// Why a package is not for a runtime, each as a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit {
    /// It is of another format.
    Format(String),
    /// It has nothing of what must be at its top.
    Lacks(String),
    /// It has that, and it cannot be used.
    Broken(String),
}

impl Misfit {
    /// The sentence, without what may be wrong.
    pub fn text(&self) -> String {
        match self {
            Self::Format(text) | Self::Lacks(text) | Self::Broken(text) => text.clone(),
        }
    }

    /// As an answer to whoever named the runtime.
    pub fn sentence(&self, inventory: &Inventory) -> String {
        match self {
            Self::Format(text) | Self::Broken(text) => text.clone(),
            Self::Lacks(text) => {
                format!("{text} at the top of the package, which is not there{}", Self::hint(inventory))
            }
        }
    }

    /// What may be wrong where nothing is found at the top of a package.
    pub fn hint(inventory: &Inventory) -> String {
        inventory.only_directory().map_or(String::new(), |directory| {
            format!("; all of it lies in {directory}/: pack what is in that directory, not the directory")
        })
    }
}

/// What an image is made by.
#[derive(Debug, Clone)]
pub enum Recipe {
    /// The operator's Dockerfile.
    Template {
        /// The image that it builds on.
        base: ImageRef,
        /// The Dockerfile.
        template: Template,
    },
    /// The package's own Dockerfile, as far as it asks for nothing else.
    Own(Allowed),
}

/// A way to make an image.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Its name.
    pub name: RuntimeName,
    /// What it takes, as a sentence.
    pub description: String,
    /// By which Dockerfile.
    pub recipe: Recipe,
    /// Whether instructions of the template may use the network.
    pub network: bool,
    packages: Vec<Format>,
    required: Vec<String>,
    required_executable: bool,
    detect: Vec<String>,
    unless: Vec<String>,
}

impl Runtime {
    /// Whether it can make an image of such a package.
    pub fn check(&self, format: Format, inventory: &Inventory) -> Result<(), Misfit> {
        let name = &self.name;
        if !self.packages.contains(&format) {
            let taken = words(self.packages.iter().map(Format::to_string));
            return Err(Misfit::Format(format!("the package is of format {format}, but runtime {name} takes {taken}")));
        }
        if self.required.is_empty() {
            return Ok(());
        }
        let there: Vec<_> = self.required.iter().filter(|pattern| is_there(inventory, pattern)).collect();
        if there.is_empty() {
            return Err(Misfit::Lacks(format!("runtime {name} needs {}", words(self.required.iter().cloned()))));
        }
        if self.required_executable {
            let files: Vec<_> = there.iter().filter_map(|pattern| inventory.get(pattern)).collect();
            let Some(started) = files.iter().find(|file| file.is_executable()) else {
                let path = &files[0].entry.path;
                return Err(Misfit::Broken(format!(
                    "runtime {name} needs {path} to be executable: chmod +x {path} before packing"
                )));
            };
            startable(started)?;
        }
        if let Some(control) = self.required_file(CONTROL, inventory).filter(|found| found.is_executable()) {
            startable(control)?;
        }
        self.check_dockerfile(inventory)?;
        match self.procfile(inventory) {
            Some(procfile) if !procfile.has_web => {
                Err(Misfit::Broken(format!("runtime {name} starts the line web: of the {PROCFILE}, which has none")))
            }
            _ => Ok(()),
        }
    }

    /// Why a package that it takes is thought to be for it; none where nothing says so.
    pub fn because(&self, format: Format, inventory: &Inventory) -> Option<String> {
        if self.unless.iter().any(|pattern| is_there(inventory, pattern)) {
            return None;
        }
        match format {
            Format::Executable => return Some("the package is one executable".into()),
            Format::Jar => return Some("the package is a jar file".into()),
            _ => {}
        }
        let sign = self.detect.iter().find(|pattern| is_there(inventory, pattern))?;
        let path = inventory.get(sign).map_or(sign.as_str(), |found| &found.entry.path);
        Some(match sign.strip_suffix('/') {
            Some(directory) => format!("the package has the directory {directory}/"),
            None => format!("the package has {path}"),
        })
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

    /// Whether it asks for nothing: then it takes everything, and says nothing of what it takes.
    pub fn takes_anything(&self) -> bool {
        self.required.is_empty()
    }

    /// The patterns of all that it looks for in a package.
    pub fn wanted(&self) -> impl Iterator<Item = &String> {
        self.required.iter().chain(&self.detect).chain(&self.unless)
    }

    /// A file of a package, for a runtime that asks for it.
    fn required_file<'a>(&self, path: &str, inventory: &'a Inventory) -> Option<&'a Found> {
        inventory.get(path).filter(|_| self.required.iter().any(|required| required == path))
    }

    fn check_dockerfile(&self, inventory: &Inventory) -> Result<(), Misfit> {
        let Recipe::Own(allowed) = &self.recipe else { return Ok(()) };
        let Some(found) = self.required_file(DOCKERFILE, inventory) else { return Ok(()) };
        let broken = |problem: String| Err(Misfit::Broken(problem));
        match &found.entry.kind {
            EntryKind::File { size, .. } if found.is_whole_text(*size) => {
                own_dockerfile::check(&found.beginning, allowed).or_else(broken)
            }
            _ => broken(format!("{DOCKERFILE} must be a file of text, of at most 64 KiB")),
        }
    }

    /// The Procfile of a package, for a runtime that asks for one.
    fn procfile(&self, inventory: &Inventory) -> Option<Procfile> {
        let found = self.required_file(PROCFILE, inventory)?;
        let is_read = matches!(found.entry.kind, EntryKind::File { .. });
        is_read.then(|| Procfile::parse(&found.beginning))
    }

    /// The image that it builds on, unless its packages name theirs.
    pub fn base(&self) -> Option<&ImageRef> {
        match &self.recipe {
            Recipe::Template { base, .. } => Some(base),
            Recipe::Own(_) => None,
        }
    }

    /// What callers are told; `holds` is what its base is for.
    pub fn view(&self, holds: Option<String>) -> RuntimeView {
        let base = self.base().map(ToString::to_string);
        RuntimeView { name: self.name.clone(), description: self.description.clone(), base, holds }
    }
}

/// What is started must be of use in an image.
fn startable(file: &Found) -> Result<(), Misfit> {
    match &file.fault {
        Some(fault) => Err(Misfit::Broken(format!("{} cannot be started: {fault}", file.entry.path))),
        None => Ok(()),
    }
}

/// Whether a package has what a pattern stands for; a directory is no file.
fn is_there(inventory: &Inventory, pattern: &str) -> bool {
    inventory.get(pattern).is_some_and(|found| pattern.ends_with('/') || found.is_file())
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
