//! One static executable: what its header says.

use super::error::PackageError;
use super::source::Spooled;

const TYPE_EXECUTABLE: u16 = 2;
const TYPE_SHARED: u16 = 3;
const SEGMENT_INTERPRETER: u32 = 3;
/// Size of a program header of a 64-bit program, as the kernel demands it.
const SEGMENT_SIZE: u64 = 56;

/// The number of the machine that the builder, and so its base images, are for.
pub(super) const MACHINE: (u16, &str) = if cfg!(target_arch = "aarch64") { (183, "ARM64") } else { (62, "x86-64") };

/// The processor that a program or library is made for, where that is another one than the builder's.
pub(super) fn other_machine(head: &[u8]) -> Option<&'static str> {
    let big_endian = *head.get(5)? == 2;
    let bytes = [*head.get(18)?, *head.get(19)?];
    let machine = if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    if machine == MACHINE.0 {
        return None;
    }
    Some(match machine {
        3 => "32-bit x86",
        20 | 21 => "PowerPC",
        22 => "s390x",
        40 => "32-bit ARM",
        62 => "x86-64",
        183 => "ARM64",
        243 => "RISC-V",
        _ => "another processor",
    })
}

/// Refuses what could not run in an image that holds nothing but it.
pub(super) fn check(spooled: &Spooled) -> Result<(), PackageError> {
    let refuse = |rule: String| Err(PackageError::Executable(rule));
    let head = spooled.head(64)?;
    if head.len() < 64 {
        return refuse("it is cut off in its header".into());
    }
    if head[4] != 2 || head[5] != 1 {
        return refuse("it is not a 64-bit little-endian program".into());
    }
    let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let kind = u16_at(16);
    if kind != TYPE_EXECUTABLE && kind != TYPE_SHARED {
        return refuse("it is an object file or core dump, not a program".into());
    }
    if let Some(theirs) = other_machine(&head) {
        return refuse(format!("it is made for {theirs}, and images here are for {}", MACHINE.1));
    }
    let offset = u64::from_le_bytes(std::array::from_fn(|i| head[32 + i]));
    let (size, count) = (u64::from(u16_at(54)), u64::from(u16_at(56)));
    if size != SEGMENT_SIZE || count == 0 {
        return refuse("it has no program headers".into());
    }
    let table = spooled.bytes(offset, size * count)?;
    if table.len() as u64 != size * count {
        return refuse("it is cut off in its program headers".into());
    }
    for segment in table.chunks_exact(usize::from(u16_at(54))) {
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| segment[at + i]));
        let segment_kind = u32::from_le_bytes(std::array::from_fn(|i| segment[i]));
        if segment_kind == SEGMENT_INTERPRETER {
            return refuse(
                "it is dynamically linked; build it static, or send an archive with a control script".into(),
            );
        }
        if u64_at(8).checked_add(u64_at(32)).is_none_or(|end| end > spooled.len()) {
            return refuse("it is cut off: a segment ends beyond the file".into());
        }
    }
    Ok(())
}
