//! The keys that sign instances' tickets, as they stand in the credential that all servers share: one
//! `<key id>:<64 hexadecimal digits>` a line, the newest first. Blank lines are skipped.

use crate::auth::from_hex;

/// A key and its id.
pub type TicketKey = (String, [u8; 32]);

/// The keys cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// A line is no key.
    #[error("line {0} of the ticket keys is not \"<key id>:<64 hexadecimal digits>\"")]
    Line(usize),
    /// There is none.
    #[error("there is no ticket key")]
    Empty,
}

/// Reads keys; there is one at least.
pub fn parse(text: &str) -> Result<Vec<TicketKey>, KeysError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let keys = lines.map(|(index, line)| key(line.trim()).ok_or(KeysError::Line(index + 1)));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() { Err(KeysError::Empty) } else { Ok(keys) }
}

fn key(line: &str) -> Option<TicketKey> {
    let (id, secret) = line.split_once(':')?;
    let is_id = (1..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    Some((id.to_owned(), from_hex(secret)?)).filter(|_| is_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "k1:0000000000000000000000000000000000000000000000000000000000000001";

    #[test]
    fn keys_come_in_their_order() {
        let newer = KEY.replace("k1", "k2");
        let ids = parse(&format!("{newer}\n\n {KEY}\n")).unwrap().into_iter().map(|(id, _)| id);
        assert_eq!(ids.collect::<Vec<_>>(), ["k2", "k1"]);
    }

    #[test]
    fn a_line_that_is_no_key_is_named() {
        let long = KEY.replace("k1", &"k".repeat(33));
        for bad in ["k1:12", "k1", &KEY.replace("k1", ""), &KEY.replace("k1:0", "k1:+"), &long] {
            assert_eq!(parse(&format!("{KEY}\n{bad}")), Err(KeysError::Line(2)), "{bad}");
        }
        assert_eq!(parse("\n"), Err(KeysError::Empty));
    }
}
