//! Domains of apps besides `<app>.<domain>`.

use crate::apps::{object, within};
use crate::{Caller, Dash, permissions, record, refuse};
use dinp_common::api::people::DomainView;
use dinp_common::model::{AppName, DomainName};
use dinp_common::problem::Problem;
use dinp_common::store::app::{self, AppRow};
use dinp_common::store::domain;

/// Why a name cannot be a domain of this app, whoever holds it.
fn check(name: &DomainName, app: &AppName, platform: &str, own_hosts: &[Option<&str>]) -> Result<(), String> {
    let name = name.as_str();
    let own = format!("{app}.{platform}");
    if name == own {
        return Err(format!("{name} is the app's own address already"));
    }
    let below = |parent: &str| name.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    if name == platform || (below(platform) && !below(&own)) {
        return Err(format!("{name} is under {platform}, where each name belongs to the app of that name"));
    }
    // From below such an address cookies could be set for it.
    if let Some(host) = own_hosts.iter().flatten().find(|host| name == **host || below(host)) {
        return Err(format!("{host} is an address of the cluster itself"));
    }
    Ok(())
}

impl Dash {
    /// Where browsers reach dash and uic: no app may answer there.
    fn own_hosts(&self) -> [Option<&str>; 2] {
        [self.cluster.dash.public_url.host_str(), self.cluster.uic.public_url.host_str()]
    }

    /// Gives a domain to an app.
    pub(crate) async fn add_domain(
        &self,
        caller: &Caller,
        row: &AppRow,
        name: &DomainName,
    ) -> Result<DomainView, Problem> {
        let app = &row.name;
        check(name, app, &self.cluster.domain, &self.own_hosts())
            .map_err(|rule| refuse("name", "domain-not-allowed", rule))?;
        let mut change = self.begin().await?;
        within(&mut change, row).await?;
        let conflict = |detail: String| Problem::conflict("domain-taken", detail).with("field", "name");
        match domain::holder(&mut change.tx, name).await? {
            None => {}
            Some(holder) if holder == *app => return Err(conflict(format!("the app has the domain {name} already"))),
            Some(holder) => {
                // The other app's name is told to those only who can see it anyway.
                let row = app::find(&mut change.tx, &holder).await?;
                let visible = row
                    .is_some_and(|row| permissions::role_on(&caller.user, &row.owner, row.team.as_deref()).is_some());
                let by = if visible { format!("app {holder}") } else { "another app".to_owned() };
                return Err(conflict(format!(
                    "the domain {name} is held by {by}; a domain belongs to one app at a time"
                )));
            }
        }
        let max = self.config.domains_max;
        if domain::list(&mut change.tx, app).await?.len() >= max as usize {
            return Err(refuse("name", "too-many", format!("an app can have {max} domains at most")));
        }
        self.check_new_domain(&mut change.tx, caller, row).await?;
        domain::put(&mut change, name, app, caller.name()).await?;
        record(&mut change, caller, "domain.add", &object(app), name.as_str()).await?;
        self.commit(change).await?;
        let views = domain::list(&mut self.conn().await?, app).await?;
        let none = || Problem::not_found(format!("app {app} has no domain {name}"));
        views.into_iter().find(|view| view.name == *name).ok_or_else(none)
    }

    /// Takes a domain from an app.
    pub(crate) async fn remove_domain(&self, caller: &Caller, row: &AppRow, name: &str) -> Result<(), Problem> {
        let app = &row.name;
        let none =
            || Problem::not_found(format!("app {app} has no domain {}", name.chars().take(253).collect::<String>()));
        let name: DomainName = name.parse().map_err(|_| none())?;
        let mut change = self.begin().await?;
        within(&mut change, row).await?;
        if !domain::remove(&mut change, &name, app).await? {
            return Err(none());
        }
        record(&mut change, caller, "domain.remove", &object(app), name.as_str()).await?;
        self.commit(change).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_under_the_platform_belong_to_their_apps() {
        let app: AppName = "web".parse().unwrap();
        let ok = |name: &str| check(&name.parse().unwrap(), &app, "apps.example", &[Some("dash.example.org")]).is_ok();
        assert!(ok("shop.example.org"));
        assert!(ok("www.web.apps.example"));
        assert!(ok("notapps.example"));
        for bad in [
            "web.apps.example",
            "other.apps.example",
            "apps.example",
            "a.other.apps.example",
            "xweb.apps.example",
            "dash.example.org",
            "a.dash.example.org",
        ] {
            assert!(!ok(bad), "{bad}");
        }
    }
}
