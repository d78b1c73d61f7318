//! The package re-emitted as a canonical tar: as the build context, which is below `app/` beside the Dockerfile or has that in
//! it, or as a layer.
//!
//! Headers are made anew from what was understood of the package: owner 0, mode 0755 or 0644, no set-id bits,
//! no extended attributes. What the Engine reads is what was checked.

use crate::package::{Entry, EntryKind, Package, PackageError};
use bytes::Bytes;
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::io::{self, Read, Write};
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const CHUNK: usize = 64 << 10;
const CHUNKS_AHEAD: usize = 8;

/// By what the Engine is to build.
#[derive(Debug, Clone)]
pub enum Dockerfile {
    /// This text, beside the package in `app/`.
    Rendered(String),
    /// The one of the package, which is all of the context.
    Own {
        /// The registry of the cluster, as the Dockerfile may ask for it.
        registry: String,
    },
}

/// The context as a stream, made by a thread while it is read. An error of the stream aborts the request.
pub fn stream(package: Package, dockerfile: Dockerfile) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    tokio::task::spawn_blocking(move || {
        let writer = ChunkWriter { sender: sender.clone(), chunk: Vec::with_capacity(CHUNK) };
        if let Err(error) = write(&package, &dockerfile, writer) {
            // A reader that has gone needs no error.
            drop(sender.blocking_send(Err(io::Error::other(error))));
        }
    });
    ReceiverStream::new(receiver)
}

/// Writes the context.
pub fn write(package: &Package, dockerfile: &Dockerfile, writer: impl Write) -> Result<(), PackageError> {
    let mut tar = Builder::new(writer);
    let top = match dockerfile {
        Dockerfile::Rendered(text) => {
            let mut first = header(EntryType::Regular, text.len() as u64, 0o644, 0);
            tar.append_data(&mut first, "Dockerfile", text.as_bytes()).map_err(PackageError::Visitor)?;
            let mut top = header(EntryType::Directory, 0, 0o755, 0);
            tar.append_data(&mut top, "app/", io::empty()).map_err(PackageError::Visitor)?;
            "app/"
        }
        Dockerfile::Own { .. } => "",
    };
    package.walk(&mut |entry, content| append(&mut tar, top, entry, content))?;
    tar.into_inner().and_then(|mut writer| writer.flush()).map_err(PackageError::Visitor)
}

/// Where a package goes in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The directory, from the root on, without a slash at either end.
    pub directory: String,
    /// It and the directories on the way there, outermost first, as they are in the base image or are to be: the Engine gives
    /// a directory that only stands in names a mode of its own, whatever is below.
    pub way: Vec<Directory>,
}

/// A directory of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// From the root on, without a slash at either end.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// Its owner.
    pub uid: u64,
    /// Its group.
    pub gid: u64,
}

/// Writes what the Engine makes of the context and `COPY app/` as a layer by itself.
pub fn write_layer(package: &Package, place: &Placed, writer: impl Write) -> Result<(), PackageError> {
    let mut tar = Builder::new(writer);
    for Directory { path, mode, uid, gid } in &place.way {
        let mut header = header(EntryType::Directory, 0, *mode, 0);
        header.set_uid(*uid);
        header.set_gid(*gid);
        tar.append_data(&mut header, format!("{path}/"), io::empty()).map_err(PackageError::Visitor)?;
    }
    let top = format!("{}/", place.directory);
    // Packages may name a directory again, layers may not.
    let mut directories = HashSet::new();
    package.walk(&mut |entry, content| match entry.kind {
        EntryKind::Directory if !directories.insert(entry.path.clone()) => Ok(()),
        _ => append(&mut tar, &top, entry, content),
    })?;
    tar.into_inner().and_then(|mut writer| writer.flush()).map_err(PackageError::Visitor)
}

fn append(tar: &mut Builder<impl Write>, top: &str, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
    let path = format!("{top}{}", entry.path);
    match &entry.kind {
        EntryKind::File { size, executable } => {
            let mode = if *executable { 0o755 } else { 0o644 };
            tar.append_data(&mut header(EntryType::Regular, *size, mode, entry.modified), path, content)
        }
        EntryKind::Directory if entry.path.is_empty() => Ok(()),
        EntryKind::Directory => {
            let mut header = header(EntryType::Directory, 0, 0o755, entry.modified);
            tar.append_data(&mut header, path + "/", io::empty())
        }
        EntryKind::Symlink { target } => {
            tar.append_link(&mut header(EntryType::Symlink, 0, 0o777, entry.modified), path, target)
        }
        EntryKind::Hardlink { target } => {
            let target = format!("{top}{target}");
            tar.append_link(&mut header(EntryType::Link, 0, 0o644, entry.modified), path, target)
        }
    }
}

fn header(kind: EntryType, size: u64, mode: u32, modified: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(modified);
    header
}

/// Hands bytes over to async code in pieces, and waits where they are not taken.
struct ChunkWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    chunk: Vec<u8>,
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        self.sender.blocking_send(Ok(chunk.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
