//! Which instance gets a request, over which connection, and what is said when none answers.

mod balance;
mod budget;
mod choice;
mod form;
mod pages;
mod pool;
mod queue;
mod retry;

pub(crate) use choice::{Choice, NotFound, Search, choose, unreachable};
pub(crate) use form::Form;
pub(crate) use pages::{Reader, Refusal};
pub(crate) use pool::{Connection, Shortage, is_out_of_descriptors};
pub(crate) use queue::Queues;
pub(crate) use retry::{Case, Failure, Next, next};

use crate::access::{Lines, Log};
use crate::config::InForce;
use crate::table::{Hosts, Slice};
use crate::totals::Totals;
use budget::Budget;
use pool::Pool;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// What the requests of one worker share.
pub(crate) struct Proxy {
    pub(crate) limits: InForce,
    pub(crate) totals: Arc<Totals>,
    hosts: RefCell<Hosts>,
    pub(crate) pool: Pool,
    pub(crate) budget: Budget,
    /// The access log.
    pub(crate) lines: Lines,
    /// Cancelled when there is a table.
    pub(crate) has_table: CancellationToken,
}

impl Proxy {
    pub(crate) fn new(limits: InForce, totals: Arc<Totals>, log: Option<Log>) -> Rc<Self> {
        let pool = Pool::new(limits.clone(), totals.shortage.clone());
        Rc::new(Self {
            limits,
            totals,
            hosts: RefCell::default(),
            pool,
            budget: Budget::new(Instant::now()),
            lines: Lines::new(log),
            has_table: CancellationToken::new(),
        })
    }

    /// Puts a part of a change of the table into force.
    pub(crate) fn apply(&self, slice: &Slice) {
        slice.apply(&mut self.hosts.borrow_mut());
        for instance in &slice.gone {
            self.pool.close(instance);
        }
    }

    /// Closes connections to instances that have been idle for long, and hands over what was logged.
    pub(crate) fn sweep(&self) {
        self.pool.sweep(Instant::now());
        self.lines.flush();
    }
}
