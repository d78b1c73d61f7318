//! What the first bytes of a file say against starting it in an image.

use super::elf;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// How many first bytes are looked at.
pub(super) const HEAD: u64 = 256;

/// Why a file of a package cannot be started or loaded in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// A program or library for another processor.
    Processor(Cow<'static, str>),
    /// A program or library for another operating system.
    System(Cow<'static, str>),
    /// A script whose first line ends with a carriage return.
    CarriageReturn,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ours = elf::MACHINE.1;
        match self {
            Self::Processor(theirs) => write!(f, "it is made for {theirs}, and images here are for {ours}"),
            Self::System(theirs) => write!(f, "it is made for {theirs}, and images here are for Linux"),
            Self::CarriageReturn => f.write_str(
                "its lines end as on Windows (CR LF), and so the interpreter in its first line is not found: \
                 sed -i 's/\\r$//' takes that away",
            ),
        }
    }
}

/// The fault of a file, by its first bytes.
pub(super) fn fault(head: &[u8], executable: bool) -> Option<Fault> {
    match head {
        [0x7f, b'E', b'L', b'F', ..] => elf::other_machine(head).map(|machine| Fault::Processor(machine.into())),
        [0xcf, 0xfa, 0xed, 0xfe, ..] => Some(Fault::System("macOS".into())),
        // Java classes begin like macOS' programs for several processors, and nobody executes them.
        [0xca, 0xfe, 0xba, 0xbe, ..] if executable => Some(Fault::System("macOS".into())),
        [b'M', b'Z', ..] if executable => Some(Fault::System("Windows".into())),
        [b'#', b'!', ..] if executable => {
            let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
            line.ends_with(b"\r").then_some(Fault::CarriageReturn)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_started_is_told_by_its_first_bytes() {
        let mut arm = vec![0; 64];
        arm[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let ours = u8::try_from(elf::MACHINE.0).unwrap();
        arm[18] = if ours == 62 { 183 } else { 62 };
        let text = fault(&arm, false).unwrap().to_string();
        assert!(text.starts_with("it is made for ") && text.ends_with(&format!("for {}", elf::MACHINE.1)), "{text}");
        arm[18] = ours;
        assert_eq!(fault(&arm, true), None);
        assert_eq!(fault(b"\xcf\xfa\xed\xfe\x0c", false), Some(Fault::System("macOS".into())));
        assert_eq!(fault(b"\xca\xfe\xba\xbe\0\0\0\x41", false), None, "a Java class");
        assert_eq!(fault(b"MZ\x90", true), Some(Fault::System("Windows".into())));
        assert_eq!(fault(b"#!/bin/sh\r\nexec x\r\n", true), Some(Fault::CarriageReturn));
        assert_eq!(fault(b"#!/bin/sh\nexec x\r\n", true), None);
        assert_eq!(fault(b"#!/bin/sh\r\n", false), None, "nobody starts it");
    }
}
