//! What a scenario does to hosts besides stopping them, and how all of it is undone.

use super::error::Result;
use super::host::Host;

/// A partition: nothing comes in, to the host itself or to a container of it, and nothing goes out.
const PARTITION: [&str; 2] = ["raw PREROUTING -i eth0 -j DROP", "mangle POSTROUTING -o eth0 -j DROP"];

/// What is sent to MySQL is lost; a connection notices nothing but silence.
const NO_MYSQL: &str = "filter OUTPUT -p tcp --dport 3306 -j DROP";

/// Chains for what comes from some hosts, and goes to them.
const CUT: [(&str, &str, &str); 2] = [("INPUT", "TESTBED-CUT-IN", "-s"), ("OUTPUT", "TESTBED-CUT-OUT", "-d")];

/// Where the agent keeps what it must not lose.
const STATE: &str = "/var/lib/dinp/agent";
/// Settings of an agent that has no space.
const FULL: &str = "/etc/dinp/agent.toml.d/testbed-full.toml";
/// Copies that aside, without the output of ended instances.
const TAKE_STATE: &str = "aside=$(mktemp -d) && cp -a /var/lib/dinp/agent/*.* $aside";
/// And back.
const GIVE_STATE: &str = "cp -a $aside/. /var/lib/dinp/agent && chown dinp-agent:dinp-agent /var/lib/dinp/agent && \
                          chmod 0700 /var/lib/dinp/agent && rm -rf $aside";

impl Host {
    /// Cuts the network: packets are lost in both directions, nothing is refused.
    pub async fn partition(&self) -> Result<()> {
        for rule in PARTITION {
            self.exec(&insert_rule(rule)).await?;
        }
        Ok(())
    }

    /// Cuts this host off from MySQL alone.
    pub async fn lose_mysql(&self) -> Result<()> {
        self.exec(&insert_rule(NO_MYSQL)).await.map(drop)
    }

    /// Cuts this host off from these alone: packets are lost in both directions.
    pub async fn lose(&self, others: &[&Host]) -> Result<()> {
        let mut script = String::new();
        for (chain, own, side) in CUT {
            script += &format!("iptables -w -N {own} && iptables -w -I {chain} -j {own}\n");
            for other in others {
                script += &format!("iptables -w -A {own} {side} {} -j DROP\n", other.address);
            }
        }
        self.exec(&script).await.map(drop)
    }

    /// Puts the agent's state on a small disk, and fills that to its last byte.
    pub async fn fill_disk(&self) -> Result<()> {
        self.exec(&format!(
            "systemctl stop dinp-agent
             {TAKE_STATE}
             mount -t tmpfs -o size=16m,mode=0700,uid=$(id -u dinp-agent),gid=$(id -g dinp-agent) tmpfs {STATE}
             {GIVE_STATE}
             systemctl start dinp-agent
             dd if=/dev/zero of={STATE}/filler bs=64k 2>/dev/null || true"
        ))
        .await
        .map(drop)
    }

    /// The agent can read its orders and not write them, as after a restore by the wrong user.
    pub async fn lock_orders(&self) -> Result<()> {
        self.exec(&format!("chown root {STATE}/orders.[01] && chmod 0444 {STATE}/orders.[01]")).await.map(drop)
    }

    /// The agent takes the Engine's disk for one without free space, however large it is.
    pub async fn take_disk_for_full(&self) -> Result<()> {
        self.exec(&format!("mkdir -p $(dirname {FULL})")).await?;
        self.write(FULL, &format!("[disk]\nlow_mb = {most}\nreserve_mb = {most}\n", most = u32::MAX)).await?;
        self.exec("systemctl restart dinp-agent").await.map(drop)
    }

    /// Undoes what is in this module; where nothing was done, nothing.
    pub async fn heal(&self) -> Result<()> {
        for rule in PARTITION.into_iter().chain([NO_MYSQL]) {
            self.exec(&delete_rule(rule)).await?;
        }
        for (chain, own, _) in CUT {
            let jump = delete_rule(&format!("filter {chain} -j {own}"));
            self.exec(&format!("{jump}; iptables -w -F {own} 2>/dev/null && iptables -w -X {own} || true")).await?;
        }
        self.exec(&format!(
            "if mountpoint -q {STATE}; then
                 systemctl stop dinp-agent
                 {TAKE_STATE}
                 umount {STATE}
                 {GIVE_STATE}
                 systemctl start dinp-agent
             fi
             if [ -e {FULL} ]; then rm {FULL}; systemctl restart dinp-agent; fi
             for file in {STATE}/orders.[01]; do
                 [ ! -e $file ] || {{ chown --reference={STATE} $file; chmod 0600 $file; }}
             done"
        ))
        .await
        .map(drop)
    }
}

fn insert_rule(rule: &str) -> String {
    format!("iptables -w -t {}", rule.replacen(' ', " -I ", 1))
}

fn delete_rule(rule: &str) -> String {
    let table = rule.replacen(' ', " -C ", 1);
    let delete = rule.replacen(' ', " -D ", 1);
    format!("while iptables -w -t {table} 2>/dev/null; do iptables -w -t {delete}; done")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_their_table_first() {
        assert_eq!(insert_rule("raw PREROUTING -i eth0 -j DROP"), "iptables -w -t raw -I PREROUTING -i eth0 -j DROP");
    }
}
