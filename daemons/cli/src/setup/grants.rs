//! Grants as MySQL shows them, compared with those that are wanted.

use std::collections::BTreeSet;

/// One privilege on one table, or on one of its columns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Privilege {
    table: String,
    name: String,
    column: Option<String>,
}

impl Privilege {
    fn statement(&self, verb: &str, direction: &str, database: &str, account: &str) -> String {
        let column = self.column.as_ref().map(|column| format!(" (`{column}`)")).unwrap_or_default();
        format!("{verb} {}{column} ON `{database}`.`{}` {direction} '{account}'@'%'", self.name, self.table)
    }
}

/// Reads `GRANT ... ON db.table TO ...` lines; what is about other databases or about none is left out.
pub fn parse(text: &str, database: &str) -> BTreeSet<Privilege> {
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let line = line.replace('`', "");
        let Some((privileges, rest)) = line.trim().strip_prefix("GRANT ").and_then(|rest| rest.split_once(" ON "))
        else {
            continue;
        };
        let object = rest.split_whitespace().next().unwrap_or_default();
        let Some(table) = object.strip_prefix(database).and_then(|rest| rest.strip_prefix('.')) else { continue };
        for (name, columns) in split(privileges) {
            let privilege = |column| Privilege { table: table.to_owned(), name: name.clone(), column };
            if columns.is_empty() {
                found.insert(privilege(None));
            }
            found.extend(columns.into_iter().map(|column| privilege(Some(column))));
        }
    }
    found
}

/// `SELECT, UPDATE (a, b)` as names with their columns.
fn split(privileges: &str) -> Vec<(String, Vec<String>)> {
    let mut parts = Vec::new();
    let mut rest = privileges;
    while !rest.trim().is_empty() {
        let end = rest.find([',', '(']).unwrap_or(rest.len());
        let name = rest[..end].trim().to_ascii_uppercase();
        let mut columns = Vec::new();
        let mut next = end;
        if rest[end..].starts_with('(') {
            let close = rest[end..].find(')').map_or(rest.len(), |at| end + at);
            columns = rest[end + 1..close].split(',').map(|column| column.trim().to_owned()).collect();
            next = rest[close..].find(',').map_or(rest.len(), |at| close + at);
        }
        parts.push((name, columns));
        rest = rest.get(next + 1..).unwrap_or_default();
    }
    parts
}

/// Statements that lead from one to the other; what is missing is given before anything is taken.
///
/// The server takes a privilege on columns along with the same privilege on their table, so these are given once more.
pub fn changes(has: &BTreeSet<Privilege>, wants: &BTreeSet<Privilege>, database: &str, account: &str) -> Vec<String> {
    let grant = |privilege: &Privilege| privilege.statement("GRANT", "TO", database, account);
    let revoke = |privilege: &Privilege| privilege.statement("REVOKE", "FROM", database, account);
    let taken: BTreeSet<&Privilege> = has.difference(wants).collect();
    let again = wants.iter().filter(|privilege| {
        let on_table = Privilege { column: None, ..(*privilege).clone() };
        privilege.column.is_some() && taken.contains(&on_table)
    });
    let given = wants.difference(has).map(grant);
    given.chain(taken.iter().copied().map(revoke)).chain(again.map(grant)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::store;
    use dinp_common::testing::Mysql;
    use mysql_async::prelude::Queryable;

    #[test]
    fn lines_are_understood() {
        let shown = "GRANT USAGE ON *.* TO `dinp_x`@`%` IDENTIFIED BY PASSWORD '*AB'\n\
                     GRANT SELECT, UPDATE (`rev`, `release_id`) ON `dinp`.`app` TO `dinp_x`@`%`\n\
                     GRANT SELECT ON `other`.`app` TO `dinp_x`@`%`\n";
        let wanted = parse("GRANT SELECT, UPDATE (release_id, rev) ON `dinp`.`app` TO 'dinp_x'@'%'", "dinp");
        assert_eq!(parse(shown, "dinp"), wanted);
        assert_eq!(wanted.len(), 3);
    }

    #[test]
    fn what_is_too_much_is_taken_and_what_is_missing_given() {
        let has = parse("GRANT SELECT, DELETE ON dinp.app TO x", "dinp");
        let wants = parse("GRANT SELECT, UPDATE (rev) ON dinp.app TO x", "dinp");
        assert_eq!(
            changes(&has, &wants, "dinp", "x"),
            ["GRANT UPDATE (`rev`) ON `dinp`.`app` TO 'x'@'%'", "REVOKE DELETE ON `dinp`.`app` FROM 'x'@'%'"]
        );
    }

    #[tokio::test]
    async fn a_column_that_an_upgrade_brought_is_granted_when_setup_runs_again() {
        let mysql = Mysql::start().await;
        let root = mysql.database().await;
        let mut conn = root.get_conn().await.unwrap();
        let database: String = conn.query_first("SELECT DATABASE()").await.unwrap().unwrap();
        mysql.account(&root, "dinp_server").await;
        let revoke = format!("REVOKE UPDATE (output) ON `{database}`.deployment FROM 'dinp_server'@'%'");
        conn.query_drop(revoke).await.unwrap();
        let shown: Vec<String> = conn.query("SHOW GRANTS FOR 'dinp_server'@'%'").await.unwrap();
        let wants = store::grants::statements(&database, "dinp_server", "%", store::grants::SERVER).join("\n");
        assert_eq!(
            changes(&parse(&shown.join("\n"), &database), &parse(&wants, &database), &database, "dinp_server"),
            [format!("GRANT UPDATE (`output`) ON `{database}`.`deployment` TO 'dinp_server'@'%'")]
        );
    }

    #[tokio::test]
    async fn a_real_server_shows_what_was_granted() {
        let mysql = Mysql::start().await;
        let root = mysql.database().await;
        let mut conn = root.get_conn().await.unwrap();
        let database: String = conn.query_first("SELECT DATABASE()").await.unwrap().unwrap();
        for (account, grants) in store::grants::ACCOUNTS {
            mysql.account(&root, account).await;
            let shown: Vec<String> = conn.query(format!("SHOW GRANTS FOR '{account}'@'%'")).await.unwrap();
            let wants = parse(&store::grants::statements(&database, account, "%", grants).join("\n"), &database);
            let has = parse(&shown.join("\n"), &database);
            assert_eq!(changes(&has, &wants, &database, account), Vec::<String>::new(), "{account}");
            // From too much, also on tables of which only columns are granted.
            for table in ["lease", "app", "deployment", "node"] {
                let too_much = format!("GRANT SELECT, UPDATE, DELETE ON `{database}`.`{table}` TO '{account}'@'%'");
                conn.query_drop(too_much).await.unwrap();
            }
            let shown: Vec<String> = conn.query(format!("SHOW GRANTS FOR '{account}'@'%'")).await.unwrap();
            for statement in changes(&parse(&shown.join("\n"), &database), &wants, &database, account) {
                conn.query_drop(statement).await.unwrap();
            }
            let shown: Vec<String> = conn.query(format!("SHOW GRANTS FOR '{account}'@'%'")).await.unwrap();
            assert_eq!(parse(&shown.join("\n"), &database), wants, "{account}");
        }
    }
}
