//! What to do when space runs out, without I/O.

use bollard::models::{ContainerSummary, ImageSummary};
use dinp_common::model::InstanceId;
use std::collections::{BTreeMap, BTreeSet};

const MIB: u64 = 1 << 20;

/// What an instance must have written for its end to be worth it.
const WORTH: u64 = 64 * MIB;

/// An image is left alone for so long after it was made: a builder beside the agent may be pushing it.
const YOUNG_SECS: i64 = 600;

/// How short of space a file system is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pressure {
    /// Not at all.
    #[default]
    None,
    /// No new work here, and what nobody needs goes.
    Low,
    /// Somebody has to stop.
    Critical,
}

/// When space is short, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    low: u64,
    reserve: u64,
}

impl Limits {
    pub(super) fn of_mb(low_mb: u32, reserve_mb: u32) -> Self {
        Self { low: u64::from(low_mb) * MIB, reserve: u64::from(reserve_mb) * MIB }
    }

    /// With so much free, after it was like that. It is no longer low an eighth later than it became so.
    pub(super) fn pressure(&self, free: u64, was: Pressure) -> Pressure {
        let enough = if was == Pressure::None { self.low } else { self.low + self.low / 8 };
        match free {
            free if free < self.reserve => Pressure::Critical,
            free if free < enough => Pressure::Low,
            _ => Pressure::None,
        }
    }

    /// The fault in words.
    pub(super) fn fault(&self, path: &str, free: u64) -> String {
        format!("{path} has {} left, less than {}", size(free), size(self.low))
    }
}

/// An instance that takes space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Writer {
    pub(super) instance: InstanceId,
    /// Bytes in the container's own layer.
    written: u64,
    /// Whether it has a volume, of which the engine does not tell the size.
    has_volume: bool,
}

impl Writer {
    /// From a list with sizes.
    pub(super) fn of(instance: InstanceId, summary: &ContainerSummary) -> Self {
        let written = summary.size_rw.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        let mut mounts = summary.mounts.iter().flatten();
        Self { instance, written, has_volume: mounts.any(|mount| mount.typ.as_deref() == Some("volume")) }
    }

    /// Why it is stopped.
    pub(super) fn reason(&self, free: u64) -> String {
        let left = size(free);
        match self.written >= WORTH {
            true => format!("stopped: it had written {} to its disk, the node had {left} left", size(self.written)),
            false => {
                format!("stopped: it has a volume of its image's, whose size is not known, the node had {left} left")
            }
        }
    }
}

/// Who stops: the one that has written most, else one whose volume may be what fills the disk.
pub(super) fn offender(writers: &[Writer]) -> Option<&Writer> {
    let largest = writers.iter().filter(|writer| writer.written >= WORTH).max_by_key(|writer| writer.written);
    largest.or_else(|| writers.iter().filter(|writer| writer.has_volume).max_by_key(|writer| writer.written))
}

/// MiB that those have written that are over their limit.
pub(super) fn over_limit(writers: &[Writer], limit_mb: u32) -> BTreeMap<InstanceId, u32> {
    let over = writers.iter().filter(|writer| writer.written > u64::from(limit_mb) * MIB);
    over.map(|writer| (writer.instance.clone(), u32::try_from(writer.written / MIB).unwrap_or(u32::MAX))).collect()
}

/// Names of images that no container uses and no order names.
pub(super) fn unpinned(
    images: &[ImageSummary],
    used: &BTreeSet<String>,
    ordered: &BTreeSet<String>,
    now_secs: i64,
) -> Vec<String> {
    let names = |image: &ImageSummary| -> Vec<String> {
        image.repo_digests.iter().chain(&image.repo_tags).filter(|name| !name.contains("<none>")).cloned().collect()
    };
    let is_free = |image: &&ImageSummary| {
        let is_ordered = names(image).iter().any(|name| ordered.contains(name));
        !used.contains(&image.id) && !is_ordered && now_secs - image.created > YOUNG_SECS
    };
    images.iter().filter(is_free).flat_map(names).collect()
}

/// As people read it: `3.1 GiB`, `200 MiB`.
fn size(bytes: u64) -> String {
    if bytes < 1024 * MIB {
        return format!("{} MiB", bytes / MIB);
    }
    let tenths = bytes / (1024 * MIB / 10);
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::MountPoint;

    fn writer(bits: u64, written_mb: u64, has_volume: bool) -> Writer {
        Writer { instance: InstanceId::from_bits(bits), written: written_mb * MIB, has_volume }
    }

    #[test]
    fn pressure_does_not_flap() {
        let limits = Limits::of_mb(1024, 256);
        let pressure = |free_mb: u64, was| limits.pressure(free_mb * MIB, was);
        assert_eq!(pressure(1024, Pressure::None), Pressure::None);
        assert_eq!(pressure(1023, Pressure::None), Pressure::Low);
        assert_eq!(pressure(1100, Pressure::Low), Pressure::Low);
        assert_eq!(pressure(1152, Pressure::Low), Pressure::None);
        assert_eq!(pressure(255, Pressure::Low), Pressure::Critical);
        assert_eq!(pressure(256, Pressure::Critical), Pressure::Low);
    }

    #[test]
    fn the_one_that_has_written_most_is_stopped_and_told_why() {
        let writers = [writer(1, 100, true), writer(2, 3200, false), writer(3, 0, false)];
        let found = offender(&writers).unwrap();
        assert_eq!(found.instance, InstanceId::from_bits(2));
        assert_eq!(found.reason(200 * MIB), "stopped: it had written 3.1 GiB to its disk, the node had 200 MiB left");
    }

    #[test]
    fn who_has_written_more_than_its_limit_is_named_with_what_it_has_written() {
        let writers = [writer(1, 4096, false), writer(2, 4097, false), writer(3, 9000, true)];
        let over = over_limit(&writers, 4096);
        assert_eq!(over, BTreeMap::from([(InstanceId::from_bits(2), 4097), (InstanceId::from_bits(3), 9000)]));
    }

    #[test]
    fn nobody_is_stopped_for_what_others_have_written() {
        assert_eq!(offender(&[writer(1, 63, false), writer(2, 0, false)]), None);
        let writers = [writer(1, 10, false), writer(2, 1, true)];
        let found = offender(&writers).unwrap();
        assert!(found.has_volume && found.reason(0).contains("a volume of its image's"));
    }

    #[test]
    fn sizes_come_from_the_engines_list() {
        let volume = MountPoint { typ: Some("volume".into()), ..MountPoint::default() };
        let summary = ContainerSummary { size_rw: Some(5), mounts: Some(vec![volume]), ..ContainerSummary::default() };
        let instance = InstanceId::from_bits(1);
        assert_eq!(Writer::of(instance.clone(), &summary), Writer { instance, written: 5, has_volume: true });
    }

    #[test]
    fn only_images_that_nobody_needs_go() {
        let image = |id: &str, name: &str, created| ImageSummary {
            id: id.into(),
            repo_digests: vec![name.into()],
            repo_tags: vec!["<none>:<none>".into()],
            created,
            ..ImageSummary::default()
        };
        let images = [
            image("used", "reg/a@sha256:1", 0),
            image("ordered", "reg/a@sha256:2", 0),
            image("young", "reg/a@sha256:3", 900),
            image("old", "reg/a@sha256:4", 0),
        ];
        let (used, ordered) = (["used".to_owned()].into(), ["reg/a@sha256:2".to_owned()].into());
        assert_eq!(unpinned(&images, &used, &ordered, 1000), ["reg/a@sha256:4"]);
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!([0, 200 * MIB, 1024 * MIB, 3200 * MIB].map(size), ["0 MiB", "200 MiB", "1.0 GiB", "3.1 GiB"]);
    }
}
