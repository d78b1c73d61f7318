//! The files of runtimes: `<runtime>.toml` and a Dockerfile template, read at each use.

use super::{DOCKERFILE, Recipe, Runtime, words};
use crate::bases::Bases;
use crate::own_dockerfile::Allowed;
use crate::package::{Format, pattern};
use crate::template::{Template, TemplateError};
use dinp_common::model::{InvalidValue, RuntimeName};
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};

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
    /// The operator does not allow it.
    #[error(
        "runtime \"{0}\" is not allowed on this builder: an operator allows it by build.own_dockerfiles in builder.toml"
    )]
    NotAllowed(RuntimeName),
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
    #[serde(default)]
    base: Option<String>,
    packages: Vec<Format>,
    #[serde(default)]
    required: Vec<String>,
    #[serde(default)]
    required_executable: bool,
    #[serde(default)]
    detect: Option<Vec<String>>,
    #[serde(default)]
    unless: Vec<String>,
    #[serde(default)]
    template: Option<String>,
    #[serde(default)]
    network: bool,
    #[serde(default)]
    own_dockerfile_from: Option<Vec<String>>,
}

/// The directory of the runtimes.
#[derive(Debug, Clone)]
pub struct Runtimes {
    directory: PathBuf,
    bases: Bases,
    own_dockerfiles: bool,
}

impl Runtimes {
    /// Runtimes of this directory; those for packages with a Dockerfile of their own only where that is allowed.
    pub fn new(directory: PathBuf, bases: Bases, own_dockerfiles: bool) -> Self {
        Self { directory, bases, own_dockerfiles }
    }

    /// Base images: which digest each stands for.
    pub fn bases(&self) -> &Bases {
        &self.bases
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
                Err(RuntimeError::NotAllowed(_)) => {}
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
        let is_allowed = |name: &RuntimeName| !matches!(self.load(name), Err(RuntimeError::NotAllowed(_)));
        let known = words(names.iter().filter(|name| is_allowed(name)).map(ToString::to_string));
        Err(RuntimeError::Unknown { name: name.to_string(), known })
    }

    fn load(&self, name: &RuntimeName) -> Result<Runtime, RuntimeError> {
        let path = self.directory.join(format!("{name}.toml"));
        let described: Description = toml::from_str(&read(&path)?).map_err(|error| RuntimeError::Description {
            path: path.clone(),
            problem: error.to_string().trim().into(),
        })?;
        let patterns = described.required.iter().chain(described.detect.iter().flatten()).chain(&described.unless);
        for pattern in patterns {
            if let Some(problem) = pattern::problem(pattern) {
                return Err(RuntimeError::Description { path, problem: format!("\"{pattern}\" {problem}") });
            }
        }
        let recipe = self.recipe(name, &path, &described)?;
        if matches!(recipe, Recipe::Own(_)) && !self.own_dockerfiles {
            return Err(RuntimeError::NotAllowed(name.clone()));
        }
        Ok(Runtime {
            name: name.clone(),
            description: described.description,
            recipe,
            network: described.network,
            packages: described.packages,
            detect: described.detect.unwrap_or_else(|| described.required.clone()),
            unless: described.unless,
            required: described.required,
            required_executable: described.required_executable,
        })
    }

    fn recipe(&self, name: &RuntimeName, path: &Path, described: &Description) -> Result<Recipe, RuntimeError> {
        let wrong = |problem: &str| Err(RuntimeError::Description { path: path.to_owned(), problem: problem.into() });
        let base = match (&described.own_dockerfile_from, &described.base) {
            (Some(_), Some(_)) => return wrong("base and own_dockerfile_from cannot both be there"),
            (None, None) => return wrong("base is missing, the image to build on"),
            (Some(from), None) => {
                if described.template.is_some() || !described.required.iter().any(|path| path == DOCKERFILE) {
                    return wrong(
                        "own_dockerfile_from goes with no template, and with Dockerfile among what is required",
                    );
                }
                let registry = self.bases.registry().to_owned();
                return Ok(Recipe::Own(Allowed {
                    registry,
                    from: from.iter().map(|image| self.bases.fill(image)).collect(),
                }));
            }
            (None, Some(base)) => base,
        };
        let template_name = described.template.clone().unwrap_or_else(|| format!("{name}.Dockerfile"));
        if template_name.contains('/') {
            return wrong("template must be the name of a file in the same directory");
        }
        let base = self.bases.resolve(base);
        let base = base.map_err(|source| RuntimeError::Base { path: path.to_owned(), source })?;
        let path = self.directory.join(template_name);
        let template = Template::parse(&read(&path)?).map_err(|source| RuntimeError::Template { path, source })?;
        Ok(Recipe::Template { base, template })
    }
}

fn read(path: &Path) -> Result<String, RuntimeError> {
    std::fs::read_to_string(path).map_err(|source| RuntimeError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Values;
    use dinp_common::model::ImageRef;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    fn base_of(runtime: &Runtime) -> &ImageRef {
        let Recipe::Template { base, .. } = &runtime.recipe else { panic!("{runtime:?}") };
        base
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
        let runtimes = Runtimes::new(dir.path().into(), bases([("dinp/b:bookworm", &ours)]), false);
        let base = |name: &str| base_of(&runtimes.get(&name.parse().unwrap()).unwrap()).to_string();
        assert_eq!(base("pinned"), format!("control:5000/dinp/b:bookworm@{ours}"));
        assert_eq!(base("own"), format!("control:5000/dinp/b:bookworm@{own}"));
        assert_eq!(base("older"), "control:5000/dinp/b:bullseye");
        assert_eq!(base("foreign"), "elsewhere:5000/dinp/b:bookworm");
    }

    #[test]
    fn runtimes_make_the_dockerfiles_that_are_expected() {
        let runtimes = Runtimes::new(root().join("etc/builder.d"), bases([]), false);
        let (sound, broken) = runtimes.list().unwrap();
        assert!(broken.is_empty(), "{broken:?}");
        let bases: Vec<(&str, &str)> =
            sound.iter().map(|runtime| (runtime.name.as_str(), base_of(runtime).repository())).collect();
        let expected = [
            ("binary", "dinp/base-binary"),
            ("java", "dinp/base-java"),
            ("java-tomcat", "dinp/base-java"),
            ("nodejs", "dinp/base-nodejs"),
            ("php", "dinp/base-php"),
            ("python", "dinp/base-python"),
            ("static", "dinp/base-static"),
        ];
        assert_eq!(bases, expected);
        let golden = root().join("daemons/builder/tests/golden/package.Dockerfile");
        let golden = std::fs::read_to_string(golden).unwrap();
        for runtime in sound {
            let values = Values::from([
                ("app", "web"),
                ("app_dir", "/app"),
                ("base", "control:5000/dinp/base:bookworm"),
                ("runtime", runtime.name.as_str()),
                ("version", "v1"),
            ]);
            let Recipe::Template { template, .. } = &runtime.recipe else { panic!("{runtime:?}") };
            let made = template.render(&values, &[("dinp.image.app", "web".into())]).unwrap();
            assert_eq!(made, golden, "{}", runtime.name);
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
        write("bad-path.toml", &format!("{toml}unless = [\"/etc/x\"]\n"));
        write("bad-template.toml", toml);
        write("bad-template.Dockerfile", "FROM {{base}}\nCOPY {{user}} /\n");
        let runtimes = Runtimes::new(dir.path().into(), bases([]), false);
        let (sound, broken) = runtimes.list().unwrap();
        assert_eq!(sound.len(), 1);
        assert_eq!(base_of(&sound[0]).to_string(), "control:5000/dinp/b:bookworm");
        let texts: Vec<String> = broken.iter().map(|error| dinp_common::error::ErrorChain(error).to_string()).collect();
        for (text, part) in texts.iter().zip([
            "image \"",
            "\"/etc/x\" is no path below the top of a package",
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
