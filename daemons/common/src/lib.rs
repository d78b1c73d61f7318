//! What all DINP daemons share.
//!
//! * [`model`]: the words of the domain as validated types,
//! * [`api`]: the documents that the daemons and the people's programs exchange,
//! * [`store`]: desired state in MySQL, its schema and its queries,
//! * [`routes`]: the route table in Redis,
//! * [`config`], [`lifecycle`], [`logging`], [`listen`], [`daemon`]: how a daemon starts, lives and ends,
//! * [`man`]: manual pages of the daemons and of the command line,
//! * [`auth`], [`credentials`], [`problem`], [`client`]: how daemons talk to each other,
//! * [`quota`], [`rate`]: how much each and all may hold, and how often each may ask,
//! * [`network`]: networks of addresses,
//! * [`web`]: what the daemons with pages share.

pub mod api;
pub mod auth;
pub mod client;
pub mod config;
pub mod credentials;
pub mod daemon;
pub mod error;
pub mod journal;
pub mod lifecycle;
pub mod listen;
pub mod logging;
pub mod man;
pub mod metrics;
pub mod model;
pub mod network;
pub mod problem;
pub mod quota;
pub mod rate;
pub mod routes;
pub mod seal;
pub mod store;
pub mod testing;
pub mod ticket_keys;
pub mod web;
