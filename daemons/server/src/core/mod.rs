//! The decision core: from what is desired and what is observed to what is to be done.
//!
//! [`Reign`] is its shell: what happens comes in as method calls with the time as a [`Tick`], and [`Reign::decide`] puts out
//! [`Actions`]. It has no clock, does no I/O and awaits nothing, so that the server and the simulation drive the very
//! same thing. It decides by level: the same facts give the same decision, and deciding twice does nothing twice.
//!
//! * [`reign`]: one leadership, and the steps of one decision
//! * [`fleet`]: nodes and instances, and the life of an instance as a diagram
//! * [`reports`]: taking in what agents say; [`routers`]: what routers confirm; [`health`]: verdicts of monitors
//! * [`revision`]: desired state that is older than what was carried out
//! * [`nodes`]: ready, suspect, lost; [`permission`]: settled, frozen, held over; [`budget`]: what DINP may do by itself
//! * [`rollout`]: deployments; [`plan`]: one app's instances against what is wanted; [`placement`]: choosing nodes
//! * [`routes`]: the table and its versions; [`withdraw`]: out of the table, drained, stopped; [`orders`]
//! * [`strangers`]: instances without a ticket; [`orphans`]: those whose app has no row; [`news`]: what has changed, and what people are told
//! * [`settings`]: the numbers that decisions go by; [`views`]: what the API shows

mod budget;
mod fleet;
mod health;
mod news;
mod nodes;
mod orders;
mod orphans;
mod permission;
mod placement;
mod plan;
mod reign;
mod reports;
mod revision;
mod rollout;
mod routers;
mod routes;
mod settings;
#[cfg(test)]
mod sim;
mod strangers;
#[cfg(test)]
mod tests;
mod types;
mod views;
mod withdraw;

pub use reign::{Leader, Reign};
pub use settings::{Settings, Times};
pub use types::*;
