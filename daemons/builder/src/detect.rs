//! Which runtime a package is for, where nobody says so: the one that takes it.

use crate::package::{Format, Inventory};
use crate::runtime::Runtime;
use dinp_common::model::RuntimeName;

/// A runtime that takes a package.
#[derive(Debug)]
pub struct Detected {
    /// The runtime.
    pub runtime: Runtime,
    /// Why it is thought to be the one, as a part of a sentence: `the package has wsgi.py at its top`. None where it was named.
    pub reason: Option<String>,
}

/// Why there is none, or not one alone; in either case a sentence.
#[derive(Debug, PartialEq, Eq)]
pub enum Undetected {
    /// None takes it.
    None(String),
    /// Several do.
    Several(String),
}

/// Finds it among all. Where several take the package, it is what the app's last build was made with, if that is one of them.
pub fn detect(
    runtimes: Vec<Runtime>,
    format: Format,
    inventory: &Inventory,
    last: Option<&RuntimeName>,
) -> Result<Detected, Undetected> {
    let (mut fitting, mut others) = (Vec::new(), Vec::new());
    for runtime in runtimes {
        match runtime.check(format, inventory) {
            Ok(()) => fitting.push(runtime),
            Err(why) => others.push(why),
        }
    }
    // One that asks for nothing takes everything, and says nothing of what it takes.
    if fitting.iter().any(|runtime| !runtime.required().is_empty()) {
        fitting.retain(|runtime| !runtime.required().is_empty());
    }
    let because = |runtime: &Runtime| runtime.because(format, inventory);
    match fitting.len() {
        0 => Err(Undetected::None(format!("no runtime takes this package: {}", others.join("; ")))),
        1 => {
            let runtime = fitting.remove(0);
            Ok(Detected { reason: Some(because(&runtime)), runtime })
        }
        _ => {
            if let Some(at) = fitting.iter().position(|runtime| Some(&runtime.name) == last) {
                let runtime = fitting.swap_remove(at);
                return Ok(Detected { runtime, reason: Some("the app's last build was made with it".into()) });
            }
            let all: Vec<String> =
                fitting.iter().map(|runtime| format!("{}, because {}", runtime.name, because(runtime))).collect();
            Err(Undetected::Several(format!("several runtimes take this package, name one: {}", all.join("; "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bases::Bases;
    use crate::package::{Limits, Package, Spooled};
    use crate::runtime::Runtimes;
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::path::Path;

    const LIMITS: Limits = Limits { entries: 100, name_bytes: 1 << 20, unpacked_bytes: 1 << 30, ratio: 1000 };

    /// What is thought of a package of these executable files; the runtimes are those that come with the builder.
    fn thought(files: &[(&str, &str)], last: Option<&str>) -> Result<(String, String), Undetected> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc/builder.d");
        let bases = Bases::new("control:5000".into(), Some("bookworm".into()), BTreeMap::new());
        let (runtimes, broken) = Runtimes::new(directory, bases).list().unwrap();
        assert!(broken.is_empty(), "{broken:?}");
        let mut tar = tar::Builder::new(tempfile::tempfile().unwrap());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            tar.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        let mut file = tar.into_inner().unwrap();
        file.flush().unwrap();
        let length = file.metadata().unwrap().len();
        let package = Package::open(Spooled::new(file, length, "00".into()), LIMITS).unwrap();
        let wanted: Vec<String> = runtimes.iter().flat_map(|runtime| runtime.required().to_vec()).collect();
        let inventory = package.inspect(&wanted).unwrap();
        let last = last.map(|name| name.parse().unwrap());
        let detected = detect(runtimes, package.format, &inventory, last.as_ref())?;
        Ok((detected.runtime.name.to_string(), detected.reason.unwrap()))
    }

    #[test]
    fn a_package_tells_what_it_is_for() {
        let told = |files| thought(files, None).unwrap();
        let is = |runtime: &str, path: &str| (runtime.to_owned(), format!("the package has {path} at its top"));
        assert_eq!(told(&[("wsgi.py", "x"), ("static/app", "x")]), is("python", "wsgi.py"));
        assert_eq!(told(&[("Procfile", "web: python x.py\n")]), is("python", "Procfile"));
        assert_eq!(told(&[("control", "#!/bin/sh\n"), ("lib/app.py", "x")]), is("binary", "control"));
    }

    #[test]
    fn in_doubt_the_app_stays_what_it_was_or_a_person_is_asked() {
        let both = [("app", "#!/bin/sh\n"), ("app.py", "x")];
        let Err(Undetected::Several(text)) = thought(&both, None) else { panic!("there is doubt") };
        let expected = "several runtimes take this package, name one: binary, because the package has app at its top; \
                        python, because the package has app.py at its top";
        assert_eq!(text, expected);
        assert_eq!(thought(&both, Some("python")).unwrap().0, "python");
        assert!(thought(&both, Some("php")).is_err());
    }

    #[test]
    fn what_no_runtime_takes_is_refused_with_what_each_misses() {
        let Err(Undetected::None(text)) = thought(&[("hello/wsgi.py", "x")], Some("python")) else { panic!("none") };
        assert!(text.starts_with("no runtime takes this package: runtime binary needs control or app"), "{text}");
        assert!(text.contains("runtime python needs Procfile, wsgi.py or app.py"), "{text}");
        assert!(text.contains("pack what is in that directory"), "{text}");
    }
}
