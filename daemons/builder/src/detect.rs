//! Which runtime a package is for, where nobody says so: the one that takes it.

use crate::package::{Format, Inventory};
use crate::runtime::{Misfit, Runtime};
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

/// Finds it among all that take the package: one that the package shows signs of, else any. Where there are several, it is
/// what the app's last build was made with, if that is one of them.
pub fn detect(
    runtimes: Vec<Runtime>,
    format: Format,
    inventory: &Inventory,
    last: Option<&RuntimeName>,
) -> Result<Detected, Undetected> {
    let (mut fitting, mut others) = (Vec::new(), Vec::new());
    for runtime in runtimes {
        match runtime.check(format, inventory) {
            Ok(()) => fitting.push((runtime.because(format, inventory), runtime)),
            Err(why) => others.push(why),
        }
    }
    prefer(&mut fitting, |(_, runtime)| !runtime.takes_anything());
    prefer(&mut fitting, |(sign, _)| sign.is_some());
    let reason = |sign: Option<String>| sign.unwrap_or_else(|| "it takes such a package".into());
    match fitting.len() {
        0 => Err(Undetected::None(none_fits(&others, inventory))),
        1 => {
            let (sign, runtime) = fitting.remove(0);
            Ok(Detected { reason: Some(reason(sign)), runtime })
        }
        _ => {
            if let Some(at) = fitting.iter().position(|(_, runtime)| Some(&runtime.name) == last) {
                let (_, runtime) = fitting.swap_remove(at);
                return Ok(Detected { runtime, reason: Some("the app's last build was made with it".into()) });
            }
            let all = fitting.into_iter().map(|(sign, runtime)| format!("{}, because {}", runtime.name, reason(sign)));
            let all: Vec<String> = all.collect();
            Err(Undetected::Several(format!("several runtimes take this package, name one: {}", all.join("; "))))
        }
    }
}

/// What has to be said where no runtime takes a package: of those that nearly do, else of all.
fn none_fits(misfits: &[Misfit], inventory: &Inventory) -> String {
    let texts = |is_meant: fn(&Misfit) -> bool| -> Vec<String> {
        misfits.iter().filter(|misfit| is_meant(misfit)).map(Misfit::text).collect()
    };
    let broken = texts(|misfit| matches!(misfit, Misfit::Broken(_)));
    if !broken.is_empty() {
        return broken.join("; ");
    }
    let lacking = texts(|misfit| matches!(misfit, Misfit::Lacks(_)));
    if lacking.is_empty() {
        return format!("no runtime takes this package: {}", texts(|_| true).join("; "));
    }
    let hint = Misfit::hint(inventory);
    format!(
        "no runtime takes this package, which has nothing of what they need at its top{hint}: {}",
        lacking.join("; ")
    )
}

/// Keeps those that are better, if there are any.
fn prefer<T>(of: &mut Vec<T>, is_better: impl Fn(&T) -> bool) {
    if of.iter().any(&is_better) {
        of.retain(is_better);
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

    /// What is thought of a package of these executable files; the runtimes are those that come with the builder.
    fn thought(files: &[(&str, &str)], last: Option<&str>) -> Result<(String, String), Undetected> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc/builder.d");
        let bases = Bases::new("control:5000".into(), Some("bookworm".into()), BTreeMap::new());
        let (runtimes, broken) = Runtimes::new(directory, bases, false).list().unwrap();
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
        let package = Package::open(Spooled::new(file, length, "00".into()), Limits::WIDE).unwrap();
        let wanted: Vec<String> = runtimes.iter().flat_map(Runtime::wanted).cloned().collect();
        let inventory = package.inspect(&wanted).unwrap();
        let last = last.map(|name| name.parse().unwrap());
        let detected = detect(runtimes, package.format, &inventory, last.as_ref())?;
        Ok((detected.runtime.name.to_string(), detected.reason.unwrap()))
    }

    #[test]
    fn a_package_tells_what_it_is_for() {
        let cases: [(&[&str], &str, &str); 20] = [
            (&["wsgi.py", "static/app"], "python", "wsgi.py"),
            (&["manage.py", "shop/wsgi.py", "package.json"], "python", "manage.py"),
            (&["Procfile", "src/server.py", "requirements.txt"], "python", "requirements.txt"),
            (&["control", "web.py"], "python", "web.py"),
            (&["control", "lib/app.py"], "binary", "control"),
            (&["app", "index.html", "style.css"], "binary", "app"),
            (&["package.json", "index.js", "public/index.html"], "nodejs", "package.json"),
            (&["Procfile", "package.json"], "nodejs", "package.json"),
            (&["server.js", "node_modules/express/package.json"], "nodejs", "server.js"),
            (&["index.php", "about.php"], "php", "index.php"),
            (&["htdocs/start.php", "config/php.ini"], "php", "htdocs/start.php"),
            (&["artisan", "composer.json", "package.json", "public/index.php"], "php", "public/index.php"),
            (&["index.html", "app.js", "404.html"], "static", ""),
            (&["htdocs/index.html", "htdocs/style.css"], "static", ""),
            (&["dist/index.html"], "static", ""),
            (&["web.jar", "application.yml"], "java", "web.jar"),
            (&["Procfile", "target/web.jar", "run.jar"], "java", "run.jar"),
            (&["WEB-INF/web.xml", "index.jsp"], "java-tomcat", "the directory WEB-INF/"),
            (&["WEB-INF/web.xml", "index.html"], "java-tomcat", "the directory WEB-INF/"),
            (&["WEB-INF/classes/a.class", "META-INF/MANIFEST.MF"], "java-tomcat", "the directory WEB-INF/"),
        ];
        for (paths, runtime, sign) in cases {
            let files: Vec<(&str, &str)> = paths.iter().map(|path| (*path, "web: x\n")).collect();
            let (found, because) = thought(&files, None).unwrap_or_else(|error| panic!("{paths:?}: {error:?}"));
            assert_eq!(found, runtime, "{paths:?}: {because}");
            assert!(because.ends_with(&format!("the package has {sign}")) || sign.is_empty(), "{paths:?}: {because}");
        }
    }

    #[test]
    fn in_doubt_the_app_stays_what_it_was_or_a_person_is_asked() {
        let both = [("package.json", "{}"), ("app.py", "x")];
        let Err(Undetected::Several(text)) = thought(&both, None) else { panic!("there is doubt") };
        let expected = "several runtimes take this package, name one: nodejs, because the package has package.json; \
                        python, because the package has app.py";
        assert_eq!(text, expected);
        assert_eq!(thought(&both, Some("python")).unwrap().0, "python");
        assert!(thought(&both, Some("php")).is_err());
        let nothing_but_a_start = [("Procfile", "web: ./run\n")];
        assert!(matches!(thought(&nothing_but_a_start, None), Err(Undetected::Several(_))));
    }

    #[test]
    fn what_no_runtime_takes_is_refused_with_what_each_misses() {
        let none = |files| match thought(files, Some("python")) {
            Err(Undetected::None(text)) => text,
            other => panic!("{other:?}"),
        };
        let text = none(&[("hello/wsgi.py", "x")]);
        let expected = "no runtime takes this package, which has nothing of what they need at its top; all of it lies in \
                        hello/: pack what is in that directory, not the directory: runtime binary needs control or app; ";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("; runtime java-tomcat needs WEB-INF/; "), "{text}");
        assert_eq!(
            none(&[("control", "#!/bin/sh\r\n"), ("run.sh", "")]).split(": ").next(),
            Some("control cannot be started")
        );
    }
}
