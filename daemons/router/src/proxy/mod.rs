//! Which instance gets a request, over which connection, and what is said when none answers.

mod balance;
mod choice;
mod pages;
mod pool;
mod retry;

pub(crate) use choice::{choose, unreachable};
pub(crate) use pages::Refusal;
pub(crate) use pool::Connection;
pub(crate) use retry::{Failure, Next, next};

use crate::config::Limits;
use crate::table::{Hosts, Slice};
use crate::totals::Totals;
use pool::Pool;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// What the requests of one worker share.
pub(crate) struct Proxy {
    pub(crate) limits: Rc<Limits>,
    pub(crate) totals: Arc<Totals>,
    hosts: RefCell<Hosts>,
    pub(crate) pool: Pool,
    /// Cancelled when there is a table.
    pub(crate) has_table: CancellationToken,
}

impl Proxy {
    pub(crate) fn new(limits: Rc<Limits>, totals: Arc<Totals>) -> Rc<Self> {
        let pool = Pool::new(limits.clone());
        Rc::new(Self { limits, totals, hosts: RefCell::default(), pool, has_table: CancellationToken::new() })
    }

    /// Puts a part of a change of the table into force.
    pub(crate) fn apply(&self, slice: &Slice) {
        slice.apply(&mut self.hosts.borrow_mut());
        for instance in &slice.gone {
            self.pool.close(instance);
        }
    }

    /// Closes connections to instances that have been idle for long.
    pub(crate) fn sweep(&self) {
        self.pool.sweep(Instant::now());
    }
}
