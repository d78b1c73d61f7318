//! The layer of a package: a canonical tar, compressed on all processors while it is read, and hashed on its way.
//!
//! It is cut into pieces of one size, each of which is a gzip member of its own: the same package gives the same bytes
//! however many processors there are, and no more than a few pieces are in memory.

use crate::context::{self, Placed};
use crate::package::{Package, PackageError};
use crate::registry::SILENCE;
use bytes::Bytes;
use dinp_common::auth::hex;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{self, Write};
use std::num::NonZero;
use std::thread;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_stream::wrappers::ReceiverStream;

/// Bytes of the tar in one member.
const PIECE: usize = 1 << 20;
/// Members that are sent and not yet taken.
const AHEAD: usize = 2;
/// Higher levels take twice the time for a fifth less.
const LEVEL: Compression = Compression::new(2);

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    /// Digest of what is stored.
    pub(crate) digest: String,
    /// Its bytes.
    pub(crate) size: u64,
    /// Digest of the tar.
    pub(crate) diff_id: String,
}

/// Why a layer was not made whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error("compress the layer")]
    Compress(#[source] io::Error),
    #[error("whoever took the layer has gone")]
    Gone,
    #[error("nothing of the layer was taken for {} s", SILENCE.as_secs())]
    Stalled,
}

/// The reading of the package: the digest of the tar at its end.
type Walk = JoinHandle<Result<String, PackageError>>;
/// A piece that is being compressed.
type Member = JoinHandle<io::Result<Vec<u8>>>;

/// A layer under way.
pub(crate) struct Making {
    task: JoinHandle<Result<Layer, LayerError>>,
}

impl Making {
    /// Begins to make the layer of a package in its place; gives its bytes, too. Their stream ends with an error where the
    /// package cannot be read to its end.
    pub(crate) fn begin(
        package: Package,
        place: Placed,
    ) -> (Self, impl Stream<Item = io::Result<Bytes>> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let (members, order) = mpsc::channel(processors);
        let walk = spawn_blocking(move || {
            let mut pieces = Pieces { members, handle: Handle::current(), piece: Vec::new(), hash: Sha256::new() };
            context::write_layer(&package, &place, &mut pieces)?;
            Ok(hex(&pieces.hash.finalize()))
        });
        (Self { task: tokio::spawn(gather(walk, order, sender)) }, ReceiverStream::new(receiver))
    }

    /// What it has become.
    pub(crate) async fn end(self) -> Result<Layer, LayerError> {
        self.task.await.map_err(|error| LayerError::Compress(error.into()))?
    }
}

/// Hands the members on, and tells whoever takes them if there will never be all.
async fn gather(
    walk: Walk,
    order: mpsc::Receiver<Member>,
    sender: mpsc::Sender<io::Result<Bytes>>,
) -> Result<Layer, LayerError> {
    let made = hand_on(walk, order, &sender).await;
    if made.is_err() {
        // Without this the body would only end, and look whole.
        drop(tokio::time::timeout(SILENCE, sender.send(Err(io::ErrorKind::InvalidData.into()))).await);
    }
    made
}

async fn hand_on(
    walk: Walk,
    mut order: mpsc::Receiver<Member>,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<Layer, LayerError> {
    let (mut hash, mut size) = (Sha256::new(), 0);
    while let Some(member) = order.recv().await {
        let member = member.await.unwrap_or_else(|error| Err(error.into())).map_err(LayerError::Compress)?;
        hash.update(&member);
        size += member.len() as u64;
        let sent = tokio::time::timeout(SILENCE, sender.send(Ok(member.into()))).await;
        sent.map_err(|_| LayerError::Stalled)?.map_err(|_| LayerError::Gone)?;
    }
    let diff_id = walk.await.map_err(|error| LayerError::Compress(error.into()))??;
    Ok(Layer { digest: format!("sha256:{}", hex(&hash.finalize())), size, diff_id: format!("sha256:{diff_id}") })
}

/// Takes the tar, and lets each piece of it be compressed by itself.
struct Pieces {
    members: mpsc::Sender<Member>,
    handle: Handle,
    piece: Vec<u8>,
    hash: Sha256,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.capacity() == 0 {
            self.piece.reserve_exact(PIECE);
        }
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.hash.update(&piece);
        let member = self.handle.spawn_blocking(move || compress(&piece));
        self.members.blocking_send(member).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn compress(piece: &[u8]) -> io::Result<Vec<u8>> {
    let mut member = GzEncoder::new(Vec::with_capacity(piece.len() / 2), LEVEL);
    member.write_all(piece)?;
    member.finish()
}
