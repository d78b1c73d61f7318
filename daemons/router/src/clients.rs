//! Connections of clients: so many of each and so many in all. Where there is no place left, the one that has been idle
//! for longest makes room; idle is what is not being answered, a head that is under way included.

use crate::config::Limits;
use dinp_common::listen;
use dinp_common::quota::{Full, Quota, Share};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use tokio::sync::Notify;

/// How many of the connections that are idle for longest are looked through for one of a certain client: a worker does
/// nothing else meanwhile, for each connection that comes. In a crowd one client's may all be younger; it is then refused.
const LOOK: usize = 1000;

/// The clients of one worker. The places are those of all workers.
pub(crate) struct Clients {
    places: Quota<IpAddr>,
    limits: Rc<Limits>,
    /// By the order in which they became idle.
    idle: RefCell<BTreeMap<u64, Rc<Held>>>,
    next: Cell<u64>,
}

/// One connection of a client, until it is dropped.
pub(crate) struct Seat {
    clients: Rc<Clients>,
    held: Rc<Held>,
    /// Its number among the idle ones; none while it is being answered.
    turn: Cell<Option<u64>>,
}

struct Held {
    client: IpAddr,
    /// None for a proxy that is trusted: it stands for many clients. Taken away from one that has to make room.
    place: RefCell<Option<Share<IpAddr>>>,
    make_room: Notify,
}

impl Clients {
    pub(crate) fn new(places: Quota<IpAddr>, limits: Rc<Limits>) -> Rc<Self> {
        Rc::new(Self { places, limits, idle: RefCell::default(), next: Cell::new(0) })
    }

    /// A place for a new connection, idle at first; where nobody can make room, the limit that is reached, by the key of
    /// its configuration.
    pub(crate) fn seat(self: &Rc<Self>, peer: IpAddr) -> Result<Rc<Seat>, &'static str> {
        let client = listen::client(peer);
        let place = if self.limits.trusts(peer) { None } else { Some(self.place(&client)?) };
        let held = Rc::new(Held { client, place: RefCell::new(place), make_room: Notify::new() });
        let seat = Rc::new(Seat { clients: self.clone(), held, turn: Cell::new(None) });
        seat.idle();
        Ok(seat)
    }

    fn place(&self, client: &IpAddr) -> Result<Share<IpAddr>, &'static str> {
        let (limit, has_room) = match self.places.take(client, 1) {
            Ok(place) => return Ok(place),
            Err(Full::Each(_)) => ("max_connections_per_client", self.shed(|held| held.client == *client)),
            Err(Full::All(_)) => ("max_connections", self.shed(|_| true)),
        };
        // Another worker may have been quicker.
        has_room.then(|| self.places.take(client, 1).ok()).flatten().ok_or(limit)
    }

    /// Takes the place of the connection that has been idle for longest; false where there is none.
    fn shed(&self, fits: impl Fn(&Held) -> bool) -> bool {
        let mut idle = self.idle.borrow_mut();
        let found = idle.iter().take(LOOK).find(|(_, held)| fits(held));
        let Some(held) = found.map(|(turn, _)| *turn).and_then(|turn| idle.remove(&turn)) else { return false };
        held.place.take();
        held.make_room.notify_one();
        true
    }
}

impl Seat {
    /// Nothing is being answered any more. What takes no place can make no room.
    pub(crate) fn idle(&self) {
        if self.held.place.borrow().is_none() {
            return;
        }
        let turn = self.clients.next.get();
        self.clients.next.set(turn + 1);
        self.clients.idle.borrow_mut().insert(turn, self.held.clone());
        self.turn.set(Some(turn));
    }

    /// A request is being answered.
    pub(crate) fn busy(&self) {
        if let Some(turn) = self.turn.take() {
            self.clients.idle.borrow_mut().remove(&turn);
        }
    }

    /// Waits until the connection has to make room for another.
    pub(crate) async fn has_to_go(&self) {
        self.held.make_room.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.busy();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RouterConfig;
    use futures_util::FutureExt;

    fn clients(each: usize, all: usize) -> Rc<Clients> {
        let config = RouterConfig { trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..RouterConfig::default() };
        Clients::new(Quota::new(each, all), Rc::new(config.limits()))
    }

    fn seat(clients: &Rc<Clients>, peer: &str) -> Result<Rc<Seat>, &'static str> {
        clients.seat(peer.parse().unwrap())
    }

    fn has_to_go(seat: &Seat) -> bool {
        seat.has_to_go().now_or_never().is_some()
    }

    #[test]
    fn who_is_idle_for_longest_makes_room() {
        let clients = clients(9, 3);
        let (a, b) = (seat(&clients, "192.0.2.1").unwrap(), seat(&clients, "192.0.2.2").unwrap());
        let c = seat(&clients, "192.0.2.3").unwrap();
        a.busy();
        a.idle();
        b.busy();
        let d = seat(&clients, "192.0.2.4").unwrap();
        assert!(has_to_go(&c), "b is busy, a was busy later than c came");
        assert!(!has_to_go(&a) && !has_to_go(&b) && !has_to_go(&d));
        let e = seat(&clients, "192.0.2.5").unwrap();
        assert!(has_to_go(&a));
        d.busy();
        e.busy();
        assert_eq!(seat(&clients, "192.0.2.6").err(), Some("max_connections"), "all are busy");
        drop(b);
        assert!(seat(&clients, "192.0.2.6").is_ok());
    }

    #[test]
    fn a_client_with_too_many_gives_up_its_own() {
        let clients = clients(2, 100);
        let other = seat(&clients, "192.0.2.9").unwrap();
        let (first, second) = (seat(&clients, "192.0.2.1").unwrap(), seat(&clients, "192.0.2.1").unwrap());
        let third = seat(&clients, "::ffff:192.0.2.1").unwrap();
        assert!(has_to_go(&first) && !has_to_go(&other));
        second.busy();
        third.busy();
        assert_eq!(seat(&clients, "192.0.2.1").err(), Some("max_connections_per_client"));
        assert!(seat(&clients, "192.0.2.2").is_ok());
    }

    #[test]
    fn a_trusted_proxy_stands_for_many_clients() {
        let clients = clients(1, 1);
        let seats: Vec<_> = (0..5).map(|_| seat(&clients, "10.0.0.1")).collect();
        assert!(seats.iter().all(Result::is_ok));
        assert!(seat(&clients, "192.0.2.1").is_ok());
    }

    #[test]
    fn idle_proxies_hide_nobody_who_can_make_room() {
        let clients = clients(1, 1);
        let proxies: Vec<_> = (0..=LOOK).map(|_| seat(&clients, "10.0.0.1")).collect();
        let idle = seat(&clients, "192.0.2.1").unwrap();
        assert!(seat(&clients, "192.0.2.2").is_ok());
        assert!(has_to_go(&idle));
        drop(proxies);
    }
}
