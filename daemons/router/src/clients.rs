//! Connections of clients: so many of each and so many in all. Where there is no place left, the one that has been idle
//! for longest makes room; idle is what is not being answered, a head that is under way included.

use crate::config::InForce;
use crate::totals::Totals;
use dinp_common::listen;
use dinp_common::quota::{Full, Quota, Share};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio_util::sync::CancellationToken;

/// How many of the connections that are idle for longest are looked through for one of a certain client: a worker does
/// nothing else meanwhile, for each connection that comes. In a crowd one client's may all be younger; it is then refused.
const LOOK: usize = 1000;

/// The clients of one worker. The places are those of all workers.
pub(crate) struct Clients {
    places: Quota<IpAddr>,
    limits: InForce,
    /// By the order in which they became idle.
    idle: RefCell<BTreeMap<u64, Rc<Held>>>,
    /// The same of those that take no place, and can make no room.
    idle_proxies: RefCell<BTreeMap<u64, Rc<Held>>>,
    next: Cell<u64>,
    stop: Cell<Stop>,
    /// Cancelled when nobody is taken any more.
    closed: CancellationToken,
    totals: Arc<Totals>,
}

/// How far the worker has come on its way to an end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    No,
    /// Whoever is here may ask once more.
    Begun,
    /// Whoever was there before and is idle goes; who comes now may ask once.
    Late,
    /// Whoever is idle goes.
    Last,
}

/// One connection of a client, until it is dropped.
pub(crate) struct Seat {
    clients: Rc<Clients>,
    held: Rc<Held>,
    /// A proxy takes none.
    takes_place: bool,
    /// Whether it came when the worker was on its way to an end.
    is_late: bool,
    /// Its number among the idle ones; none while it is being answered.
    turn: Cell<Option<u64>>,
}

struct Held {
    client: IpAddr,
    /// None for a proxy: it stands for many clients. Taken away from one that has to make room.
    place: RefCell<Option<Share<IpAddr>>>,
    /// It has had to make room.
    is_shed: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Held {
    fn wake(&self) {
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }
}

impl Clients {
    pub(crate) fn new(places: Quota<IpAddr>, limits: InForce, totals: Arc<Totals>) -> Rc<Self> {
        Rc::new(Self {
            places,
            limits,
            idle: RefCell::default(),
            idle_proxies: RefCell::default(),
            next: Cell::new(0),
            stop: Cell::new(Stop::No),
            closed: CancellationToken::new(),
            totals,
        })
    }

    /// A place for a new connection, idle at first; where nobody can make room, the limit that is reached, by the key of
    /// its configuration.
    pub(crate) fn seat(self: &Rc<Self>, peer: IpAddr) -> Result<Rc<Seat>, &'static str> {
        self.seat_of(peer, self.stop.get() > Stop::No)
    }

    fn seat_of(self: &Rc<Self>, peer: IpAddr, is_late: bool) -> Result<Rc<Seat>, &'static str> {
        let client = listen::client(peer);
        let limits = self.limits.now();
        let stands_for_many = limits.trusts(peer) || limits.is_introduced_by(peer);
        let place = if stands_for_many { None } else { Some(self.place(&client)?) };
        let takes_place = place.is_some();
        let (is_shed, waiter) = (Cell::new(false), RefCell::default());
        let held = Rc::new(Held { client, place: RefCell::new(place), is_shed, waiter });
        let seat = Rc::new(Seat { clients: self.clone(), held, takes_place, is_late, turn: Cell::new(None) });
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
        held.is_shed.set(true);
        held.wake();
        self.totals.shed();
        true
    }

    /// Whoever is here, or comes from now on, may ask once more: a connection that is closed in the moment in which its
    /// client asks costs a request.
    pub(crate) fn stop(&self) {
        self.stop.set(Stop::Begun);
    }

    /// Who was here before and has not asked since goes.
    pub(crate) fn stop_waiting(&self) {
        self.end_idle(Stop::Late);
    }

    /// Nobody is taken any more.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Returns when nobody is taken any more.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// And who has come meanwhile and has not asked goes.
    pub(crate) fn stop_all(&self) {
        self.end_idle(Stop::Last);
    }

    fn end_idle(&self, stop: Stop) {
        self.stop.set(stop);
        let (idle, proxies) = (self.idle.borrow(), self.idle_proxies.borrow());
        idle.values().chain(proxies.values()).for_each(|held| held.wake());
    }
}

impl Seat {
    /// A seat for whom a proxy has connected, in place of the proxy's own.
    pub(crate) fn of(&self, client: IpAddr) -> Result<Rc<Self>, &'static str> {
        self.clients.seat_of(client, self.is_late)
    }

    /// Returns when a tunnel is cut off that has come while the worker was on its way to an end: those who wait for the
    /// next process would wait for it.
    pub(crate) async fn cut_off(&self) {
        if !self.is_late {
            std::future::pending::<()>().await;
        }
        self.clients.closed().await;
    }

    /// Nothing is being answered any more.
    pub(crate) fn idle(&self) {
        let turn = self.clients.next.get();
        self.clients.next.set(turn + 1);
        self.idle_ones().borrow_mut().insert(turn, self.held.clone());
        self.turn.set(Some(turn));
    }

    /// A request is being answered.
    pub(crate) fn busy(&self) {
        if let Some(turn) = self.turn.take() {
            self.idle_ones().borrow_mut().remove(&turn);
        }
    }

    fn idle_ones(&self) -> &RefCell<BTreeMap<u64, Rc<Held>>> {
        if self.takes_place { &self.clients.idle } else { &self.clients.idle_proxies }
    }

    /// Whether no request is answered after the one that is.
    pub(crate) fn is_closing(&self) -> bool {
        self.held.is_shed.get() || self.clients.stop.get() > Stop::No
    }

    /// Ready when the connection, on which nothing has come, has to end.
    pub(crate) fn poll_has_to_go(&self, cx: &mut Context<'_>) -> Poll<()> {
        let enough = if self.is_late { Stop::Last } else { Stop::Late };
        if self.clients.stop.get() >= enough { Poll::Ready(()) } else { self.poll_is_shed(cx) }
    }

    /// Ready when the connection has made room for another.
    pub(crate) fn poll_is_shed(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.held.is_shed.get() {
            return Poll::Ready(());
        }
        let mut waiter = self.held.waiter.borrow_mut();
        if waiter.as_ref().is_none_or(|waiter| !waiter.will_wake(cx.waker())) {
            *waiter = Some(cx.waker().clone());
        }
        Poll::Pending
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

    fn clients(each: usize, all: usize) -> Rc<Clients> {
        let config = RouterConfig { trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..RouterConfig::default() };
        Clients::new(Quota::new(each, all), InForce::new(config.limits()), Arc::default())
    }

    fn seat(clients: &Rc<Clients>, peer: &str) -> Result<Rc<Seat>, &'static str> {
        clients.seat(peer.parse().unwrap())
    }

    fn has_to_go(seat: &Seat) -> bool {
        seat.poll_has_to_go(&mut Context::from_waker(Waker::noop())).is_ready()
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
    fn who_has_to_go_when_the_worker_ends() {
        let clients = clients(9, 9);
        let before = seat(&clients, "192.0.2.1").unwrap();
        clients.stop();
        let late = seat(&clients, "192.0.2.2").unwrap();
        let introduced = before.of("192.0.2.3".parse().unwrap()).unwrap();
        let go = || [&before, &introduced, &late].map(|seat| has_to_go(seat));
        assert!(before.is_closing() && late.is_closing());
        assert_eq!(go(), [false, false, false], "each may ask once more");
        clients.stop_waiting();
        assert_eq!(go(), [true, true, false]);
        clients.close();
        clients.stop_all();
        assert_eq!(go(), [true, true, true]);
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
