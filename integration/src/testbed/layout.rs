//! Names, addresses and packages: what a cluster of the testbed looks like.

use std::net::Ipv4Addr;

/// What a host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Databases, registry, and all daemons that are neither agent nor router.
    Control,
    /// A further server alone.
    Server,
    /// A compute node.
    Node,
    /// A router.
    Router,
}

/// One host of the plan.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// Host name.
    pub name: &'static str,
    /// What it is for.
    pub role: Role,
    /// Last byte of its address.
    pub last_byte: u8,
}

/// The hosts of every cluster.
pub const HOSTS: [Planned; 6] = [
    Planned { name: "control", role: Role::Control, last_byte: 10 },
    Planned { name: "control2", role: Role::Server, last_byte: 15 },
    Planned { name: "node1", role: Role::Node, last_byte: 11 },
    Planned { name: "node2", role: Role::Node, last_byte: 12 },
    Planned { name: "router1", role: Role::Router, last_byte: 20 },
    Planned { name: "router2", role: Role::Router, last_byte: 21 },
];

/// Domain of the applications: every browser resolves `*.localhost` to the loopback address.
pub const DOMAIN: &str = "apps.localhost";

/// First administrator.
pub const ADMIN: &str = "admin";

impl Role {
    /// The packages that make a machine into this.
    #[must_use]
    pub const fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Control => &["dinp-server", "dinp-dash", "dinp-uic", "dinp-builder", "dinp-hm", "dinp-cli"],
            Self::Server => &["dinp-server", "dinp-cli"],
            Self::Node => &["dinp-agent", "dinp-cli"],
            Self::Router => &["dinp-router", "dinp-cli"],
        }
    }

    /// Whether a Docker Engine runs on it, which needs a volume.
    #[must_use]
    pub const fn has_engine(self) -> bool {
        matches!(self, Self::Control | Self::Node)
    }
}

/// The three numbers that say where a /24 network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet(pub [u8; 3]);

impl Subnet {
    /// Address of a host in it.
    #[must_use]
    pub const fn address(self, last_byte: u8) -> Ipv4Addr {
        let [a, b, c] = self.0;
        Ipv4Addr::new(a, b, c, last_byte)
    }

    /// As the engine and `ip route` write it.
    #[must_use]
    pub fn cidr(self) -> String {
        format!("{}/24", self.address(0))
    }

    /// The first of the testbed's range that touches none of these networks.
    #[must_use]
    pub fn free(taken: &[(Ipv4Addr, u8)]) -> Option<Self> {
        (0..=255)
            .map(|third| Self([10, 213, third]))
            .find(|subnet| !taken.iter().any(|network| subnet.overlaps(*network)))
    }

    fn overlaps(self, (address, prefix): (Ipv4Addr, u8)) -> bool {
        let bits = u32::from(prefix.min(24));
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        u32::from(self.address(0)) & mask == u32::from(address) & mask
    }
}

/// Networks in the output of `ip -4 route` (the default route is none).
#[must_use]
pub fn routed_networks(text: &str) -> Vec<(Ipv4Addr, u8)> {
    text.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter_map(|word| {
            let (address, prefix) = word.split_once('/').unwrap_or((word, "32"));
            Some((address.parse().ok()?, prefix.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_in_use_is_passed_over() {
        let routes = "default via 192.0.2.1 dev eth0\n10.213.0.0/23 dev br-1 proto kernel\n10.213.2.7 dev tun0\n";
        let subnet = Subnet::free(&routed_networks(routes));
        assert_eq!(subnet, Some(Subnet([10, 213, 3])));
    }

    #[test]
    fn a_machine_that_routes_all_of_ten_leaves_none() {
        assert_eq!(Subnet::free(&routed_networks("10.0.0.0/8 dev vpn0\n")), None);
    }
}
