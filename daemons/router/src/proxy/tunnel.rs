//! A connection that has become something else: bytes go both ways until one side ends, or none has moved for long.

use super::body::Lease;
use super::wire::Wire;
use crate::table::InFlight;
use bytes::{Bytes, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// The instance's side of an upgraded connection; in flight as long as it lives.
pub(crate) struct Tunnel {
    wire: Wire,
    leftover: oneshot::Receiver<Bytes>,
    _in_flight: InFlight,
}

impl Tunnel {
    /// Takes the connection out of an answer; `limit` is the longest time that the app may leave what it is sent unread.
    pub(crate) fn new(lease: &mut Lease, limit: Duration) -> Option<Self> {
        let connection = lease.connection.take()?;
        connection.wire.set_patience(limit);
        Some(Self { wire: connection.wire, leftover: connection.leftover, _in_flight: lease.in_flight.another() })
    }

    /// Carries bytes until the end. `sent` is what the client has sent so far.
    pub(crate) async fn run(self, mut client: TcpStream, sent: BytesMut, limit: Duration) -> io::Result<()> {
        let Self { mut wire, leftover, _in_flight } = self;
        let moved = wire.clone();
        let carry = async {
            wire.write_all(&sent).await?;
            let first = leftover.await.unwrap_or_default();
            client.write_all(&first).await?;
            copy_bidirectional(&mut client, &mut wire).await.map(drop)
        };
        let silence = async {
            let mut before = moved.moved();
            loop {
                tokio::time::sleep(limit).await;
                let now = moved.moved();
                if now == before {
                    return;
                }
                before = now;
            }
        };
        tokio::select! {
            ended = carry => ended,
            () = silence => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
