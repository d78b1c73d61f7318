//! A release, as far as instances of it are made by it.

use super::{HealthCheck, ImageRef, Resources, Timing};

/// What an instance of a release is.
#[derive(Debug, Clone, PartialEq)]
pub struct ReleaseSpec {
    /// Id of the release.
    pub id: u64,
    /// Its number within the app: what people know it by.
    pub number: u32,
    /// Its image, by digest.
    pub image: ImageRef,
    /// Command instead of the image's own.
    pub command: Option<Vec<String>>,
    /// What an instance may use.
    pub resources: Resources,
    /// How to ask whether it is well.
    pub health: Option<HealthCheck>,
    /// Times that people have set.
    pub timing: Timing,
    /// Version of the environment.
    pub env_version: u32,
}
