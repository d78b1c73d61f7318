//! What the targets share: ways to change an input so that more of it is read than its first checksum.

pub mod archives;
