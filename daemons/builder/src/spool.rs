//! Taking a package in: from the request's body into a file without a name, so that nothing is left of it
//! however the builder ends.

use crate::most::Most;
use crate::package::Spooled;
use axum::body::BodyDataStream;
use bytes::Bytes;
use dinp_common::auth::hex;
use futures_util::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Why a package did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It is too large.
    #[error("the package is larger than {0}")]
    TooLarge(Most),
    /// It has no byte.
    #[error("the package is empty: the request has no body")]
    Empty,
    /// Nothing came for too long.
    #[error("the upload stalled: no byte within {0} s")]
    Stalled(u64),
    /// Whoever sent it went away.
    #[error("receive the package")]
    Receive(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The disk refuses it.
    #[error("write the package to the spool in {}", directory.display())]
    Write {
        /// Where.
        directory: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Receives a whole body.
pub async fn receive<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    stream: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    directory: &Path,
    most: Most,
    stall: Duration,
) -> Result<Spooled, SpoolError> {
    let failed = |source| SpoolError::Write { directory: directory.to_owned(), source };
    let file = tempfile::tempfile_in(directory).map_err(failed)?;
    let mut writer = tokio::io::BufWriter::with_capacity(256 << 10, tokio::fs::File::from_std(file));
    let mut hash = Sha256::new();
    let mut len = 0_u64;
    loop {
        let next = tokio::time::timeout(stall, stream.next()).await;
        let Some(chunk) = next.map_err(|_| SpoolError::Stalled(stall.as_secs()))? else { break };
        let chunk = chunk.map_err(|error| SpoolError::Receive(error.into()))?;
        len += chunk.len() as u64;
        if len > most.bytes() {
            return Err(SpoolError::TooLarge(most));
        }
        hash.update(&chunk);
        writer.write_all(&chunk).await.map_err(failed)?;
    }
    if len == 0 {
        return Err(SpoolError::Empty);
    }
    writer.flush().await.map_err(failed)?;
    let file = writer.into_inner().into_std().await;
    Ok(Spooled::new(file, len, hex(&hash.finalize())))
}

/// Most that is read of a body that nobody wants.
const DISCARD_BYTES: u64 = 64 << 20;
/// Longest time for that.
const DISCARD_TIME: Duration = Duration::from_secs(10);

/// Reads on for a while after a refusal: a client that is still sending would lose the answer to a reset.
pub async fn discard(mut stream: BodyDataStream) {
    let read = async {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(chunk)) = stream.next().await {
            left = left.saturating_sub(chunk.len() as u64);
            if left == 0 {
                break;
            }
        }
    };
    if tokio::time::timeout(DISCARD_TIME, read).await.is_err() {
        tracing::debug!("refused upload goes on, connection is closed");
    }
}
