//! Which instance gets a request.

use crate::config::Balance;
use crate::table::Endpoint;
use dinp_common::model::InstanceId;
use smallvec::SmallVec;
use std::time::Instant;

/// Requests in flight that are no crowd.
const LITTLE: u32 = 4;
/// The golden ratio as a part of 2^32: its multiples lie as evenly as any sequence can, wherever it is cut off.
const GOLDEN: u32 = 0x9E37_79B9;

/// What a choice is made by.
pub(crate) struct Wish<'a> {
    pub(crate) balance: Balance,
    /// Of the app's requests, for those that go by turns.
    pub(crate) turn: u32,
    /// The router's own zone, or empty.
    pub(crate) zone: &'a str,
    pub(crate) tried: &'a [InstanceId],
    /// What has so many requests in flight gets no more.
    pub(crate) most: u32,
    pub(crate) now: Instant,
}

/// Why none is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nothing {
    /// There is none that has not been tried.
    Left,
    /// Those that would be chosen have as much to do as they may.
    Free,
}

type Few = SmallVec<[Candidate; 8]>;

/// Chooses among the endpoints that have not been tried, by index; `random(n)` draws from `0..n`.
///
/// Ready ones come first, then those that are set aside for a moment, then suspect ones. At most half of an app's
/// endpoints are set aside: when more have failed, the fault is likelier ours, or the app's as a whole.
///
/// Where there are endpoints in the router's own zone, one of them gets the request, unless it is crowded beside another.
pub(crate) fn choose(
    endpoints: &[Endpoint],
    wish: &Wish<'_>,
    mut random: impl FnMut(u64) -> u64,
) -> Result<usize, Nothing> {
    let usable = |endpoint: &&Endpoint| endpoint.weight > 0 && !endpoint.instance.is_dispossessed();
    let mut aside_left = endpoints.iter().filter(usable).filter(|endpoint| !endpoint.suspect).count() / 2;
    let mut best = Rank::Suspect;
    let mut candidates = Few::new();
    for (index, endpoint) in endpoints.iter().enumerate().filter(|(_, endpoint)| usable(endpoint)) {
        let rank = match endpoint.suspect {
            true => Rank::Suspect,
            false if aside_left > 0 && endpoint.instance.is_aside(wish.now) => Rank::Aside,
            false => Rank::Ready,
        };
        aside_left -= usize::from(rank == Rank::Aside);
        if !wish.tried.contains(&endpoint.instance.id) {
            best = best.min(rank);
            candidates.push(Candidate::new(index, endpoint, rank, wish));
        }
    }
    if candidates.is_empty() {
        return Err(Nothing::Left);
    }
    candidates.retain(|one| one.rank == best && one.in_flight < wish.most);
    let (mut near, far): (Few, Few) = candidates.into_iter().partition(|one| one.is_near);
    // One that is to get little, as it is new or has a small weight, is not to get all because it is near.
    let is_worth_it = shares(&near) * 10 >= shares(&near) + shares(&far);
    let chosen = if is_worth_it {
        match (pick(&near, wish, &mut random), pick(&far, wish, &mut random)) {
            (Some(near), Some(far)) if near.is_crowded_beside(&far) => Some(far),
            (near, far) => near.or(far),
        }
    } else {
        near.extend(far);
        pick(&near, wish, &mut random)
    };
    chosen.map(|one| one.index).ok_or(Nothing::Free)
}

/// One of these: by turns, each as often as its share says; or the better one of two that are drawn with the probabilities
/// of their shares, by their requests in flight for each unit of it (weighted power of two choices: Mitzenmacher, "The Power
/// of Two Choices in Randomized Load Balancing", 2001). At rest both have none, and the first one gets it: so shares hold
/// under little load and under much.
fn pick(candidates: &[Candidate], wish: &Wish<'_>, random: &mut impl FnMut(u64) -> u64) -> Option<Candidate> {
    let total = shares(candidates);
    if total == 0 {
        return None;
    }
    if wish.balance == Balance::RoundRobin {
        let part = u128::from(wish.turn.wrapping_mul(GOLDEN));
        return drawn(candidates.iter(), ((u128::from(total) * part) >> 32) as u64);
    }
    let first = drawn(candidates.iter(), random(total))?;
    let left = total - first.share;
    if left == 0 {
        return Some(first);
    }
    let second = drawn(candidates.iter().filter(|one| one.index != first.index), random(left));
    second.filter(|second| second.has_less_to_do_than(&first)).or(Some(first))
}

/// How far an endpoint is trusted; the first ones come first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Ready,
    Aside,
    Suspect,
}

/// An endpoint at the moment of the choice.
#[derive(Clone, Copy)]
struct Candidate {
    index: usize,
    rank: Rank,
    is_near: bool,
    /// A part of the app's requests, in a unit that is fine enough for a part of a weight of 1.
    share: u64,
    in_flight: u32,
}

impl Candidate {
    fn new(index: usize, endpoint: &Endpoint, rank: Rank, wish: &Wish<'_>) -> Self {
        Self {
            index,
            rank,
            is_near: !wish.zone.is_empty() && *endpoint.zone == *wish.zone,
            share: u64::from(endpoint.weight) * u64::from(endpoint.instance.warmth(wish.now)),
            in_flight: endpoint.instance.in_flight(),
        }
    }

    fn has_less_to_do_than(&self, other: &Self) -> bool {
        self.load(other) < other.load(self)
    }

    /// Whether the way to another zone is worth it: this one has twice as much to do, and more than a little.
    fn is_crowded_beside(&self, far: &Self) -> bool {
        self.in_flight > LITTLE && self.load(far) > 2 * far.load(self)
    }

    /// Requests in flight for each unit of its share, in a unit that compares with the other's.
    fn load(&self, other: &Self) -> u128 {
        u128::from(self.in_flight) * u128::from(other.share)
    }
}

fn shares(candidates: &[Candidate]) -> u64 {
    candidates.iter().map(|one| one.share).sum()
}

/// The one on whose stretch the point lies, when all lie in a row.
fn drawn<'a>(mut candidates: impl Iterator<Item = &'a Candidate>, point: u64) -> Option<Candidate> {
    let mut end = 0;
    let found = candidates.find(|one| {
        end += one.share;
        point < end
    });
    found.copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Address, InFlight, Instance, ReleaseStats};
    use rand::{Rng, SeedableRng};
    use std::sync::Arc;
    use std::time::Duration;

    fn endpoints(count: u64) -> Vec<Endpoint> {
        let endpoint = |bits| Endpoint {
            instance: Instance::new(InstanceId::from_bits(bits)),
            address: Address::V4("127.0.0.1:1".parse().unwrap()),
            zone: Arc::default(),
            weight: 1,
            suspect: false,
            stats: ReleaseStats::new("a".parse().unwrap(), 1),
        };
        (1..=count).map(endpoint).collect()
    }

    fn wish(now: Instant) -> Wish<'static> {
        Wish { balance: Balance::LeastRequests, turn: 0, zone: "", tried: &[], most: u32::MAX, now }
    }

    /// When all of them are warm.
    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// All that can be chosen, with draws from all over.
    fn possible(endpoints: &[Endpoint], tried: &[u64]) -> Vec<u64> {
        let tried: Vec<InstanceId> = tried.iter().map(|bits| InstanceId::from_bits(*bits)).collect();
        let wish = Wish { tried: &tried, ..wish(later()) };
        let mut found = std::collections::BTreeSet::new();
        for a in 0..8 {
            for b in 0..8 {
                let mut draws = [a, b].into_iter();
                let chosen = choose(endpoints, &wish, |n| n * draws.next().unwrap() / 8);
                // They count from 1.
                found.extend(chosen.map(|index| index as u64 + 1));
            }
        }
        found.into_iter().collect()
    }

    /// How many of 10,000 requests each gets, when each request is over before the next one comes.
    fn spread(endpoints: &[Endpoint], now: Instant) -> Vec<u64> {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let mut counts = vec![0; endpoints.len()];
        for _ in 0..10_000 {
            counts[choose(endpoints, &wish(now), |n| random.random_range(0..n)).unwrap()] += 1;
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
            let chosen = choose(&endpoints, &wish(later()), |n| random.random_range(0..n)).unwrap();
            under_way.push(InFlight::new(&endpoints[chosen].instance));
        }
        let in_flight = endpoints[0].instance.in_flight();
        assert!((70..=80).contains(&in_flight), "{in_flight} of 100 went to the one of weight 3");
    }

    #[test]
    fn by_turns_each_gets_its_share_evenly() {
        let mut endpoints = endpoints(3);
        for (weight, upto, shares) in [(1, 30, [10, 10, 10]), (2, 40, [20, 10, 10]), (2, 4000, [2000, 1000, 1000])] {
            endpoints[0].weight = weight;
            let mut counts = [0_i32; 3];
            for turn in 0..upto {
                let wish = Wish { balance: Balance::RoundRobin, turn, ..wish(later()) };
                counts[choose(&endpoints, &wish, |_| unreachable!("nothing is left to chance")).unwrap()] += 1;
            }
            assert!(counts.iter().zip(shares).all(|(count, share)| (count - share).abs() <= 1), "{counts:?}");
        }
    }

    #[test]
    fn who_has_as_much_to_do_as_it_may_gets_no_more() {
        let mut endpoints = endpoints(2);
        let wish = Wish { most: 1, ..wish(later()) };
        let chosen = |endpoints: &[Endpoint]| choose(endpoints, &wish, |n| n - 1);
        let _one = InFlight::new(&endpoints[1].instance);
        assert_eq!(chosen(&endpoints), Ok(0));
        let _other = InFlight::new(&endpoints[0].instance);
        assert_eq!(chosen(&endpoints), Err(Nothing::Free));
        assert_eq!(chosen(&[]), Err(Nothing::Left));
        endpoints[1].suspect = true;
        drop(_one);
        assert_eq!(chosen(&endpoints), Err(Nothing::Free), "better late than by one that is in doubt");
    }

    #[test]
    fn the_own_zone_comes_first_until_it_is_crowded() {
        let mut endpoints = endpoints(3);
        endpoints[0].zone = Arc::new("a".to_owned());
        let chosen = |zone| {
            let mut random = rand::rngs::StdRng::seed_from_u64(1);
            let wish = Wish { zone, ..wish(later()) };
            let chosen = (0..100).filter_map(|_| choose(&endpoints, &wish, |n| random.random_range(0..n)).ok());
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
