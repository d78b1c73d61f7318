//! Finding out why an instance ended, or why it does not become ready.

use super::calls::inspect_raw;
use super::reason;
use super::sockets;
use super::terms::{Exit, Findings};
use crate::output;
use crate::shared::Shared;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::DownloadFromContainerOptions;
use dinp_common::error::ErrorChain;
use dinp_common::model::InstanceId;
use futures_util::StreamExt;
use std::time::Duration;

/// Exit codes of a program that could not be run, or that a shell took for a script.
const NOT_RUN: [i64; 3] = [2, 126, 127];

/// Most that is read of a program: its headers in an archive, and the beginning of the file.
const HEAD: usize = 8 * 1024;

/// Time to read it.
const LIMIT: Duration = Duration::from_secs(2);

/// A block of an archive.
const BLOCK: usize = 512;

/// What the container of an instance shows after its end. Its next start waits for this: what cannot be read at once is
/// left out.
pub async fn examine(shared: &Shared, container: &str, instance: &InstanceId, exit: &Exit, limit_mb: u32) -> Findings {
    let output = match output::quote(&shared.engine, container, instance).await {
        Ok(output) => output,
        Err(error) => {
            tracing::warn!(%instance, error = %ErrorChain(&error), "what an instance wrote before its end cannot be read");
            Vec::new()
        }
    };
    let told = match exit.is_unwatched || exit.out_of_memory {
        true => None,
        false => not_run(shared, container, exit.code, &output).await,
    };
    let reason = told.unwrap_or_else(|| reason::of_exit(exit, limit_mb));
    Findings { reason, out_of_memory: exit.out_of_memory, output }
}

/// The program that could not be run, if that is why it ended.
async fn not_run(shared: &Shared, container: &str, code: i64, output: &[String]) -> Option<String> {
    let refused = reason::refused(code, output);
    if refused.is_none() && !NOT_RUN.contains(&code) {
        return None;
    }
    let found = inspect_raw(shared, container).await.ok()??;
    if let Some(refused) = refused {
        let file = beginning(shared, container, &found, &refused.program).await;
        return Some(reason::of_refused(&refused, file.as_deref()));
    }
    let program = found.path.as_ref()?;
    let file = beginning(shared, container, &found, program).await?;
    reason::of_foreign(program, &file)
}

/// The first bytes of a program in a container; none where it is not there, or no plain file.
async fn beginning(
    shared: &Shared,
    container: &str,
    found: &ContainerInspectResponse,
    program: &str,
) -> Option<Vec<u8>> {
    let directory = found.config.as_ref().and_then(|config| config.working_dir.as_deref()).unwrap_or("/");
    // Runtimes of DINP go to the package's directory by themselves.
    let paths = match program {
        program if program.starts_with('/') => vec![program.to_owned()],
        program if program.contains('/') => vec![format!("{directory}/{program}"), format!("/app/{program}")],
        _ => return None,
    };
    for path in paths {
        let reading = read_beginning(shared, container, path);
        if let Ok(Some(file)) = tokio::time::timeout(LIMIT, reading).await {
            return Some(file);
        }
    }
    None
}

async fn read_beginning(shared: &Shared, container: &str, path: String) -> Option<Vec<u8>> {
    let docker = shared.engine.docker().await.ok()?;
    let mut chunks =
        std::pin::pin!(docker.download_from_container(container, Some(DownloadFromContainerOptions { path })).fuse());
    let mut archive = Vec::new();
    while archive.len() < HEAD
        && let Some(chunk) = chunks.next().await
    {
        archive.extend_from_slice(&chunk.ok()?);
    }
    content(&archive)
}

/// What the archive of a single plain file holds.
fn content(archive: &[u8]) -> Option<Vec<u8>> {
    let header = archive.get(..BLOCK)?;
    let size = std::str::from_utf8(&header[124..135]).ok()?;
    let size = usize::from_str_radix(size.trim_matches(['\0', ' ']), 8).ok()?;
    let is_plain = matches!(header[156], b'0' | 0);
    let rest = &archive[BLOCK..];
    is_plain.then(|| rest[..size.min(rest.len())].to_vec())
}

/// Where an instance listens instead of on its port, if nothing listens there.
pub async fn listens_instead(shared: &Shared, container: &str, port: u16) -> Option<String> {
    let found = inspect_raw(shared, container).await.ok()??;
    let pid = found.state?.pid.filter(|pid| *pid > 0)?;
    sockets::instead(pid, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_of_one_file_gives_its_beginning() {
        let mut archive = vec![0; BLOCK];
        archive[124..135].copy_from_slice(b"00000000005");
        archive[156] = b'0';
        archive.extend_from_slice(b"#!/xyz and padding");
        assert_eq!(content(&archive).unwrap(), b"#!/xy");
        archive[156] = b'5';
        assert_eq!(content(&archive), None, "a directory");
        assert_eq!(content(b"short"), None);
    }
}
