//! Runtimes: how a package becomes an image. Files of the operator in `/etc/dinp/builder.d`, read at each use.

use crate::bases::Bases;
use crate::package::{EntryKind, Format, Inventory};
use crate::procfile::Procfile;
use crate::template::{Template, TemplateError};
use dinp_common::api::builder::RuntimeView;
use dinp_common::model::{ImageRef, InvalidValue, RuntimeName};
use serde::Deserialize;
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
            if let Some(fault) = &started.fault {
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

    /// Why a package that it takes is for it.
    pub fn because(&self, format: Format, inventory: &Inventory) -> String {
        let is_there = |path: &&String| inventory.get(path).is_some_and(|found| found.is_file());
        match self.required.iter().find(is_there) {
            _ if format == Format::Executable => "the package is one executable".into(),
            Some(path) => format!("the package has {path} at its top"),
            None => format!("it takes any package of format {format}"),
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
        is_read.then(|| Procfile::parse(&found.beginning))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Values;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    fn bases<const N: usize>(digests: [(&str, &str); N]) -> Bases {
        let digests = digests.map(|(name, digest)| (name.to_owned(), digest.to_owned())).into();
        Bases::new("control:5000".into(), Some("bookworm".into()), digests)
    }

    #[test]
    fn a_base_has_the_digest_that_the_operator_gave_it_and_a_runtime_may_name_one_itself() {
        let (ours, own) = (format!("sha256:{}", "a".repeat(64)), format!("sha256:{}", "b".repeat(64)));
        let dir = dinp_common::testing::TestDir::new("bases");
        for (name, base) in [
            ("pinned", "{registry}/dinp/b:{base_tag}".to_owned()),
            ("own", format!("{{registry}}/dinp/b:{{base_tag}}@{own}")),
            ("older", "{registry}/dinp/b:bullseye".into()),
            ("foreign", "elsewhere:5000/dinp/b:bookworm".into()),
        ] {
            let toml = format!("description = \"x\"\nbase = \"{base}\"\npackages = [\"zip\"]\ntemplate = \"t\"\n");
            std::fs::write(dir.path().join(format!("{name}.toml")), toml).unwrap();
        }
        std::fs::write(dir.path().join("t"), "FROM {{base}}\n").unwrap();
        let runtimes = Runtimes::new(dir.path().into(), bases([("dinp/b:bookworm", &ours)]));
        let base = |name: &str| runtimes.get(&name.parse().unwrap()).unwrap().base.to_string();
        assert_eq!(base("pinned"), format!("control:5000/dinp/b:bookworm@{ours}"));
        assert_eq!(base("own"), format!("control:5000/dinp/b:bookworm@{own}"));
        assert_eq!(base("older"), "control:5000/dinp/b:bullseye");
        assert_eq!(base("foreign"), "elsewhere:5000/dinp/b:bookworm");
    }

    #[test]
    fn runtimes_make_the_dockerfiles_that_are_expected() {
        let runtimes = Runtimes::new(root().join("etc/builder.d"), bases([]));
        let (sound, broken) = runtimes.list().unwrap();
        assert!(broken.is_empty(), "{broken:?}");
        assert_eq!(sound.iter().map(|runtime| runtime.name.as_str()).collect::<Vec<_>>(), ["binary", "python"]);
        for runtime in sound {
            let base = runtime.base.to_string();
            let values = Values::from([
                ("app", "web"),
                ("app_dir", "/app"),
                ("base", base.as_str()),
                ("runtime", runtime.name.as_str()),
                ("version", "v1"),
            ]);
            let made = runtime.template.render(&values, &[("dinp.image.app", "web".into())]).unwrap();
            let path = root().join(format!("daemons/builder/tests/golden/{}.Dockerfile", runtime.name));
            let golden = std::fs::read_to_string(&path).unwrap();
            assert_eq!(made, golden, "{}", path.display());
        }
    }

    #[test]
    fn broken_runtimes_are_named_and_do_not_hide_the_others() {
        let dir = dinp_common::testing::TestDir::new("runtimes");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let toml = "description = \"x\"\nbase = \"{registry}/dinp/b:{base_tag}\"\npackages = [\"zip\"]\n";
        write("good.toml", toml);
        write("good.Dockerfile", "FROM {{base}}\n");
        write("no-template.toml", toml);
        write("typo.toml", &toml.replace("packages", "package"));
        write("bad-base.toml", &toml.replace("dinp/b", "../b"));
        write("bad-template.toml", toml);
        write("bad-template.Dockerfile", "FROM {{base}}\nCOPY {{user}} /\n");
        let runtimes = Runtimes::new(dir.path().into(), bases([]));
        let (sound, broken) = runtimes.list().unwrap();
        assert_eq!(sound.len(), 1);
        assert_eq!(sound[0].base.to_string(), "control:5000/dinp/b:bookworm");
        let texts: Vec<String> = broken.iter().map(|error| dinp_common::error::ErrorChain(error).to_string()).collect();
        for (text, part) in texts.iter().zip([
            "image \"",
            "line 2: unknown placeholder user",
            "No such file",
            "unknown field `package`",
        ]) {
            assert!(text.contains(part), "{text}");
        }
        let unknown = runtimes.get(&"cobol".parse().unwrap()).unwrap_err();
        assert!(unknown.to_string().starts_with("runtime \"cobol\" does not exist; there are: "), "{unknown}");
    }
}
