//! Which instance gets a request: of two drawn by their shares, the one that has less to do for its share.

use crate::table::Endpoint;
use dinp_common::model::InstanceId;
use std::time::Instant;

/// Requests in flight that are no crowd.
const LITTLE: u32 = 4;

/// Chooses among the endpoints that have not been tried, by index; `random(n)` draws from `0..n`.
///
/// Ready ones come first, then those that are set aside for a moment, then suspect ones. At most half of an app's
/// endpoints are set aside: when more have failed, the fault is likelier ours, or the app's as a whole.
///
/// Two are drawn with the probabilities of their shares, and compared by their requests in flight for each unit of it
/// (weighted power of two choices: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001). At rest
/// both have none, and the first one gets it: so shares hold under little load and under much. Where there are endpoints in
/// the router's own zone, two of them are drawn, and another one gets the request only when they are crowded beside it.
pub(crate) fn choose(
    endpoints: &[Endpoint],
    zone: &str,
    tried: &[InstanceId],
    now: Instant,
    mut random: impl FnMut(u64) -> u64,
) -> Option<usize> {
    let usable = |endpoint: &Endpoint| endpoint.weight > 0 && !endpoint.instance.is_dispossessed();
    let ready = |endpoint: &Endpoint| usable(endpoint) && !endpoint.suspect;
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
        let untried = |endpoint: &Endpoint| usable(endpoint) && !tried.contains(&endpoint.instance.id);
        let untried = endpoints.iter().enumerate().filter(move |(_, endpoint)| untried(endpoint));
        untried.map(|(index, endpoint)| (rank(index, endpoint), index, endpoint))
    };
    let best = ranked().map(|(rank, ..)| rank).min()?;
    let candidates = || {
        let best = ranked().filter(|(rank, ..)| *rank == best);
        best.map(|(_, index, endpoint)| Candidate { index, endpoint, share: share(endpoint, now) })
    };
    let is_near = |one: &Candidate<'_>| !zone.is_empty() && *one.endpoint.zone == *zone;
    let shares = |all: &mut dyn Iterator<Item = Candidate<'_>>| all.map(|one| one.share).sum::<u64>();
    // One that is to get little, as it is new or has a small weight, is not to get all because it is near.
    let is_worth_it = || shares(&mut candidates().filter(is_near)) * 10 >= shares(&mut candidates());
    let near = if zone.is_empty() || !is_worth_it() {
        None
    } else {
        two_choices(|| candidates().filter(is_near), &mut random)
    };
    let chosen = match near {
        None => two_choices(candidates, &mut random),
        Some(near) => {
            let far = two_choices(|| candidates().filter(|one| !is_near(one)), &mut random);
            Some(far.filter(|far| near.is_crowded_beside(far)).unwrap_or(near))
        }
    };
    // A failure in another worker may have moved an endpoint between two passes; then any that is left will do.
    chosen.map(|one| one.index).or_else(|| ranked().next().map(|(_, index, _)| index))
}

/// The better one of two that are drawn.
fn two_choices<'a, I: Iterator<Item = Candidate<'a>>>(
    candidates: impl Fn() -> I,
    random: &mut impl FnMut(u64) -> u64,
) -> Option<Candidate<'a>> {
    let total: u64 = candidates().map(|one| one.share).sum();
    if total == 0 {
        return None;
    }
    let first = drawn(candidates(), random(total))?;
    let left = total.saturating_sub(first.share);
    if left == 0 {
        return Some(first);
    }
    let second = drawn(candidates().filter(|one| one.index != first.index), random(left));
    Some(second.filter(|second| second.has_less_to_do_than(&first)).unwrap_or(first))
}

struct Candidate<'a> {
    index: usize,
    endpoint: &'a Endpoint,
    share: u64,
}

impl Candidate<'_> {
    fn has_less_to_do_than(&self, other: &Self) -> bool {
        self.load(other) < other.load(self)
    }

    /// Whether the way to another zone is worth it: this one has twice as much to do, and more than a little.
    fn is_crowded_beside(&self, far: &Self) -> bool {
        self.endpoint.instance.in_flight() > LITTLE && self.load(far) > 2 * far.load(self)
    }

    /// Requests in flight for each unit of its share, in a unit that compares with the other's.
    fn load(&self, other: &Self) -> u128 {
        u128::from(self.endpoint.instance.in_flight()) * u128::from(other.share)
    }
}

/// A part of the app's requests, in a unit that is fine enough for a part of a weight of 1.
fn share(endpoint: &Endpoint, now: Instant) -> u64 {
    u64::from(endpoint.weight) * u64::from(endpoint.instance.warmth(now))
}

/// The one on whose stretch the point lies, when all lie in a row.
fn drawn<'a>(mut candidates: impl Iterator<Item = Candidate<'a>>, point: u64) -> Option<Candidate<'a>> {
    let mut end = 0;
    candidates.find(|one| {
        end += one.share;
        point < end
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Address, InFlight, Instance, ReleaseStats};
    use rand::{Rng, SeedableRng};
    use std::time::Duration;

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

    /// The number of the one at this index: they count from 1.
    fn id(index: Option<usize>) -> Option<u64> {
        index.map(|index| index as u64 + 1)
    }

    /// When all of them are warm.
    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// All that can be chosen, with draws from all over.
    fn possible(endpoints: &[Endpoint], tried: &[u64]) -> Vec<u64> {
        let tried: Vec<InstanceId> = tried.iter().map(|bits| InstanceId::from_bits(*bits)).collect();
        let mut found = std::collections::BTreeSet::new();
        for a in 0..8 {
            for b in 0..8 {
                let mut draws = [a, b].into_iter();
                found.extend(id(choose(endpoints, "", &tried, later(), |n| n * draws.next().unwrap() / 8)));
            }
        }
        found.into_iter().collect()
    }

    /// How many of 10,000 requests each gets, when each request is over before the next one comes.
    fn spread(endpoints: &[Endpoint], now: Instant) -> Vec<u64> {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let mut counts = vec![0; endpoints.len()];
        for _ in 0..10_000 {
            let chosen = id(choose(endpoints, "", &[], now, |n| random.random_range(0..n))).unwrap();
            counts[chosen as usize - 1] += 1;
        }
        counts
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
    fn shares_hold_at_rest() {
        let mut endpoints = endpoints(3);
        (endpoints[0].weight, endpoints[1].weight, endpoints[2].weight) = (0, 99, 1);
        let counts = spread(&endpoints, later());
        assert_eq!(counts[0], 0);
        assert!((50..200).contains(&counts[2]), "{counts:?}");
    }

    #[test]
    fn shares_hold_under_load() {
        let mut endpoints = endpoints(2);
        endpoints[0].weight = 3;
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let mut under_way = Vec::new();
        for _ in 0..100 {
            let chosen = choose(&endpoints, "", &[], later(), |n| random.random_range(0..n)).unwrap();
            under_way.push(InFlight::new(&endpoints[chosen].instance));
        }
        let in_flight = endpoints[0].instance.in_flight();
        assert!((70..=80).contains(&in_flight), "{in_flight} of 100 went to the one of weight 3");
    }

    #[test]
    fn the_own_zone_comes_first_until_it_is_crowded() {
        let mut endpoints = endpoints(3);
        endpoints[0].zone = "a".into();
        let chosen = |zone| {
            let mut random = rand::rngs::StdRng::seed_from_u64(1);
            let chosen = (0..100).filter_map(|_| choose(&endpoints, zone, &[], later(), |n| random.random_range(0..n)));
            chosen.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(chosen("a"), [0].into());
        assert_eq!(chosen(""), [0, 1, 2].into());
        assert_eq!(chosen("b"), [0, 1, 2].into(), "nothing is there");
        let _some = [0; 4].map(|_| InFlight::new(&endpoints[0].instance));
        assert_eq!(chosen("a"), [0].into());
        let _more = InFlight::new(&endpoints[0].instance);
        assert_eq!(chosen("a"), [1, 2].into());
        let _far = [1, 2, 1, 2, 1, 2].map(|far: usize| InFlight::new(&endpoints[far].instance));
        assert_eq!(chosen("a"), [0].into(), "there is a crowd everywhere");
        endpoints[0].instance.refused(later());
        assert_eq!(chosen("a"), [1, 2].into());
    }

    #[test]
    fn a_new_one_gets_little_at_first() {
        let endpoints = endpoints(2);
        let begin = Instant::now();
        endpoints[1].instance.starts_slowly(begin);
        for (secs, least, most) in [(0, 500, 1500), (5, 2800, 3800), (10, 4500, 5500), (60, 4500, 5500)] {
            let counts = spread(&endpoints, begin + Duration::from_secs(secs));
            assert!((least..most).contains(&counts[1]), "after {secs} s: {counts:?}");
        }
        endpoints.iter().for_each(|endpoint| endpoint.instance.starts_slowly(begin));
        let counts = spread(&endpoints, begin);
        assert!((4500..5500).contains(&counts[1]), "where all are new there is nobody else: {counts:?}");
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
        endpoints[0].instance.refused(later());
        endpoints[1].instance.refused(later());
        assert_eq!(possible(&endpoints, &[]), [3, 4]);
        assert_eq!(possible(&endpoints, &[3, 4]), [1, 2], "better than none");
        endpoints[2].instance.refused(later());
        assert_eq!(possible(&endpoints, &[]), [3, 4], "a third one stays in");
        endpoints[3].instance.refused(later());
        assert_eq!(possible(&endpoints, &[]), [3, 4]);
        let alone = &endpoints[..1];
        assert_eq!(possible(alone, &[]), [1]);
    }
}
