//! Packages that arrive in parts: what has come stays for a while, so that an upload that broke off goes on where it stopped,
//! also after a restart.
//!
//! `ID.part` is what has come, `ID.json` what it is for.

use crate::intake::{Intake, Place};
use crate::kept;
use crate::package::Spooled;
use bytes::Bytes;
use dinp_common::api::builder::{BuildQuery, UploadView};
use dinp_common::auth::hex;
use futures_util::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

/// After how long an upload that nobody goes on with gives way to those of others.
const ABANDONED: Duration = Duration::from_secs(60);

/// What an upload is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct About {
    /// What is to be built of it, and for whom.
    pub query: BuildQuery,
    /// How many bytes there will be.
    pub bytes: u64,
    /// Their SHA-256 in hexadecimal, where whoever sends them has said so.
    pub sha256: Option<String>,
    /// The build that was made of it; then its bytes are gone.
    pub build: Option<u64>,
}

/// Why a part was not taken, or the whole cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Other bytes are the next.
    #[error("the next byte of this upload is byte {0}: go on there")]
    WrongOffset(u64),
    /// More came than was said.
    #[error("the upload has more bytes than the {0} that were announced")]
    TooLong(u64),
    /// Something is missing.
    #[error("only {0} of {1} bytes of the package have arrived")]
    Incomplete(u64, u64),
    /// Not the bytes that were announced.
    #[error("the bytes that arrived are not those that were announced: their SHA-256 is {0}")]
    Damaged(String),
    /// Nothing came for too long.
    #[error("the upload stalled: no byte within {0} s")]
    Stalled(u64),
    /// Whoever sent it went away, or sends the same anew.
    #[error("the part did not arrive whole")]
    Broken,
    /// The disk refuses it.
    #[error("write the package to the spool")]
    Disk(#[from] io::Error),
}

/// One package that arrives.
#[derive(Debug)]
pub struct Upload {
    id: String,
    /// How many bytes have come.
    came: Arc<AtomicU64>,
    state: Mutex<State>,
    /// The one that writes, one at a time.
    part: tokio::sync::Mutex<Part>,
    /// One build is made of it.
    pub building: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    about: About,
    /// None once a build was made of it.
    place: Option<Arc<Place>>,
    touched: Instant,
    /// Ends the part that arrives now.
    arriving: CancellationToken,
}

#[derive(Debug)]
struct Part {
    file: tokio::fs::File,
    /// Of what has come; not yet known of what an earlier process took.
    hash: Option<Sha256>,
    /// How many bytes have come, for whoever asks meanwhile.
    came: Arc<AtomicU64>,
}

/// All of them.
#[derive(Debug)]
pub struct Uploads {
    directory: PathBuf,
    keep: Duration,
    known: Mutex<HashMap<String, Arc<Upload>>>,
}

impl Uploads {
    /// Uploads below this directory, with those that an earlier process has left, as far as there are places for them. Each is
    /// forgotten after so long without a byte.
    pub fn open(directory: PathBuf, keep: Duration, intake: &Intake) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        let uploads = Self { directory, keep, known: Mutex::default() };
        for entry in fs::read_dir(&uploads.directory)? {
            let path = entry?.path();
            let id = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
            if uploads.known().contains_key(&id) {
                continue;
            }
            match uploads.read(&id, intake) {
                Ok(upload) => drop(uploads.known().insert(id, upload)),
                Err(error) => {
                    tracing::info!(upload = id, %error, "what is left of an upload is dropped");
                    fs::remove_file(path)?;
                }
            }
        }
        Ok(uploads)
    }

    fn read(&self, id: &str, intake: &Intake) -> io::Result<Arc<Upload>> {
        let about: About = serde_json::from_slice(&fs::read(self.about(id))?)?;
        let last = if about.build.is_some() { self.about(id) } else { self.part(id) };
        // A builder that is idle ends long before an upload is old: the time goes on without it.
        let age = last.metadata()?.modified()?.elapsed().unwrap_or_default();
        if age >= self.keep {
            return Err(io::Error::other("nobody has gone on with it"));
        }
        let upload = self.opened(id, about, intake)?;
        upload.state().touched = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
        Ok(upload)
    }

    fn opened(&self, id: &str, about: About, intake: &Intake) -> io::Result<Arc<Upload>> {
        if about.build.is_some() {
            return Ok(Upload::new(id, about, None, Part::nothing()?));
        }
        let place = intake.take(&about.query.user, about.bytes).map_err(io::Error::other)?;
        let file = File::options().read(true).append(true).open(self.part(id))?;
        let came = file.metadata()?.len();
        Ok(Upload::new(id, about, Some(place), Part::new(file, None, came)))
    }

    /// A new upload.
    pub fn begin(&self, about: About, place: Place) -> io::Result<Arc<Upload>> {
        let id = hex(&rand::random::<[u8; 16]>());
        let file = File::options().read(true).append(true).create_new(true).open(self.part(&id))?;
        self.write(&id, &about)?;
        let upload = Upload::new(&id, about, Some(place), Part::new(file, Some(Sha256::new()), 0));
        self.known().insert(id, upload.clone());
        Ok(upload)
    }

    /// What has arrived of these bytes of this person, to be built as is asked for now.
    pub fn again(&self, about: &About) -> io::Result<Option<Arc<Upload>>> {
        let same = |upload: &Arc<Upload>| {
            let known = upload.state();
            about.sha256.is_some()
                && known.about.sha256 == about.sha256
                && known.about.bytes == about.bytes
                && known.about.query.user == about.query.user
                && known.about.build.is_none()
        };
        let Some(found) = self.known().values().find(|upload| same(upload)).cloned() else { return Ok(None) };
        self.write(&found.id, about)?;
        let mut state = found.state();
        state.about = about.clone();
        state.touched = Instant::now();
        drop(state);
        Ok(Some(found))
    }

    /// An upload of this person.
    pub fn find(&self, id: &str, user: &str) -> Option<Arc<Upload>> {
        self.known().get(id).filter(|upload| upload.state().about.query.user == user).cloned()
    }

    /// A build was made of it: its bytes are not needed any more.
    pub fn built(&self, upload: &Upload, build: u64) -> io::Result<()> {
        let about = {
            let mut state = upload.state();
            state.place = None;
            state.about.build = Some(build);
            state.about.clone()
        };
        self.write(&upload.id, &about)?;
        fs::remove_file(self.part(&upload.id))
    }

    /// Forgets an upload.
    pub fn forget(&self, upload: &Upload) {
        upload.state().arriving.cancel();
        self.known().remove(&upload.id);
        for path in [self.about(&upload.id), self.part(&upload.id)] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "what is left of an upload stays on disk");
            }
        }
    }

    /// Forgets those that nobody has gone on with.
    pub fn forget_old(&self) {
        let old: Vec<_> = {
            let known = self.known();
            known.values().filter(|upload| upload.idle().is_some_and(|idle| idle >= self.keep)).cloned().collect()
        };
        old.iter().for_each(|upload| self.forget(upload));
    }

    /// Forgets the upload that has waited longest for somebody to go on, of this person or, for at least a minute, of anybody;
    /// false where there is none.
    pub fn make_room(&self, user: &str) -> bool {
        let waits = |upload: &Arc<Upload>| {
            let idle = upload.idle()?;
            let state = upload.state();
            let may_go = state.about.query.user == user || idle >= ABANDONED;
            (state.place.is_some() && may_go).then(|| (idle, upload.clone()))
        };
        let longest = self.known().values().filter_map(waits).max_by_key(|(idle, _)| *idle);
        longest.inspect(|(_, upload)| self.forget(upload)).is_some()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Arc<Upload>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, id: &str, about: &About) -> io::Result<()> {
        let new = self.directory.join(format!("{id}.new"));
        fs::write(&new, serde_json::to_vec(about)?)?;
        fs::rename(new, self.about(id))
    }

    fn about(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    fn part(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.part"))
    }

    /// As it is told to whoever sends it.
    pub fn view(&self, upload: &Upload) -> UploadView {
        let state = upload.state();
        UploadView {
            id: upload.id.clone(),
            app: state.about.query.app.clone(),
            offset: upload.came.load(Ordering::Relaxed),
            bytes: state.about.bytes,
            build: state.about.build,
            kept_secs: u32::try_from(self.keep.as_secs()).unwrap_or(u32::MAX),
        }
    }
}

impl Upload {
    fn new(id: &str, about: About, place: Option<Place>, part: Part) -> Arc<Self> {
        let state =
            State { about, place: place.map(Arc::new), touched: Instant::now(), arriving: CancellationToken::new() };
        let came = part.came.clone();
        let (part, building) = (tokio::sync::Mutex::new(part), tokio::sync::Mutex::default());
        Arc::new(Self { id: id.to_owned(), came, state: Mutex::new(state), part, building })
    }

    /// How long nothing was done with it; nothing while something is.
    fn idle(&self) -> Option<Duration> {
        let _neither = (self.part.try_lock().ok()?, self.building.try_lock().ok()?);
        Some(self.state().touched.elapsed())
    }

    /// What it is for.
    pub fn about(&self) -> About {
        self.state().about.clone()
    }

    /// Takes the next part; `stall` is the longest wait for a byte of it. What came before it broke off stays.
    pub async fn append<E>(
        &self,
        offset: u64,
        stream: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
        stall: Duration,
    ) -> Result<(), UploadError> {
        // Who goes on has given up the connection that the last part came by, whether or not that is known here.
        let arriving = {
            let mut state = self.state();
            state.arriving.cancel();
            state.arriving = CancellationToken::new();
            state.arriving.clone()
        };
        let mut part = self.part.lock().await;
        let taken = part.take(offset, self.about().bytes, stream, stall, &arriving).await;
        self.state().touched = Instant::now();
        taken
    }

    /// All of it, and its place, which it shares with the build.
    pub async fn whole(&self) -> Result<(Spooled, Option<Arc<Place>>), UploadError> {
        let mut part = self.part.lock().await;
        let About { bytes, sha256: announced, .. } = self.about();
        let sha256 = hex(&part.hash().await?.finalize());
        let came = self.came.load(Ordering::Relaxed);
        if came != bytes {
            return Err(UploadError::Incomplete(came, bytes));
        }
        if announced.is_some_and(|announced| announced != sha256) {
            return Err(UploadError::Damaged(sha256));
        }
        let file = part.file.try_clone().await?.into_std().await;
        Ok((Spooled::new(file, bytes, sha256), self.state().place.clone()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    fn new(file: File, hash: Option<Sha256>, came: u64) -> Self {
        Self { file: tokio::fs::File::from_std(file), hash, came: Arc::new(came.into()) }
    }

    /// Of an upload that a build was made of.
    fn nothing() -> io::Result<Self> {
        Ok(Self::new(tempfile::tempfile()?, None, 0))
    }

    /// The hash of what has come, and of nothing else: where that is not known, it is what the disk has.
    async fn hash(&mut self) -> io::Result<Sha256> {
        if let Some(hash) = &self.hash {
            return Ok(hash.clone());
        }
        let mut file = self.file.try_clone().await?.into_std().await;
        let read = tokio::task::spawn_blocking(move || kept::hash(&mut file));
        let (hash, came) = read.await.unwrap_or_else(|error| Err(error.into()))?;
        self.came.store(came, Ordering::Relaxed);
        self.hash = Some(hash.clone());
        Ok(hash)
    }

    async fn take<E>(
        &mut self,
        offset: u64,
        most: u64,
        stream: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
        stall: Duration,
        arriving: &CancellationToken,
    ) -> Result<(), UploadError> {
        let mut hash = self.hash().await?;
        let came = self.came.load(Ordering::Relaxed);
        if offset != came {
            return Err(UploadError::WrongOffset(came));
        }
        // Whoever sends may go away at any time, and then this is not gone on with.
        self.hash = None;
        let taken = self.take_all(&mut hash, most, stream, stall, arriving).await;
        // What is counted is on disk, as far as the system's memory goes.
        self.file.flush().await?;
        if !matches!(taken, Err(UploadError::Disk(_))) {
            self.hash = Some(hash);
        }
        taken
    }

    async fn take_all<E>(
        &mut self,
        hash: &mut Sha256,
        most: u64,
        stream: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
        stall: Duration,
        arriving: &CancellationToken,
    ) -> Result<(), UploadError> {
        let mut came = self.came.load(Ordering::Relaxed);
        loop {
            let next = tokio::select! {
                next = tokio::time::timeout(stall, stream.next()) => next,
                () = arriving.cancelled() => return Err(UploadError::Broken),
            };
            let Some(chunk) = next.map_err(|_| UploadError::Stalled(stall.as_secs()))? else { return Ok(()) };
            let chunk = chunk.map_err(|_| UploadError::Broken)?;
            came += chunk.len() as u64;
            if came > most {
                return Err(UploadError::TooLong(most));
            }
            self.file.write_all(&chunk).await?;
            hash.update(&chunk);
            self.came.store(came, Ordering::Relaxed);
        }
    }
}
