//! The tables that routers get: one host, one host with as many endpoints as others, and a hundred thousand of them.

use dinp_common::credentials::Secret;
use dinp_common::model::{InstanceId, Version};
use dinp_common::routes::{AppRoutes, Endpoint, EndpointState, Publisher, RouteOptions, RouteState, Table};
use dinp_common::testing::Redis;
use std::net::Ipv4Addr;

/// The host that every table has.
pub(crate) const HOST: &str = "web.apps.localhost";

/// A table, by the name of its cluster in Redis.
#[derive(Clone, Copy)]
pub(crate) struct Seed {
    pub(crate) cluster: &'static str,
    pub(crate) hosts: u32,
    endpoints: u32,
}

/// One host with one endpoint: what the other proxies have, too.
pub(crate) const PLAIN: Seed = Seed { cluster: "bench", hosts: 1, endpoints: 1 };
pub(crate) const SMALL: Seed = Seed { cluster: "small", hosts: 1, endpoints: 3 };
pub(crate) const MIDDLE: Seed = Seed { cluster: "middle", hosts: 1_000, endpoints: 3 };
pub(crate) const LARGE: Seed = Seed { cluster: "large", hosts: 100_000, endpoints: 3 };

impl Seed {
    pub(crate) async fn publish(&self, redis: &Redis, port: u16) {
        let mut publisher = Publisher::connect(&redis.url(), "test", &Secret::new("test"), self.cluster).await.unwrap();
        let table: Table =
            (0..self.hosts).map(|number| self.app(number, port)).map(|app| (app.app.clone(), app)).collect();
        publisher.rewrite(Version::new(1, 1), &table).await.unwrap();
    }

    fn app(&self, number: u32, port: u16) -> AppRoutes {
        let endpoint = |index: u32| {
            let bits = number * self.endpoints + index + 1;
            Endpoint {
                instance: InstanceId::from_bits(bits.into()),
                release: 1,
                addr: format!("{}:{port}", Ipv4Addr::from(0x7f00_0000 + bits)),
                zone: String::new(),
                weight: 1,
                state: EndpointState::Ready,
            }
        };
        let host = host(number);
        AppRoutes {
            app: host.trim_end_matches(".apps.localhost").parse().unwrap(),
            state: RouteState::Started,
            domains: vec![host],
            options: RouteOptions::default(),
            endpoints: (0..self.endpoints).map(endpoint).collect(),
        }
    }
}

/// The host of this number; the first is [`HOST`].
pub(crate) fn host(number: u32) -> String {
    if number == 0 { HOST.to_owned() } else { format!("web{number}.apps.localhost") }
}
