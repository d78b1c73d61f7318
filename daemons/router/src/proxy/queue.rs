//! Requests that wait for an app whose instances have as much to do as they may, in the order in which they came.

use dinp_common::model::AppName;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How often those who wait look by themselves: for an instance that is new in the table, or a tunnel that has ended.
const LOOK: Duration = Duration::from_millis(100);

/// The queues of all apps, for all workers: what one of them ends is room for who waits in another.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    /// Requests in all queues, so that nobody looks for a queue while there is none.
    waiting: AtomicUsize,
    apps: Mutex<HashMap<AppName, Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: usize,
    room: Arc<Notify>,
}

/// A request's place in the queue of its app, until it is dropped.
pub(crate) struct Place {
    queues: Arc<Queues>,
    app: AppName,
    room: Arc<Notify>,
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
        if most <= apps.get(app).map_or(0, |queue| queue.waiting) {
            return None;
        }
        let queue = apps.entry(app.clone()).or_default();
        queue.waiting += 1;
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Some(Place { queues: self.clone(), app: app.clone(), room: queue.room.clone() })
    }

    /// A request to this app has ended: whoever waits longest is to look.
    pub(crate) fn ended(&self, app: &AppName) {
        if self.waiting() > 0
            && let Some(queue) = self.lock().get(app)
        {
            queue.room.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AppName, Queue>> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until there may be room. `look` is what finds it: it is called at once, and whenever there may be some.
    pub(crate) async fn wait<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            // Before the look: what ends after it is heard of.
            let mut ended = std::pin::pin!(self.room.notified());
            ended.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            // Late is no error: it looks again.
            tokio::time::timeout(LOOK, ended).await.ok();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queues.waiting.fetch_sub(1, Ordering::SeqCst);
        let mut apps = self.queues.lock();
        let Some(queue) = apps.get_mut(&self.app) else { return };
        queue.waiting -= 1;
        if queue.waiting == 0 {
            apps.remove(&self.app);
        }
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
            for done in 0..3 {
                room.set(1);
                queues.ended(&app);
                while order.borrow().len() == done {
                    tokio::task::yield_now().await;
                }
            }
        };
        tokio::join!(futures_util::future::join_all(waiting), ends);
        assert_eq!(*order.borrow(), [1, 2, 3]);
        assert_eq!(queues.waiting(), 0);
        assert!(!queues.is_before(&app));
    }
}
