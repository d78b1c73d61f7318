//! The package that a person hands over: a file, and what can be told from it.

use std::path::{Path, PathBuf};

use futures_util::TryStreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use crate::error::CliError;
use crate::output::Output;

/// A file to upload.
#[derive(Clone, Debug)]
pub struct Package {
    path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

impl Package {
    /// Looks at a file before anything is asked of the server.
    pub fn open(path: &Path) -> Result<Self, CliError> {
        let shown = path.display();
        let failed = |error| match path.exists() {
            false => CliError::refused(
                format!("package {shown} does not exist"),
                "name a .tar.gz, .tar.zst, .tar.xz, .tar.bz2, .tar, .zip or one static executable",
            ),
            true => CliError::file("read package", path, error),
        };
        let meta = std::fs::metadata(path).map_err(failed)?;
        if meta.is_dir() {
            let name = path.file_name().map_or("app".into(), |name| name.to_string_lossy());
            return Err(CliError::refused(
                format!("package {shown} is a directory"),
                format!("pack it first: tar -C {shown} -czf {name}.tar.gz ."),
            ));
        }
        if meta.len() == 0 {
            return Err(CliError::refused(format!("package {shown} is empty"), ""));
        }
        // What cannot be read is told before an app comes about.
        std::fs::File::open(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), bytes: meta.len() })
    }

    /// Its file name, for people.
    pub fn name(&self) -> String {
        self.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// The file as a body, with its progress on the terminal.
    pub async fn body(&self, out: &Output) -> Result<(reqwest::Body, ProgressBar), CliError> {
        let file = File::open(&self.path).await.map_err(|error| CliError::file("read package", &self.path, error))?;
        let bar = ProgressBar::with_draw_target(Some(self.bytes), out.draw_target());
        let style = ProgressStyle::with_template("uploading {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_message(self.name());
        let seen = bar.clone();
        let stream = ReaderStream::with_capacity(file, 64 * 1024).inspect_ok(move |chunk| seen.inc(chunk.len() as u64));
        Ok((reqwest::Body::wrap_stream(stream), bar))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::TestDir;

    #[test]
    fn what_is_no_package_is_refused_with_a_way_out() {
        let dir = TestDir::new("package");
        let missing = Package::open(&dir.path().join("nothing.tar.gz")).unwrap_err();
        assert!(missing.to_string().ends_with("nothing.tar.gz does not exist"), "{missing}");
        let directory = Package::open(dir.path()).unwrap_err();
        assert!(directory.to_string().ends_with("is a directory"), "{directory}");
        assert!(directory.hint().unwrap().starts_with("pack it first: tar -C "));
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "").unwrap();
        assert!(Package::open(&empty).unwrap_err().to_string().ends_with("is empty"));
    }
}
