//! What benchmarks print for machines.

use serde::Serialize;

/// One figure of a benchmark, beside that of a peer where there is one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What was asked for.
    pub case: String,
    /// What was measured.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// What DINP needs.
    pub ours: f64,
    /// Who else did the same in the same run; or "floor".
    pub peer: Option<String>,
    /// What the peer needs.
    pub theirs: Option<f64>,
    /// Ours to theirs: the median of the ratios of all rounds.
    pub ratio: Option<f64>,
    /// What the ratio is to be at most; where there is no peer, the figure itself.
    pub target: Option<f64>,
    /// Whether it is so.
    pub met: Option<bool>,
}

impl Figure {
    /// A figure with no other beside it.
    pub fn alone(case: &str, metric: &str, unit: &str, ours: f64, target: Option<f64>) -> Self {
        let met = target.map(|target| ours <= target);
        let (case, metric, unit) = (case.to_owned(), metric.to_owned(), unit.to_owned());
        Self { case, metric, unit, ours, peer: None, theirs: None, ratio: None, target, met }
    }

    /// The same beside what a peer needs, with the ratio of ours to it.
    #[must_use]
    pub fn beside(self, peer: &str, theirs: f64, ratio: f64, target: Option<f64>) -> Self {
        let met = target.map(|target| ratio <= target);
        Self { peer: Some(peer.to_owned()), theirs: Some(theirs), ratio: Some(ratio), target, met, ..self }
    }
}
