//! A package's way to dash: in parts, so that what broke off goes on where it stopped, within a command and from one to the next.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dinp_common::api::builder::{BuildView, UploadView};
use dinp_common::api::people::UploadCreate;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::{Method, header};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use crate::api::Api;
use crate::error::CliError;
use crate::output::{Output, size};

const CHUNK: usize = 256 << 10;
/// Time between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// How long nothing may get through before the command gives up; what has come is kept by the builder for longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a connection may take nothing before another one is tried.
const STALL: Duration = Duration::from_secs(30);

/// Sends a file of so many bytes, and has it built; it is named and described by `asked`, whose hash is filled in here.
pub async fn file(
    file: File,
    bytes: u64,
    mut asked: UploadCreate,
    api: &Api,
    out: &Output,
) -> Result<BuildView, CliError> {
    let file = Arc::new(file);
    let read = {
        let file = file.clone();
        tokio::task::spawn_blocking(move || sha256(&file, bytes)).await
    };
    let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
    let sha256 = read.map_err(|error| CliError::file("read package", asked.package.as_ref(), error))?;
    (asked.bytes, asked.sha256) = (bytes, Some(sha256));
    let bar = bar(bytes, &asked.package, out);
    let sending = Sending { file, asked, api, bar: bar.clone() };
    let built = sending.through(out).await;
    bar.finish_and_clear();
    built
}

struct Sending<'a> {
    file: Arc<File>,
    asked: UploadCreate,
    api: &'a Api,
    bar: ProgressBar,
}

impl Sending<'_> {
    /// Tries for as long as something gets through now and then.
    async fn through(&self, out: &Output) -> Result<BuildView, CliError> {
        let mut upload: Option<UploadView> = None;
        let (mut came, mut in_vain_since) = (0, None::<Instant>);
        loop {
            let error = match self.once(&mut upload, out).await {
                Ok(build) => return Ok(build),
                Err(error) if is_passing(&error) => error,
                Err(error) => return Err(error),
            };
            let now = upload.as_ref().map_or(0, |upload| upload.offset);
            if now > came {
                (came, in_vain_since) = (now, None);
            }
            let since = *in_vain_since.get_or_insert_with(|| {
                out.note(format!("{error}; trying again"));
                Instant::now()
            });
            if since.elapsed() > PATIENCE {
                return Err(CliError::Unavailable {
                    message: format!("gave up sending after {} s: {error}", PATIENCE.as_secs()),
                    hint: "what has come is kept for a while: the same command goes on there".into(),
                });
            }
            sleep(PAUSE).await;
        }
    }

    /// Goes on with what there is.
    async fn once(&self, upload: &mut Option<UploadView>, out: &Output) -> Result<BuildView, CliError> {
        let known = match upload {
            Some(upload) => self.api.find::<UploadView>(&path(upload)).await?,
            None => None,
        };
        let is_new = known.is_none();
        let now = match known {
            Some(known) => known,
            None => self.api.post("/v1/uploads", &self.asked).await?,
        };
        if is_new && now.offset > 0 && now.offset < now.bytes {
            out.note(format!("going on where it broke off: {} of {} are there", size(now.offset), size(now.bytes)));
        }
        let (id, offset) = (path(&now), now.offset);
        *upload = Some(now);
        if offset < self.asked.bytes {
            self.send(&id, offset).await?;
        }
        self.bar.set_message(format!("the builder reads {}", self.asked.package));
        let build = self.api.send(self.api.request(Method::POST, &format!("{id}/build"))?).await?;
        let bytes = build.bytes().await.map_err(|error| self.api.broken(error))?;
        serde_json::from_slice(&bytes).map_err(|error| self.api.garbled(error))
    }

    async fn send(&self, id: &str, offset: u64) -> Result<(), CliError> {
        self.bar.set_position(offset);
        // What had come before counts for no speed.
        self.bar.reset_eta();
        let seen = self.bar.clone();
        let content = content(self.file.clone(), offset, self.asked.bytes)
            .inspect_ok(move |chunk: &Vec<u8>| seen.inc(chunk.len() as u64));
        let request = self
            .api
            .request(Method::PATCH, &format!("{id}?offset={offset}"))?
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, self.asked.bytes - offset)
            .body(reqwest::Body::wrap_stream(content));
        tokio::select! {
            sent = self.api.send(request) => sent.map(drop),
            () = self.stalled() => Err(CliError::Unavailable {
                message: format!("nothing got through for {} s", STALL.as_secs()),
                hint: String::new(),
            }),
        }
    }

    /// Ends when nothing was taken for too long.
    async fn stalled(&self) {
        let mut seen = (self.bar.position(), Instant::now());
        while seen.1.elapsed() < STALL {
            sleep(PAUSE).await;
            if self.bar.position() != seen.0 {
                seen = (self.bar.position(), Instant::now());
            }
        }
    }
}

fn path(upload: &UploadView) -> String {
    format!("/v1/uploads/{}", upload.id)
}

/// Whether it is about the way there, or about somebody who is away for a moment.
fn is_passing(error: &CliError) -> bool {
    match error.status() {
        None => error.is_transient(),
        Some(status) => matches!(status, 408 | 502..=504) || error.is_problem("wrong-offset"),
    }
}

fn bar(bytes: u64, name: &str, out: &Output) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(bytes), out.draw_target());
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.set_message(format!("uploading {name}"));
    bar
}

fn sha256(file: &File, bytes: u64) -> io::Result<String> {
    let (mut hash, mut buffer, mut at) = (Sha256::new(), vec![0; CHUNK], 0);
    while at < bytes {
        match file.read_at(&mut buffer, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                hash.update(&buffer[..read]);
                at += read as u64;
            }
        }
    }
    Ok(dinp_common::auth::hex(&hash.finalize()))
}

/// The bytes of a file from `offset` to `end`; attempts do not disturb each other.
fn content(file: Arc<File>, offset: u64, end: u64) -> impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static {
    futures_util::stream::try_unfold(offset, move |at| {
        let file = file.clone();
        async move {
            if at >= end {
                return Ok(None);
            }
            let most = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let chunk = tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; most];
                file.read_exact_at(&mut chunk, at).map(|()| chunk)
            });
            let chunk = chunk.await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
            let next = at + chunk.len() as u64;
            Ok(Some((chunk, next)))
        }
    })
    .boxed()
}
