//! Requests that wait for an app whose instances have as much to do as they may, in the order in which they came.

use dinp_common::model::AppName;
use std::collections::{BTreeMap, HashMap};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often the first one looks by itself: for an instance that is new in the table, or a tunnel that has ended.
const LOOK: Duration = Duration::from_millis(100);

/// The queues of all apps, for all workers: what one of them ends is room for who waits in another.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    /// Requests in all queues, so that nobody looks for a queue while there is none.
    waiting: AtomicUsize,
    apps: Mutex<HashMap<AppName, Queue>>,
}

/// Those who wait, by their numbers. The first one alone looks for room: the others would find none that is theirs.
#[derive(Debug, Default)]
struct Queue {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

/// A request's place in the queue of its app, until it is dropped.
pub(crate) struct Place {
    queues: Arc<Queues>,
    app: AppName,
    number: u64,
}

impl Queues {
    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Whether anybody waits for this app.
    pub(crate) fn is_before(&self, app: &AppName) -> bool {
        self.waiting() > 0 && self.lock().contains_key(app)
    }

    /// A place at the end of the app's queue, unless so many wait already.
    pub(crate) fn join(self: &Arc<Self>, app: &AppName, most: usize) -> Option<Place> {
        let mut apps = self.lock();
        if most <= apps.get(app).map_or(0, |queue| queue.wakers.len()) {
            return None;
        }
        let queue = apps.entry(app.clone()).or_default();
        let number = queue.next;
        queue.next += 1;
        queue.wakers.insert(number, Waker::noop().clone());
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Some(Place { queues: self.clone(), app: app.clone(), number })
    }

    /// A request to this app has ended: whoever waits longest is to look.
    pub(crate) fn ended(&self, app: &AppName) {
        if self.waiting() > 0 {
            let first = self.lock().get(app).and_then(Queue::first);
            first.into_iter().for_each(Waker::wake);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AppName, Queue>> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn first(&self) -> Option<Waker> {
        self.wakers.first_key_value().map(|(_, waker)| waker.clone())
    }
}

impl Place {
    /// Waits until there is room for this request and for all before it. `look` is what finds it.
    pub(crate) async fn wait<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        let mut again = pin!(sleep(LOOK));
        poll_fn(|cx| {
            // Before the look: what ends after it is heard of.
            if !self.is_first(cx.waker()) {
                return Poll::Pending;
            }
            if let Some(found) = look() {
                return Poll::Ready(found);
            }
            while again.as_mut().poll(cx).is_ready() {
                again.as_mut().reset(Instant::now() + LOOK);
            }
            Poll::Pending
        })
        .await
    }

    /// Whether nobody is before it; it is woken when that is so.
    fn is_first(&self, waker: &Waker) -> bool {
        let mut apps = self.queues.lock();
        let Some(queue) = apps.get_mut(&self.app) else { return true };
        queue.wakers.insert(self.number, waker.clone());
        queue.wakers.first_key_value().is_some_and(|(first, _)| *first == self.number)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queues.waiting.fetch_sub(1, Ordering::SeqCst);
        let mut apps = self.queues.lock();
        let Some(queue) = apps.get_mut(&self.app) else { return };
        queue.wakers.remove(&self.number);
        // There may be room for more than one.
        let next = queue.first();
        if next.is_none() {
            apps.remove(&self.app);
        }
        drop(apps);
        next.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    #[tokio::test]
    async fn who_came_first_gets_the_room_that_comes() {
        let queues = Arc::<Queues>::default();
        let app: AppName = "shop".parse().unwrap();
        let (room, order) = (Cell::new(0), RefCell::new(Vec::new()));
        let places = [1, 2, 3].map(|number| (number, queues.join(&app, 3).unwrap()));
        assert!(queues.join(&app, 3).is_none(), "a queue has an end");
        assert!(queues.is_before(&app) && !queues.is_before(&"other".parse().unwrap()));
        let waiting = places.map(|(number, place)| {
            let (room, order) = (&room, &order);
            async move {
                place.wait(|| (room.get() > 0).then(|| room.set(room.get() - 1))).await;
                order.borrow_mut().push(number);
            }
        });
        let ends = async {
            // Everybody's patience with the clock is over meanwhile.
            sleep(LOOK * 5 / 2).await;
            room.set(1);
            queues.ended(&app);
            while order.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
            assert_eq!(*order.borrow(), [1]);
            // Nobody is told of this: the first one finds it, and the one behind it what is left.
            room.set(2);
        };
        tokio::join!(futures_util::future::join_all(waiting), ends);
        assert_eq!(*order.borrow(), [1, 2, 3]);
        assert_eq!(queues.waiting(), 0);
        assert!(!queues.is_before(&app));
    }

    #[tokio::test]
    async fn who_leaves_holds_nobody_up() {
        let queues = Arc::<Queues>::default();
        let app: AppName = "shop".parse().unwrap();
        let [first, second] = [(); 2].map(|()| queues.join(&app, 9).unwrap());
        let leaves = async {
            tokio::time::timeout(LOOK / 10, first.wait(|| None::<()>)).await.unwrap_err();
            drop(first);
        };
        tokio::join!(leaves, second.wait(|| Some(())));
    }
}
