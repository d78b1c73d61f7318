//! A task of a daemon that fails ends the daemon with a message, and systemd brings it back.

use dinp_integration::testbed::{Cluster, Error, Host, Scenario, eventually, secs};

/// A daemon, the port of its own listener, and one of its tasks.
struct Doomed {
    host: &'static str,
    daemon: &'static str,
    port: u16,
    task: &'static str,
}

impl Doomed {
    fn unit(&self) -> String {
        format!("dinp-{}.service", self.daemon)
    }

    /// Where only root can write, and where a reboot forgets it.
    fn drop_in(&self) -> String {
        format!("/run/systemd/system/{}.d", self.unit())
    }

    /// The task fails a second after each start, until [`mend`](Self::mend).
    async fn doom(&self, host: &Host) -> Result<(), Error> {
        let (directory, unit) = (self.drop_in(), self.unit());
        host.exec(&format!("mkdir -p {directory}")).await?;
        let content = format!("[Service]\nEnvironment=\"DINP_FAIL_TASK={}\"\n", self.task);
        host.write(&format!("{directory}/fail.conf"), &content).await?;
        host.exec(&format!("systemctl daemon-reload && systemctl restart {unit}")).await.map(drop)
    }

    async fn mend(&self, host: &Host) -> Result<(), Error> {
        let (directory, unit) = (self.drop_in(), self.unit());
        host.exec(&format!(
            "rm -rf {directory} && systemctl daemon-reload && systemctl reset-failed {unit} && systemctl restart {unit}"
        ))
        .await
        .map(drop)
    }

    /// Waits until systemd has started it again because of the task, and the journal says so.
    async fn comes_back(&self, host: &Host, since: &str) -> Result<(), Error> {
        let (unit, task) = (self.unit(), self.task);
        let message = format!("task {task} panicked: DINP_FAIL_TASK names it");
        eventually(&format!("{unit} is started again after its task {task} failed"), secs(30), async || {
            let restarts = format!("systemctl show --property=NRestarts --value {unit}");
            let restarts = host.exec(&restarts).await.map_err(|error| error.chain())?;
            let journal = format!("journalctl --no-pager --unit {unit} --since '{since}' --output=cat");
            let journal = host.exec(&journal).await.map_err(|error| error.chain())?;
            let ended = journal.contains("status=1/FAILURE");
            if restarts.trim() != "0" && journal.contains(&message) && ended {
                return Ok(());
            }
            Err(format!("{} restarts, journal:\n{journal}", restarts.trim()))
        })
        .await
    }

    async fn is_well(&self, host: &Host) -> Result<(), Error> {
        let ready = format!("curl -fsS -m 5 http://127.0.0.1:{}/ready", self.port);
        eventually(&format!("dinp-{} is ready and its task runs", self.daemon), secs(60), async || {
            let text = host.exec(&ready).await.map_err(|error| error.chain())?;
            let runs = format!("\"task\":\"{}\"", self.task);
            if text.contains(&runs) { Ok(()) } else { Err(text) }
        })
        .await
    }

    async fn fails_and_comes_back(self) -> Scenario {
        let cluster = Cluster::shared().await?;
        let host = cluster.host(self.host);
        self.is_well(host).await?;
        let since = host.exec("date '+%F %T'").await?;
        let failed = match self.doom(host).await {
            Ok(()) => self.comes_back(host, since.trim()).await,
            Err(error) => Err(error),
        };
        // Whatever was seen: the next scenario finds the daemon whole.
        self.mend(host).await?;
        failed?;
        self.is_well(host).await?;
        Ok(())
    }
}

#[tokio::test]
async fn an_agent_whose_node_task_fails_is_back() -> Scenario {
    Doomed { host: "node1", daemon: "agent", port: 1981, task: "node" }.fails_and_comes_back().await
}

#[tokio::test]
async fn a_server_whose_decisions_fail_is_back() -> Scenario {
    Doomed { host: "control", daemon: "server", port: 1980, task: "decisions" }.fails_and_comes_back().await
}

#[tokio::test]
async fn a_router_whose_route_feed_fails_is_back() -> Scenario {
    Doomed { host: "router1", daemon: "router", port: 1982, task: "route feed" }.fails_and_comes_back().await
}

#[tokio::test]
async fn a_monitor_whose_reports_fail_is_back() -> Scenario {
    Doomed { host: "control", daemon: "hm", port: 1983, task: "report" }.fails_and_comes_back().await
}

#[tokio::test]
async fn a_user_centre_whose_sweep_fails_is_back() -> Scenario {
    Doomed { host: "control", daemon: "uic", port: 1984, task: "sweep" }.fails_and_comes_back().await
}

#[tokio::test]
async fn a_dashboard_whose_look_at_the_database_fails_is_back() -> Scenario {
    Doomed { host: "control", daemon: "dash", port: 1985, task: "database" }.fails_and_comes_back().await
}
