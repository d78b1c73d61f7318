use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use super::*;

/// A directory that is removed at the end of its test.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("dinp-common-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Own {
    listen: Vec<String>,
    drain_timeout_secs: u64,
    spool: Option<PathBuf>,
    limits: Limits,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    requests: u32,
    kills: u32,
}

impl Default for Own {
    fn default() -> Self {
        Self { listen: vec!["[::]:1980".into()], drain_timeout_secs: 30, spool: None, limits: Limits::default() }
    }
}

impl DaemonConfig for Own {
    fn validate(&self, _: &ClusterConfig) -> Result<(), ConfigError> {
        if self.drain_timeout_secs == 0 {
            return Err(ConfigError::invalid("drain_timeout_secs", "must be at least 1"));
        }
        Ok(())
    }
}

fn fails(name: &str, text: &str) -> String {
    let dir = Dir::new();
    dir.write(name, text);
    let error = load::<Own>(dir.path(), "server").unwrap_err().to_string();
    error.replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn nothing_is_all_defaults() {
    let dir = Dir::new();
    let loaded = load::<Own>(dir.path(), "server").unwrap();
    assert_eq!(loaded.cluster, ClusterConfig::default());
    assert_eq!(loaded.daemon, Own::default());
    assert!(loaded.origins.is_empty());
}

#[test]
fn later_files_win_key_by_key() {
    let dir = Dir::new();
    dir.write("dinp.toml", "domain = 'a.example'\n[mysql]\nhost = 'one'\nport = 1\n");
    dir.write("dinp.toml.d/20-late.toml", "[mysql]\nhost = 'three'\n");
    dir.write("dinp.toml.d/10-early.toml", "[mysql]\nhost = 'two'\nuser = 'root'\n");
    dir.write("dinp.toml.d/30-ignored.toml.bak", "nonsense");
    dir.write("server.toml", "listen = ['[::1]:1', '[::1]:2']\n[limits]\nkills = 4\n[log]\nlevel = 'debug'\n");
    dir.write("server.toml.d/a.toml", "listen = ['[::1]:3']\n[limits]\nrequests = 5\n");
    let loaded = load::<Own>(dir.path(), "server").unwrap();
    assert_eq!(loaded.cluster.mysql.host, "three");
    assert_eq!(loaded.cluster.mysql.port, 1);
    assert_eq!(loaded.cluster.mysql.user_for("server"), "root");
    assert_eq!(loaded.cluster.log.level, "debug");
    assert_eq!(loaded.daemon.listen, ["[::1]:3"]);
    assert_eq!(loaded.daemon.limits, Limits { requests: 5, kills: 4 });
    assert_eq!(loaded.origins["mysql.host"], dir.path().join("dinp.toml.d/20-late.toml"));
    assert_eq!(loaded.origins["limits.kills"], dir.path().join("server.toml"));
}

#[test]
fn people_may_come_by_tls_and_never_through_the_apps_domain() {
    let dir = Dir::new();
    dir.write("dinp.toml", "domain = 'apps.example'\n[dash]\npublic_url = 'https://dash.example'\n");
    assert_eq!(load::<Own>(dir.path(), "server").unwrap().cluster.dash.public_url.scheme(), "https");
    for (bad, problem) in [
        ("https://dash.apps.example", "dash.apps.example lies under apps.example, where apps answer"),
        ("http://apps.example:1985", "apps.example lies under apps.example, where apps answer"),
        ("ftp://dash.example", "is not an http:// or https:// URL with a host"),
    ] {
        let said = fails("dinp.toml", &format!("domain = 'apps.example'\n[dash]\npublic_url = '{bad}'\n"));
        assert!(said.contains("dash.public_url") && said.contains(problem), "{said}");
    }
    let half = "[dash]\npublic_url = 'https://dash.example'\n[uic]\npublic_url = 'http://uic.example'\n";
    let said = fails("dinp.toml", half);
    assert!(said.contains("uic.public_url") && said.contains("would take passwords in the clear"), "{said}");
    assert!(fails("dinp.toml", "[uic]\nurl = 'https://uic.example'\n").contains("https:// is not supported yet"));
}

#[test]
fn unknown_keys_name_file_line_and_nearest() {
    assert_eq!(
        fails("dinp.toml", "cluster = 'x'\n\n[mysql]\nhots = 'a'\n"),
        "dinp.toml:4: unknown key `hots`, did you mean `host`?"
    );
    // A key without a default is known as well.
    assert_eq!(
        fails("dinp.toml.d/x.toml", "[mysql]\npasword_file = 'a'\n"),
        "dinp.toml.d/x.toml:2: unknown key `pasword_file`, did you mean `password_file`?"
    );
    assert_eq!(fails("server.toml", "spol = 'a'\n"), "server.toml:1: unknown key `spol`, did you mean `spool`?");
    assert_eq!(
        fails("server.toml", "\n[limits]\nkils = 1\n"),
        "server.toml:3: unknown key `kils`, did you mean `kills`?"
    );
    assert_eq!(fails("server.toml", "[mysq]\nport = 1\n"), "server.toml:1: unknown key `mysq`, did you mean `mysql`?");
    assert_eq!(
        fails("server.toml", "[log]\nlevle = 'info'\n"),
        "server.toml:2: unknown key `levle`, did you mean `level`?"
    );
    assert_eq!(fails("server.toml", "zebra = 1\n"), "server.toml:1: unknown key `zebra`");
}

#[test]
fn wrong_values_name_file_and_line() {
    let error = fails("server.toml", "# a\ndrain_timeout_secs = 'long'\n");
    assert!(error.starts_with("server.toml:2: invalid type: string \"long\""), "{error}");
    let error = fails("server.toml", "a = = b\n");
    assert!(error.starts_with("server.toml:1: "), "{error}");
    let error = fails("dinp.toml", "cluster = 'x'\nservers = [\n  'http://a:1',\n  'https://b:1',\n]\n");
    assert_eq!(error, "dinp.toml:4: https:// is not supported yet (TLS), use http://");
}

#[test]
fn invalid_values_name_the_file_that_set_them() {
    assert_eq!(
        fails("server.toml", "drain_timeout_secs = 0\n"),
        "server.toml: `drain_timeout_secs`: must be at least 1"
    );
    assert_eq!(fails("dinp.toml", "servers = []\n"), "dinp.toml: `servers`: must name at least one server");
}

#[test]
fn show_is_toml_and_names_origins() {
    let dir = Dir::new();
    dir.write("server.toml", "drain_timeout_secs = 7\n");
    let loaded = load::<Own>(dir.path(), "server").unwrap();
    let text = loaded.show();
    assert!(text.contains(&format!("drain_timeout_secs = 7  # {}/server.toml\n", dir.path().display())), "{text}");
    assert!(text.contains("cluster = \"dinp\"  # default\n"), "{text}");
    assert!(text.contains("\n[limits]\nrequests = 0  # default\n") || text.contains("kills = 0  # default"), "{text}");
    let (cluster, own) = text.split_once("\n# server\n").unwrap();
    assert_eq!(toml::from_str::<ClusterConfig>(cluster).unwrap(), loaded.cluster);
    assert_eq!(toml::from_str::<Own>(own).unwrap(), loaded.daemon);
}
