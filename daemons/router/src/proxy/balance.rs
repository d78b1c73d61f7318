//! Which instance gets a request: the less busy of two drawn at random.

use crate::table::Endpoint;
use dinp_common::model::InstanceId;
use std::time::Instant;

/// Chooses among the endpoints that have not been tried; `random(n)` draws from `0..n`.
///
/// Ready ones come first, then those that are set aside for a moment, then suspect ones. When more than half of an
/// app's endpoints are set aside, none is: then the fault is likelier ours, or the app's as a whole.
pub(crate) fn choose<'a>(
    endpoints: &'a [Endpoint],
    tried: &[InstanceId],
    now: Instant,
    mut random: impl FnMut(usize) -> usize,
) -> Option<&'a Endpoint> {
    let usable = |endpoint: &Endpoint| endpoint.weight > 0 && !tried.contains(&endpoint.instance.id);
    let ready = || endpoints.iter().filter(|endpoint| endpoint.weight > 0 && !endpoint.suspect);
    let aside = ready().filter(|endpoint| endpoint.instance.is_aside(now)).count();
    let ignore_aside = aside * 2 > ready().count();
    let rank = |endpoint: &Endpoint| match endpoint.suspect {
        true => 2,
        false => u8::from(!ignore_aside && endpoint.instance.is_aside(now)),
    };
    let best = endpoints.iter().filter(|endpoint| usable(endpoint)).map(rank).min()?;
    let candidates = || endpoints.iter().filter(|endpoint| usable(endpoint) && rank(endpoint) == best);
    let count = candidates().count();
    let first = random(count);
    let mut second = random(count.max(2) - 1);
    if second >= first {
        second += 1;
    }
    // The clock may have moved an endpoint between the two passes; then the first that is left will do.
    let one = candidates().nth(first).or_else(|| candidates().next())?;
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
        assert_eq!(possible(&endpoints, &[]), [1, 2, 3, 4]);
    }
}
