//! The keys of instances' tickets: made once, shared by all servers.

use super::error::SetupError;
use super::files::{credential, credential_path, random_hex, write_credential};
use super::step::{State, Step, Task};
use super::system::{self, Access};
use dinp_common::ticket_keys;
use std::path::Path;

/// The credential: `<key id>:<64 hexadecimal digits>` a line, the newest first.
pub const ID: &str = "ticket-keys";
/// Where the purge of dinp-server leaves it, because instances run on with their tickets.
const KEPT: &str = "/var/lib/dinp/ticket-keys";

/// The credential on the control machine: kept if it is there, taken back if a purge has kept it, made otherwise.
pub struct TicketKeys;

impl Step for TicketKeys {
    fn name(&self) -> String {
        format!("credential {ID}")
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            let Some(keys) = credential(ID)? else {
                let kept = system::read(Path::new(KEPT))?.is_some();
                return Ok(State::due(if kept { format!("taken back from {KEPT}") } else { "new".into() }));
            };
            check_keys(keys.expose())?;
            let is_safe = Access::SECRET.holds(&credential_path(ID))?;
            Ok(if is_safe { State::Ok } else { State::due("owner or permissions") })
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async {
            let there = credential(ID)?.map(|keys| keys.expose().to_owned());
            let kept = system::read(Path::new(KEPT))?;
            let keys = there.or(kept).unwrap_or_else(new_key);
            check_keys(keys.trim())?;
            write_credential(ID, keys.trim())
        })
    }
}

fn new_key() -> String {
    format!("{}:{}", random_hex(4), random_hex(32))
}

/// Keys that were damaged are not replaced: with new ones, the tickets of all that runs would be nobody's.
fn check_keys(keys: &str) -> Result<(), SetupError> {
    ticket_keys::parse(keys).map(drop).map_err(|error| {
        let path = credential_path(ID);
        SetupError::Refused(format!("{error}: restore {} from the backup of the control machine", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_keys_are_such_as_are_kept() {
        let keys = format!("{}\n{}", new_key(), new_key());
        assert!(check_keys(&keys).is_ok(), "{keys}");
    }

    #[test]
    fn damaged_keys_are_refused_by_their_line_and_not_quoted() {
        let error = check_keys(&format!("{}\n7:geheim", new_key())).unwrap_err().to_string();
        assert!(error.starts_with("line 2 of the ticket keys") && !error.contains("geheim"), "{error}");
        assert!(error.contains("restore /etc/dinp/credentials/ticket-keys"), "{error}");
    }
}
