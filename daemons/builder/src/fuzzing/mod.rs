//! What holds whatever somebody sends. Each function takes any bytes and panics where one of the builder's promises is broken:
//! `fuzz/` looks for such bytes, and the tests of the builder try all that it keeps in `fuzz/corpus`.
//!
//! The judges are written a second time, and plainer than what they judge: the `tar` crate and a walk along links for packages,
//! a reader of lines for Dockerfiles.

mod dockerfile;
mod emitted;
mod package;
mod template;

pub use dockerfile::{own_dockerfile, plan};
pub use package::package;
pub use template::template;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::panic::catch_unwind;
    use std::path::Path;

    /// Tries each input that is kept for a target; returns how many there are.
    fn kept(target: &str, check: fn(&[u8])) -> usize {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let files = fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path());
        let tried = files.map(|file| {
            let bytes = fs::read(&file).unwrap();
            assert!(catch_unwind(|| check(&bytes)).is_ok(), "{}", file.display());
        });
        tried.count()
    }

    #[test]
    fn packages_that_are_kept_break_no_promise() {
        assert!(kept("package", package) > 50);
    }

    #[test]
    fn dockerfiles_that_are_kept_break_no_promise() {
        assert!(kept("own_dockerfile", own_dockerfile) > 10);
        assert!(kept("plan", plan) > 10);
        assert!(kept("template", template) > 5);
    }
}
