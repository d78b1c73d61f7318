//! The rules as text: what is to be in force, without I/O.

use dinp_common::network::Network;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::RangeInclusive;

/// Chain that `DOCKER-USER` jumps to: what is passed on.
pub(super) const FORWARD: &str = "DINP-APPS";
/// Chain that `INPUT` jumps to: what is for this machine itself.
pub(super) const INPUT: &str = "DINP-APPS-IN";

/// What is never an app's business, on any machine: link-local addresses, where clouds answer with the machine's
/// credentials, and those that some clouds use for it besides.
const LINK_LOCAL: [&str; 6] =
    ["169.254.0.0/16", "100.100.100.200", "168.63.129.16", "fe80::/10", "fd00:ec2::/64", "fd20:ce::254"];

/// Answers to what was allowed.
const ANSWERS: &str = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN";

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn of(self, networks: &BTreeSet<Network>) -> impl Iterator<Item = &Network> {
        networks.iter().filter(move |network| network.is_ipv4() == (self == Self::V4))
    }
}

/// What the rules are made of.
#[derive(Debug)]
pub(super) struct Rules {
    /// The bridge of instances.
    pub(super) bridge: String,
    /// Ports that instances are published on.
    pub(super) range: RangeInclusive<u16>,
    /// Who may connect to them; while nobody is known, everybody.
    pub(super) clients: BTreeSet<Network>,
    /// Machines that apps reach at `user_ports`.
    pub(super) routers: BTreeSet<Network>,
    /// Ports at which routers serve users.
    pub(super) user_ports: Vec<u16>,
    /// Name servers of this machine, which apps reach at port 53.
    pub(super) resolvers: BTreeSet<Network>,
    /// What apps do not reach otherwise, besides what is link-local.
    pub(super) denied: BTreeSet<Network>,
    /// Most connections that one app's instance has opened at the same time; none where the kernel cannot count them.
    pub(super) connections: Option<u32>,
}

impl Rules {
    /// Both chains as input of iptables-restore: naming a chain there empties it, and all takes effect at once.
    pub(super) fn script(&self, family: Family) -> String {
        let mut script = Script::new();
        self.input(family, &mut script);
        self.forward(family, &mut script);
        script.0 + "COMMIT\n"
    }

    fn input(&self, family: Family, script: &mut Script) {
        let bridge = &self.bridge;
        let mut rule = |text: String| script.rule(INPUT, &text);
        rule(ANSWERS.into());
        rule("-i lo -j RETURN".into());
        if family == Family::V6 {
            // Neighbours find each other by these.
            for kind in [135, 136] {
                rule(format!("-i {bridge} -p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j RETURN"));
            }
        }
        if let Some(too_many) = self.too_many(family) {
            rule(format!("-i {bridge} {too_many} -j REJECT"));
        }
        for allowed in self.allowed(family) {
            rule(format!("-i {bridge} {allowed} -j RETURN"));
        }
        rule(format!("-i {bridge} -j REJECT"));
        if self.clients.is_empty() {
            return;
        }
        // Not all packets for instances are passed on: a proxy of the engine's takes some at the port itself.
        let ports = self.instance_ports();
        for client in family.of(&self.clients) {
            rule(format!("-s {client} {ports} -j RETURN"));
        }
        rule(format!("{ports} -j REJECT --reject-with tcp-reset"));
    }

    fn forward(&self, family: Family, script: &mut Script) {
        let bridge = &self.bridge;
        let mut rule = |text: String| script.rule(FORWARD, &text);
        rule(ANSWERS.into());
        rule(format!("-i {bridge} -o {bridge} -j DROP"));
        if !self.clients.is_empty() {
            for client in family.of(&self.clients) {
                rule(format!("-s {client} -o {bridge} -j RETURN"));
            }
            rule(format!("-o {bridge} -p tcp -j REJECT --reject-with tcp-reset"));
            rule(format!("-o {bridge} -j DROP"));
        }
        rule(format!("! -i {bridge} -j RETURN"));
        if let Some(too_many) = self.too_many(family) {
            rule(format!("{too_many} -j REJECT"));
        }
        for allowed in self.allowed(family) {
            rule(format!("{allowed} -j RETURN"));
        }
        let link_local: BTreeSet<Network> = LINK_LOCAL.iter().filter_map(|text| text.parse().ok()).collect();
        for net in family.of(&link_local).chain(family.of(&self.denied)) {
            rule(format!("-d {net} -j REJECT"));
        }
        rule(format!("{} -j REJECT --reject-with tcp-reset", self.instance_ports()));
    }

    /// What apps reach of machines that are denied otherwise.
    fn allowed(&self, family: Family) -> Vec<String> {
        let resolvers = family.of(&self.resolvers).flat_map(|resolver| {
            ["udp", "tcp"].map(|protocol| format!("-d {resolver} -p {protocol} -m {protocol} --dport 53"))
        });
        let routers = family.of(&self.routers).flat_map(|router| {
            self.user_ports.iter().map(move |port| format!("-d {router} -p tcp -m tcp --dport {port}"))
        });
        resolvers.chain(routers).collect()
    }

    /// What an instance opens beyond its limit: it would fill the table of connections that all of the node share.
    fn too_many(&self, family: Family) -> Option<String> {
        let bits = match family {
            Family::V4 => 32,
            Family::V6 => 128,
        };
        let limit = self.connections?;
        Some(format!("-m connlimit --connlimit-above {limit} --connlimit-mask {bits} --connlimit-saddr"))
    }

    fn instance_ports(&self) -> String {
        format!("-p tcp -m tcp --dport {}:{}", self.range.start(), self.range.end())
    }
}

struct Script(String);

impl Script {
    fn new() -> Self {
        Self(format!("*filter\n:{INPUT} - [0:0]\n:{FORWARD} - [0:0]\n"))
    }

    fn rule(&mut self, chain: &str, rest: &str) {
        writeln!(self.0, "-A {chain} {rest}").expect("writing to a text never fails");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> BTreeSet<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn rules() -> Rules {
        Rules {
            bridge: "dinp0".into(),
            range: 20_000..=29_999,
            clients: nets(&["10.0.0.20", "10.0.0.30"]),
            routers: nets(&["10.0.0.20"]),
            user_ports: vec![80, 443],
            resolvers: nets(&["10.0.0.53", "fd00::53"]),
            denied: nets(&["10.0.0.5", "10.1.0.0/16", "fd00::1"]),
            connections: Some(8192),
        }
    }

    #[test]
    fn golden() {
        let expected = "\
*filter
:DINP-APPS-IN - [0:0]
:DINP-APPS - [0:0]
-A DINP-APPS-IN -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A DINP-APPS-IN -i lo -j RETURN
-A DINP-APPS-IN -i dinp0 -m connlimit --connlimit-above 8192 --connlimit-mask 32 --connlimit-saddr -j REJECT
-A DINP-APPS-IN -i dinp0 -d 10.0.0.53/32 -p udp -m udp --dport 53 -j RETURN
-A DINP-APPS-IN -i dinp0 -d 10.0.0.53/32 -p tcp -m tcp --dport 53 -j RETURN
-A DINP-APPS-IN -i dinp0 -d 10.0.0.20/32 -p tcp -m tcp --dport 80 -j RETURN
-A DINP-APPS-IN -i dinp0 -d 10.0.0.20/32 -p tcp -m tcp --dport 443 -j RETURN
-A DINP-APPS-IN -i dinp0 -j REJECT
-A DINP-APPS-IN -s 10.0.0.20/32 -p tcp -m tcp --dport 20000:29999 -j RETURN
-A DINP-APPS-IN -s 10.0.0.30/32 -p tcp -m tcp --dport 20000:29999 -j RETURN
-A DINP-APPS-IN -p tcp -m tcp --dport 20000:29999 -j REJECT --reject-with tcp-reset
-A DINP-APPS -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A DINP-APPS -i dinp0 -o dinp0 -j DROP
-A DINP-APPS -s 10.0.0.20/32 -o dinp0 -j RETURN
-A DINP-APPS -s 10.0.0.30/32 -o dinp0 -j RETURN
-A DINP-APPS -o dinp0 -p tcp -j REJECT --reject-with tcp-reset
-A DINP-APPS -o dinp0 -j DROP
-A DINP-APPS ! -i dinp0 -j RETURN
-A DINP-APPS -m connlimit --connlimit-above 8192 --connlimit-mask 32 --connlimit-saddr -j REJECT
-A DINP-APPS -d 10.0.0.53/32 -p udp -m udp --dport 53 -j RETURN
-A DINP-APPS -d 10.0.0.53/32 -p tcp -m tcp --dport 53 -j RETURN
-A DINP-APPS -d 10.0.0.20/32 -p tcp -m tcp --dport 80 -j RETURN
-A DINP-APPS -d 10.0.0.20/32 -p tcp -m tcp --dport 443 -j RETURN
-A DINP-APPS -d 100.100.100.200/32 -j REJECT
-A DINP-APPS -d 168.63.129.16/32 -j REJECT
-A DINP-APPS -d 169.254.0.0/16 -j REJECT
-A DINP-APPS -d 10.0.0.5/32 -j REJECT
-A DINP-APPS -d 10.1.0.0/16 -j REJECT
-A DINP-APPS -p tcp -m tcp --dport 20000:29999 -j REJECT --reject-with tcp-reset
COMMIT
";
        assert_eq!(rules().script(Family::V4), expected);
    }

    #[test]
    fn ipv6_has_its_own_addresses_and_lets_neighbours_find_each_other() {
        let script = rules().script(Family::V6);
        for line in [
            "-A DINP-APPS-IN -i dinp0 -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j RETURN",
            "-A DINP-APPS -d fd00::53/128 -p udp -m udp --dport 53 -j RETURN",
            "-A DINP-APPS -d fe80::/10 -j REJECT",
            "-A DINP-APPS -d fd00:ec2::/64 -j REJECT",
            "-A DINP-APPS -d fd00::1/128 -j REJECT",
            // No router has an address of this family: nobody comes in.
            "-A DINP-APPS -o dinp0 -p tcp -j REJECT --reject-with tcp-reset",
            "-A DINP-APPS-IN -p tcp -m tcp --dport 20000:29999 -j REJECT --reject-with tcp-reset",
        ] {
            assert_eq!(script.lines().filter(|found| *found == line).count(), 1, "{line} in {script}");
        }
        assert!(!script.contains("10.0.0."), "{script}");
    }

    #[test]
    fn while_no_router_is_known_instances_can_be_reached_but_not_by_apps() {
        let script = Rules { clients: BTreeSet::new(), ..rules() }.script(Family::V4);
        assert!(!script.contains("-A DINP-APPS -o dinp0"), "{script}");
        assert!(!script.contains("-A DINP-APPS-IN -p tcp -m tcp --dport 20000:29999"), "{script}");
        assert!(script.contains("-A DINP-APPS -p tcp -m tcp --dport 20000:29999 -j REJECT"), "{script}");
        assert!(script.contains("-A DINP-APPS -i dinp0 -o dinp0 -j DROP"), "{script}");
    }
}
