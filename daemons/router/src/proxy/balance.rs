//! Which instance gets a request: the less busy of two drawn at random.

use crate::table::Endpoint;
use dinp_common::model::InstanceId;
use std::time::Instant;

/// Chooses among the endpoints that have not been tried; `random(n)` draws from `0..n`.
///
/// Ready ones come first, then those that are set aside for a moment, then suspect ones. At most half of an app's
/// endpoints are set aside: when more have failed, the fault is likelier ours, or the app's as a whole.
pub(crate) fn choose<'a>(
    endpoints: &'a [Endpoint],
    tried: &[InstanceId],
    now: Instant,
    mut random: impl FnMut(usize) -> usize,
) -> Option<&'a Endpoint> {
    let ready = |endpoint: &Endpoint| endpoint.weight > 0 && !endpoint.suspect;
    let most_aside = endpoints.iter().filter(|endpoint| ready(endpoint)).count() / 2;
    let aside = |endpoint: &Endpoint| ready(endpoint) && endpoint.instance.is_aside(now);
    // Endpoints from this index on are not set aside.
    let cutoff = endpoints.iter().enumerate().filter(|(_, endpoint)| aside(endpoint)).nth(most_aside);
    let cutoff = cutoff.map_or(endpoints.len(), |(index, _)| index);
    let rank = |index: usize, endpoint: &Endpoint| match endpoint.suspect {
        true => 2,
        false => u8::from(index < cutoff && aside(endpoint)),
    };
    let ranked = || {
        let untried = |endpoint: &Endpoint| endpoint.weight > 0 && !tried.contains(&endpoint.instance.id);
        let usable = endpoints.iter().enumerate().filter(move |(_, endpoint)| untried(endpoint));
        usable.map(|(index, endpoint)| (rank(index, endpoint), endpoint))
    };
    let best = ranked().map(|(rank, _)| rank).min()?;
    let candidates = || ranked().filter(|(rank, _)| *rank == best).map(|(_, endpoint)| endpoint);
    let count = candidates().count();
    // A failure in another worker may have moved an endpoint between two passes; then any that is left will do.
    let first = random(count.max(1));
    let mut second = random(count.max(2) - 1);
    if second >= first {
        second += 1;
    }
    let one = candidates().nth(first).or_else(|| ranked().map(|(_, endpoint)| endpoint).next())?;
    let Some(other) = candidates().nth(second) else { return Some(one) };
    Some(if cost(other) < cost(one) { other } else { one })
}

/// Requests in flight by weight, in a unit that compares without rounding.
fn cost(endpoint: &Endpoint) -> u64 {
    (u64::from(endpoint.instance.in_flight()) + 1) * 1_000_000 / u64::from(endpoint.weight.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Address, InFlight, Instance, ReleaseStats};

    fn endpoints(count: u64) -> Vec<Endpoint> {
        let endpoint = |bits| Endpoint {
            instance: Instance::new(InstanceId::from_bits(bits)),
            address: Address::Ip("127.0.0.1:1".parse().unwrap()),
            zone: "".into(),
            weight: 1,
            suspect: false,
            stats: ReleaseStats::new("a".parse().unwrap(), 1),
        };
        (1..=count).map(endpoint).collect()
    }

    fn id(endpoint: Option<&Endpoint>) -> Option<u64> {
        endpoint.map(|endpoint| u64::from_str_radix(endpoint.instance.id.as_str(), 16).unwrap())
    }

    /// All that can be chosen, with every draw tried.
    fn possible(endpoints: &[Endpoint], tried: &[u64]) -> Vec<u64> {
        let tried: Vec<InstanceId> = tried.iter().map(|bits| InstanceId::from_bits(*bits)).collect();
        let mut found = std::collections::BTreeSet::new();
        for a in 0..8 {
            for b in 0..8 {
                let mut draws = [a, b].into_iter();
                found.extend(id(choose(endpoints, &tried, Instant::now(), |n| draws.next().unwrap() % n)));
            }
        }
        found.into_iter().collect()
    }

    #[test]
    fn each_is_tried_once() {
        let endpoints = endpoints(3);
        assert_eq!(possible(&endpoints, &[]), [1, 2, 3]);
        assert_eq!(possible(&endpoints, &[2]), [1, 3]);
        assert_eq!(possible(&endpoints, &[1, 2]), [3]);
        assert!(possible(&endpoints, &[1, 2, 3]).is_empty());
        assert!(possible(&[], &[]).is_empty());
    }

    #[test]
    fn the_less_busy_of_two() {
        let endpoints = endpoints(2);
        let _busy = InFlight::new(&endpoints[0].instance);
        assert_eq!(possible(&endpoints, &[]), [2]);
    }

    #[test]
    fn weights() {
        let mut endpoints = endpoints(3);
        endpoints[0].weight = 0;
        endpoints[1].weight = 3;
        assert_eq!(possible(&endpoints, &[]), [2]);
        let _busy = [0; 3].map(|_| InFlight::new(&endpoints[1].instance));
        assert_eq!(possible(&endpoints, &[]), [3]);
    }

    #[test]
    fn suspect_ones_come_last() {
        let mut endpoints = endpoints(3);
        endpoints[0].suspect = true;
        assert_eq!(possible(&endpoints, &[]), [2, 3]);
        assert_eq!(possible(&endpoints, &[2, 3]), [1]);
    }

    #[test]
    fn at_most_half_are_set_aside() {
        let endpoints = endpoints(4);
        endpoints[0].instance.refused(Instant::now());
        endpoints[1].instance.refused(Instant::now());
        assert_eq!(possible(&endpoints, &[]), [3, 4]);
        assert_eq!(possible(&endpoints, &[3, 4]), [1, 2], "better than none");
        endpoints[2].instance.refused(Instant::now());
        assert_eq!(possible(&endpoints, &[]), [3, 4], "a third one stays in");
        endpoints[3].instance.refused(Instant::now());
        assert_eq!(possible(&endpoints, &[]), [3, 4]);
        let alone = &endpoints[..1];
        assert_eq!(possible(alone, &[]), [1]);
    }
}
