//! Who may write what: the least-privilege accounts of the daemons, as grants.
//!
//! `dinp setup` applies them after the migrations; tests use the same accounts, so that a query that
//! oversteps its daemon's rights fails in the tests and not at a customer's.

/// Privileges on one table.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// The privileges in SQL, such as `SELECT, INSERT`.
    pub privileges: &'static str,
    /// The table.
    pub table: &'static str,
}

const fn grant(privileges: &'static str, table: &'static str) -> Grant {
    Grant { privileges, table }
}

/// What the server may do.
pub const SERVER: &[Grant] = &[
    grant("SELECT", "cluster"),
    grant("SELECT, UPDATE", "revision"),
    grant("SELECT, UPDATE", "lease"),
    grant("SELECT", "sealing_key"),
    grant("SELECT", "service_credential"),
    grant("SELECT, UPDATE (release_id, rev)", "app"),
    grant("SELECT", "release"),
    grant("SELECT, UPDATE (state, reason, output, previous_release_id, started_at, finished_at, rev)", "deployment"),
    grant("SELECT", "env"),
    grant("SELECT", "domain"),
    grant("SELECT, INSERT, UPDATE", "node"),
    grant("SELECT, INSERT, UPDATE, DELETE", "router"),
    grant("SELECT, INSERT, DELETE", "instance_event"),
    grant("INSERT", "audit_event"),
    grant("SELECT", "schema_migration"),
];

/// What the dashboard may do.
pub const DASH: &[Grant] = &[
    grant("SELECT", "cluster"),
    grant("SELECT, UPDATE", "revision"),
    grant("SELECT", "sealing_key"),
    grant(
        "SELECT, INSERT, DELETE, UPDATE (owner, team, state, instances, env_version, created_at, updated_at, deleted_at, rev)",
        "app",
    ),
    grant("SELECT, INSERT, DELETE", "release"),
    grant("SELECT, INSERT, DELETE, UPDATE (request, rev)", "deployment"),
    grant("SELECT, INSERT, DELETE", "env"),
    grant("SELECT, INSERT, UPDATE, DELETE", "domain"),
    grant("SELECT (name, address, zone, state, created_at, deleted_at, rev)", "node"),
    grant("SELECT", "instance_event"),
    grant("SELECT", "build"),
    grant("SELECT", "build_log"),
    grant("SELECT", "image"),
    grant("SELECT, INSERT, DELETE", "audit_event"),
    grant("SELECT (name)", "user"),
    grant("SELECT (name)", "team"),
    grant("SELECT", "former_name"),
    grant("SELECT", "schema_migration"),
];

/// What a builder may do.
pub const BUILDER: &[Grant] = &[
    grant("SELECT", "service_credential"),
    grant("SELECT (name, created_at, deleted_at)", "app"),
    grant(
        "SELECT, INSERT, DELETE, UPDATE (status, stage, stages, reason, base, image, finished_at, builder, attempt, beat_at, \
         cancel_asked)",
        "build",
    ),
    grant("SELECT, INSERT, DELETE", "build_log"),
    grant("SELECT, INSERT, DELETE", "image"),
    grant("SELECT (id, image)", "release"),
    grant("INSERT", "audit_event"),
    grant("SELECT", "schema_migration"),
];

/// What uic may do.
pub const UIC: &[Grant] = &[
    grant("SELECT", "service_credential"),
    grant("SELECT, INSERT, UPDATE, DELETE", "user"),
    grant("SELECT, INSERT, DELETE", "team"),
    grant("SELECT, INSERT, UPDATE, DELETE", "team_member"),
    grant("SELECT, INSERT", "former_name"),
    grant("SELECT, INSERT, DELETE", "session"),
    grant("SELECT, INSERT, DELETE", "auth_code"),
    grant("SELECT, INSERT, UPDATE, DELETE", "token"),
    grant("INSERT", "audit_event"),
    grant("SELECT", "schema_migration"),
];

/// Account name and grants of each daemon that has one.
pub const ACCOUNTS: &[(&str, &[Grant])] =
    &[("dinp_server", SERVER), ("dinp_dash", DASH), ("dinp_builder", BUILDER), ("dinp_uic", UIC)];

/// The statements that give an account its grants on a database, and nothing else.
///
/// `database` and `account` must be plain identifiers, `host` an account host pattern; none is user input.
pub fn statements(database: &str, account: &str, host: &str, grants: &[Grant]) -> Vec<String> {
    grants
        .iter()
        .map(|grant| format!("GRANT {} ON `{database}`.`{}` TO '{account}'@'{host}'", grant.privileges, grant.table))
        .collect()
}
