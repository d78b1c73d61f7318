//! What survives a power cut and a full disk: a value has two files, which are written in turn and in place.
//!
//! ```text
//! orders.0   dinp-slot 42 5120 9f3c...   the newest whole one counts
//! orders.1   dinp-slot 41 5077 07aa...   the one before: written over next
//! ```
//!
//! Both get their full size when they are made, so that writing them takes no space of a disk that apps have
//! filled. A file system that copies what is written over (btrfs, zfs) wants some nevertheless; what cannot be
//! written is a fault of the node until it can.

use crate::faults::Faults;
use dinp_common::api::agent::NodeFaultKind;
use dinp_common::error::ErrorChain;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// First word of a slot.
const MAGIC: &str = "dinp-slot";

/// Why state cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Reading failed.
    #[error("read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Writing failed.
    #[error("write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is to be written has no form on disk.
    #[error("encode {}", path.display())]
    Encode {
        /// For which file.
        path: PathBuf,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
    /// The content is not what was once written.
    #[error("decode {}", path.display())]
    Decode {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
    /// Something was written, and neither slot holds it whole.
    #[error("both slots of {} are damaged", path.display())]
    Damaged {
        /// Their common name.
        path: PathBuf,
    },
}

/// The two files of a value.
#[derive(Debug)]
struct Slots {
    path: PathBuf,
    /// Bytes that each takes, whatever it holds.
    size: u64,
    /// Of the newest whole one.
    sequence: u64,
}

impl Slots {
    /// Opens them; with the text that was written last, if any was.
    fn open(path: PathBuf, size: u64) -> Result<(Self, Option<Vec<u8>>), DiskError> {
        let mut slots = Self { path, size, sequence: 0 };
        let (mut newest, mut torn) = (None, 0);
        for sequence in [0, 1] {
            let path = slots.slot(sequence);
            let content = match std::fs::read(&path) {
                Ok(content) => content,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(DiskError::Read { path, source }),
            };
            match parse(&content) {
                Some((sequence, text)) if sequence > slots.sequence => {
                    slots.sequence = sequence;
                    newest = Some(text.to_vec());
                }
                Some(_) => {}
                None => torn += usize::from(content.first().is_some_and(|byte| *byte != 0)),
            }
        }
        // One alone is a first write that was cut off.
        if newest.is_none() && torn == 2 {
            return Err(DiskError::Damaged { path: slots.path });
        }
        Ok((slots, newest))
    }

    fn slot(&self, sequence: u64) -> PathBuf {
        self.path.with_extension((sequence % 2).to_string())
    }

    /// Gives both files their full size.
    fn reserve(&self) -> Result<(), DiskError> {
        for sequence in [0, 1] {
            let path = self.slot(sequence);
            fill(&path, self.size).map_err(|source| DiskError::Write { path, source })?;
        }
        Ok(())
    }

    /// Writes over the older one. When this returns, it is on the disk.
    fn write(&mut self, text: &[u8]) -> Result<(), DiskError> {
        let sequence = self.sequence + 1;
        let path = self.slot(sequence);
        let write = || {
            let file = open(&path)?;
            file.write_all_at(&compose(sequence, text), 0)?;
            file.sync_all()
        };
        write().map_err(|source| DiskError::Write { path: path.clone(), source })?;
        self.sequence = sequence;
        Ok(())
    }
}

fn compose(sequence: u64, text: &[u8]) -> Vec<u8> {
    let mut slot = format!("{MAGIC} {sequence} {} {:016x}\n", text.len(), checksum(sequence, text)).into_bytes();
    slot.extend_from_slice(text);
    slot
}

/// What a slot holds, if it is whole.
fn parse(content: &[u8]) -> Option<(u64, &[u8])> {
    let end = content.iter().position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(&content[..end]).ok()?.split(' ');
    if words.next()? != MAGIC {
        return None;
    }
    let (sequence, length): (u64, usize) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let text = content[end + 1..].get(..length)?;
    (u64::from_str_radix(words.next()?, 16).ok()? == checksum(sequence, text)).then_some((sequence, text))
}

/// FNV-1a: tells a torn write, and guards against nobody.
fn checksum(sequence: u64, text: &[u8]) -> u64 {
    let bytes = sequence.to_le_bytes().into_iter().chain(text.iter().copied());
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Opens a file for its owner only, and makes it if it is not there.
fn open(path: &Path) -> io::Result<File> {
    let existed = path.exists();
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match path.parent() {
        Some(directory) if !existed => File::open(directory)?.sync_all()?,
        _ => {}
    }
    Ok(file)
}

/// Written and not only allocated: a block that was never written may want another one when it is.
fn fill(path: &Path, size: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let file = open(path)?;
    let mut at = file.metadata()?.len();
    if at >= size {
        return Ok(());
    }
    while at < size {
        let most = usize::try_from(size - at).unwrap_or(usize::MAX).min(ZEROS.len());
        file.write_all_at(&ZEROS[..most], at)?;
        at += most as u64;
    }
    file.sync_all()
}

/// Reads what a [`Stored`] wrote last, also while it writes; none where there is nothing yet.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DiskError> {
    let (_, text) = Slots::open(path.to_owned(), 0)?;
    decode(path, text)
}

fn decode<T: DeserializeOwned>(path: &Path, text: Option<Vec<u8>>) -> Result<Option<T>, DiskError> {
    let decoded = text.map(|text| serde_json::from_slice(&text)).transpose();
    decoded.map_err(|source| DiskError::Decode { path: path.to_owned(), source })
}

/// A value and its files; clones are the same value.
#[derive(Clone, Debug)]
pub struct Stored<T> {
    inner: Arc<Mutex<Inner<T>>>,
    faults: Arc<Faults>,
}

#[derive(Debug)]
struct Inner<T> {
    value: T,
    slots: Slots,
    /// Whether the last attempt to write has failed.
    failing: bool,
}

impl<T> Inner<T>
where
    T: Serialize,
{
    fn write(&mut self, value: &T) -> Result<(), DiskError> {
        let text =
            serde_json::to_vec(value).map_err(|source| DiskError::Encode { path: self.slots.path.clone(), source })?;
        self.slots.write(&text)
    }

    fn note(&mut self, result: &Result<(), DiskError>, faults: &Faults) {
        self.failing = result.is_err();
        let detail = result.as_ref().err().map(|error| ErrorChain(error).to_string());
        faults.set(NodeFaultKind::Disk, &self.slots.path.to_string_lossy(), detail);
    }
}

impl<T> Stored<T>
where
    T: Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + 'static,
{
    /// Opens the files, or begins with the default. Space for them that cannot be had is a fault of the node, and no
    /// error: what is there can be read.
    pub fn open(path: PathBuf, size: u64, faults: Arc<Faults>) -> Result<Self, DiskError> {
        let (slots, text) = Slots::open(path, size)?;
        let value = decode(&slots.path, text)?.unwrap_or_default();
        let reserved = slots.reserve();
        let mut inner = Inner { value, slots, failing: false };
        inner.note(&reserved, &faults);
        Ok(Self { inner: Arc::new(Mutex::new(inner)), faults })
    }

    /// Changes the value; a change counts only once it is on the disk.
    pub async fn change<R: Send + 'static>(
        &self,
        change: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, DiskError> {
        self.blocking(move |inner, faults| {
            let mut next = inner.value.clone();
            let result = change(&mut next);
            if next == inner.value {
                return Ok(result);
            }
            let written = inner.write(&next);
            inner.note(&written, faults);
            written?;
            inner.value = next;
            Ok(result)
        })
        .await
    }

    /// After a failure: whether it can be written again is seen by writing it.
    pub async fn mend(&self) {
        self.blocking(|inner, faults| {
            if inner.failing {
                let value = inner.value.clone();
                let written = inner.slots.reserve().and_then(|()| inner.write(&value));
                inner.note(&written, faults);
            }
        })
        .await;
    }

    /// Looks at the value.
    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.inner().value)
    }

    async fn blocking<R: Send + 'static>(&self, work: impl FnOnce(&mut Inner<T>, &Faults) -> R + Send + 'static) -> R {
        let this = self.clone();
        match tokio::task::spawn_blocking(move || work(&mut this.inner(), &this.faults)).await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use dinp_common::testing::TestDir;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    const SIZE: u64 = 8192;

    fn open_in(dir: &TestDir) -> Result<Stored<Vec<u32>>, DiskError> {
        Stored::open(dir.path().join("a"), SIZE, Arc::default())
    }

    /// Puts a device that is always full in the place of both files of a value.
    pub(crate) fn fill_up(path: &Path) {
        for slot in ["0", "1"] {
            let path = path.with_extension(slot);
            std::fs::rename(&path, path.with_extension(format!("kept{slot}"))).unwrap();
            symlink("/dev/full", &path).unwrap();
        }
    }

    /// Takes it away again.
    pub(crate) fn make_room(path: &Path) {
        for slot in ["0", "1"] {
            let path = path.with_extension(slot);
            std::fs::rename(path.with_extension(format!("kept{slot}")), &path).unwrap();
        }
    }

    #[tokio::test]
    async fn the_newest_counts_and_a_torn_write_does_not() {
        let dir = TestDir::new("agent-slots");
        let stored = open_in(&dir).unwrap();
        for number in [7, 8, 9] {
            stored.change(move |list| list.push(number)).await.unwrap();
        }
        assert_eq!(open_in(&dir).unwrap().read(Vec::clone), [7, 8, 9]);
        let torn = dir.path().join("a.1");
        let mut content = std::fs::read(&torn).unwrap();
        let end = content.iter().position(|byte| *byte == b'\n').unwrap();
        content[end + 1] ^= 1;
        std::fs::write(&torn, content).unwrap();
        let before = open_in(&dir).unwrap();
        assert_eq!(before.read(Vec::clone), [7, 8], "the one before");
        before.change(|list| list.push(10)).await.unwrap();
        assert_eq!(open_in(&dir).unwrap().read(Vec::clone), [7, 8, 10], "the torn one is written over first");
        for slot in ["a.0", "a.1"] {
            std::fs::write(dir.path().join(slot), "garbage").unwrap();
        }
        assert!(matches!(open_in(&dir), Err(DiskError::Damaged { .. })));
    }

    #[tokio::test]
    async fn writing_takes_no_more_space_and_is_for_the_owner_only() {
        let dir = TestDir::new("agent-reserve");
        let stored = open_in(&dir).unwrap();
        let blocks = || ["a.0", "a.1"].map(|slot| std::fs::metadata(dir.path().join(slot)).unwrap().blocks());
        let before = blocks();
        assert!(before.iter().all(|blocks| blocks * 512 >= SIZE), "{before:?}");
        for number in 0..500 {
            stored.change(move |list| list.push(number)).await.unwrap();
        }
        assert_eq!(blocks(), before);
        let mode = std::fs::metadata(dir.path().join("a.0")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        stored.change(|list| list.extend(0..5000)).await.unwrap();
        assert_eq!(open_in(&dir).unwrap().read(Vec::len), 5500, "what is larger than foreseen is kept too");
    }

    #[tokio::test]
    async fn what_is_not_on_the_disk_does_not_count_and_is_a_fault_until_it_can_be_written() {
        let dir = TestDir::new("agent-full");
        let faults = Arc::<Faults>::default();
        let stored = Stored::<Vec<u32>>::open(dir.path().join("a"), SIZE, faults.clone()).unwrap();
        stored.change(|list| list.push(1)).await.unwrap();
        fill_up(&dir.path().join("a"));
        assert!(stored.change(|list| list.push(2)).await.is_err());
        stored.mend().await;
        assert_eq!(stored.read(Vec::clone), [1]);
        let fault = &faults.list()[0];
        assert_eq!(fault.kind, NodeFaultKind::Disk);
        assert!(fault.detail.contains("No space left on device"), "{}", fault.detail);
        make_room(&dir.path().join("a"));
        stored.mend().await;
        assert_eq!(faults.list(), []);
        assert_eq!(open_in(&dir).unwrap().read(Vec::clone), [1]);
    }

    #[test]
    fn a_directory_that_takes_no_file_is_no_reason_not_to_start() {
        let dir = TestDir::new("agent-no-room");
        let faults = Arc::<Faults>::default();
        let stored = Stored::<Vec<u32>>::open(dir.path().join("none/a"), SIZE, faults.clone()).unwrap();
        assert!(stored.read(Vec::is_empty));
        assert_eq!(faults.list().len(), 1);
    }
}
