//! The package that a person hands over: a file, a directory that is packed, or an address, and what can be told from it.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use url::Url;

use crate::directory;
use crate::error::CliError;
use crate::output::{Output, size};

/// What is handed over.
#[derive(Debug)]
pub struct Package {
    source: Source,
    name: String,
}

/// Where its bytes are.
#[derive(Debug)]
pub enum Source {
    /// A file to upload, and its size.
    File(File, u64),
    /// Where the builder is to fetch it.
    Address(Url),
}

impl Package {
    /// Opens a file, packs a directory, or reads an address, before anything is asked of the server.
    pub fn open(path: &Path, out: &Output) -> Result<Self, CliError> {
        let shown = path.display();
        let address = path.to_str().filter(|text| text.starts_with("http://") || text.starts_with("https://"));
        if let Some(address) = address {
            let url: Url = address
                .parse()
                .map_err(|error| CliError::refused(format!("package {address} is no address: {error}"), ""))?;
            let name = url.path().rsplit('/').next().unwrap_or_default().to_owned();
            return Ok(Self { source: Source::Address(url), name });
        }
        let failed = |error| match path.exists() {
            false => CliError::refused(
                format!("package {shown} does not exist"),
                "name a directory, an address, or a .tar.gz, .tar.zst, .tar.xz, .tar.bz2, .tar, .zip, .war, .jar or one static executable",
            ),
            true => CliError::file("read package", path, error),
        };
        if std::fs::metadata(path).map_err(failed)?.is_dir() {
            return Self::pack(path, out);
        }
        let file = directory::regular(path).map_err(failed)?;
        let no_file = || CliError::refused(format!("package {shown} is neither a file nor a directory"), "");
        let file = file.ok_or_else(no_file)?;
        let bytes = file.metadata().map_err(failed)?.len();
        if bytes == 0 {
            return Err(CliError::refused(format!("package {shown} is empty"), ""));
        }
        Ok(Self { source: Source::File(file, bytes), name: file_name(path) })
    }

    fn pack(directory: &Path, out: &Output) -> Result<Self, CliError> {
        let failed = |error| CliError::file("read package", directory, error);
        let spinner = ProgressBar::with_draw_target(None, out.draw_target()).with_message("packing");
        spinner.enable_steady_tick(Duration::from_millis(200));
        let packed = directory::pack(directory);
        spinner.finish_and_clear();
        let packed = packed?;
        if packed.files == 0 {
            return Err(CliError::refused(format!("directory {} holds no file to pack", directory.display()), ""));
        }
        let name = format!("{}.tar.gz", file_name(&directory.canonicalize().map_err(failed)?));
        let bytes = packed.file.metadata().map_err(failed)?.len();
        out.note(format!("packed {} files of {}: {name}, {}", packed.files, size(packed.unpacked), size(bytes)));
        packed.notes().into_iter().for_each(|note| out.note(note));
        Ok(Self { source: Source::File(packed.file, bytes), name })
    }

    /// Its file name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "package".into(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::TestDir;

    #[test]
    fn what_is_no_package_is_refused_with_a_way_out() {
        let dir = TestDir::new("package");
        let out = Output::quiet();
        let missing = Package::open(&dir.path().join("nothing.tar.gz"), &out).unwrap_err();
        assert!(missing.to_string().ends_with("nothing.tar.gz does not exist"), "{missing}");
        let directory = Package::open(dir.path(), &out).unwrap_err();
        assert!(directory.to_string().ends_with("holds no file to pack"), "{directory}");
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "").unwrap();
        assert!(Package::open(&empty, &out).unwrap_err().to_string().ends_with("is empty"));
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let refused = Package::open(&pipe, &out).unwrap_err().to_string();
        assert!(refused.ends_with("pipe is neither a file nor a directory"), "{refused}");
    }
}
