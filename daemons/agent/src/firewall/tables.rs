//! The kernel's tables, by iptables.

use super::FirewallError;
use super::rules::{FORWARD, Family, INPUT, Rules};
use dinp_common::daemon;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;

/// The chain that Docker leaves to others. It need not exist yet: Docker keeps what it finds there.
const DOCKER: &str = "DOCKER-USER";

impl Family {
    fn tables(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    fn restore(self) -> &'static str {
        match self {
            Self::V4 => "iptables-restore",
            Self::V6 => "ip6tables-restore",
        }
    }
}

/// Puts the rules in force; true if they were not.
pub(super) async fn enforce(family: Family, rules: &Rules) -> Result<bool, FirewallError> {
    let before = (list(family, INPUT).await.ok(), list(family, FORWARD).await.ok());
    feed(family.restore(), &["--noflush"], &rules.script(family)).await?;
    let after = (list(family, INPUT).await.ok(), list(family, FORWARD).await.ok());
    // Fails if it exists, which is as well; without it the next call tells.
    call(family, &["-N", DOCKER]).await.ok();
    let mut changed = before != after;
    for (chain, target) in [(DOCKER, FORWARD), ("FORWARD", DOCKER), ("INPUT", INPUT)] {
        changed |= hook(family, chain, target).await?;
    }
    Ok(changed)
}

/// Makes the jump from `chain` to `target` the first rule, before any that would accept; true if it was not.
async fn hook(family: Family, chain: &'static str, target: &'static str) -> Result<bool, FirewallError> {
    if begins_with(&list(family, chain).await?, chain, target) {
        return Ok(false);
    }
    // Where it stands further down.
    call(family, &["-D", chain, "-j", target]).await.ok();
    call(family, &["-I", chain, "1", "-j", target]).await?;
    if begins_with(&list(family, chain).await?, chain, target) {
        return Ok(true);
    }
    Err(FirewallError::NotFirst { chain, target })
}

fn begins_with(rules: &str, chain: &str, target: &str) -> bool {
    let first = rules.lines().find(|line| line.starts_with("-A "));
    first == Some(format!("-A {chain} -j {target}").as_str())
}

async fn list(family: Family, chain: &str) -> Result<String, FirewallError> {
    call(family, &["-S", chain]).await
}

async fn call(family: Family, arguments: &[&str]) -> Result<String, FirewallError> {
    let waiting = [&["-w", "10"], arguments].concat();
    feed(family.tables(), &waiting, "").await
}

async fn feed(program: &'static str, arguments: &[&str], input: &str) -> Result<String, FirewallError> {
    let failed = |source| FirewallError::Run { program, source };
    let mut child = daemon::command(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.map_err(failed)?;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(FirewallError::Failed { program, message: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_that_comes_after_others_is_not_in_force() {
        let is = |rules: &str| begins_with(rules, "INPUT", INPUT);
        assert!(is("-P INPUT ACCEPT\n-A INPUT -j DINP-APPS-IN\n-A INPUT -j ACCEPT\n"));
        assert!(!is("-P INPUT ACCEPT\n-A INPUT -i eth0 -j ACCEPT\n-A INPUT -j DINP-APPS-IN\n"));
        assert!(!is("-P INPUT ACCEPT\n"));
    }
}
