//! The control machine, and the single one.

use super::args::ControlArgs;
use super::bundle;
use super::error::SetupError;
use super::files::{CredentialFile, File, HEAD, Kind, Program, Programs, credential_path, random_hex};
use super::member::node_steps;
use super::member::router_steps;
use super::step::{Runner, State, Step, Steps, Task};
use super::system::{self, Access, run as run_program};
use super::units::{Ready, Unit};
use super::{docker, mysql, redis, registry, server, services, tickets};
use dinp_common::auth::Role;
use dinp_common::config::ClusterConfig;
use dinp_common::credentials::{Secret, read_secret_file};
use dinp_common::model::NodeName;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use url::Url;

/// Where the settings of this machine go.
const SETTINGS: &str = "/etc/dinp/dinp.toml.d/10-setup.toml";
/// Where it puts those of the dashboard alone.
const DASH_SETTINGS: &str = "/etc/dinp/dash.toml.d/10-setup.toml";

/// The daemons of a control machine with their ports.
const DAEMONS: [(Role, &str, u16); 5] = [
    (Role::Uic, "dinp-uic.service", 1984),
    (Role::Server, "dinp-server.service", 1980),
    (Role::Dash, "dinp-dash.service", 1985),
    (Role::Hm, "dinp-hm.service", 1983),
    (Role::Builder, "dinp-builder.service", 1986),
];

/// What a control machine is to be, complete and checked.
pub struct Plan {
    name: String,
    address: IpAddr,
    cluster: String,
    domain: String,
    dash_url: Url,
    uic_url: Url,
    router_url: Option<Url>,
    admin: String,
    admin_password: Option<Secret>,
    /// Change nothing.
    pub check: bool,
}

impl Plan {
    /// Completes what was not said with what the machine knows.
    pub fn new(args: &ControlArgs) -> Result<Self, SetupError> {
        let refused = |text: &str| SetupError::Refused(text.to_owned());
        let name = args
            .name
            .clone()
            .or_else(system::host_name)
            .ok_or_else(|| refused("this machine has no name: pass --name"))?;
        if let Err(error) = name.parse::<NodeName>() {
            return Err(SetupError::Refused(error.to_string()));
        }
        let address = args.address.or_else(system::own_address);
        let address = address.ok_or_else(|| refused("this machine has no default route: pass --address"))?;
        if !system::is_own_address(address) {
            return Err(SetupError::Refused(format!(
                "{address} is no address of this machine: pass another --address"
            )));
        }
        let admin_password = args.admin_password_file.as_deref().map(read_secret_file).transpose()?;
        let plan = Self {
            dash_url: args.dash_url.clone().unwrap_or(http(address, 1985)?),
            uic_url: args.uic_url.clone().unwrap_or(http(address, 1984)?),
            router_url: args.router_url.clone(),
            name,
            address,
            cluster: args.cluster.clone(),
            domain: args.domain.clone(),
            admin: args.admin.clone(),
            admin_password,
            check: args.check,
        };
        // What the daemons would refuse is refused before anything is changed.
        let parsed: ClusterConfig = toml::from_str(&plan.settings()?)
            .map_err(|error| SetupError::Refused(format!("these options make no valid configuration: {error}")))?;
        parsed.validate()?;
        Ok(plan)
    }

    /// Where images are pulled, and where they are pushed.
    fn registries(&self) -> [SocketAddr; 2] {
        [5000, 5001].map(|port| SocketAddr::new(self.address, port))
    }

    fn settings(&self) -> Result<String, SetupError> {
        let [pull, push] = self.registries();
        let quoted = |text: &str| toml::Value::from(text).to_string();
        Ok(format!(
            "{HEAD}cluster = {cluster}\n\
             domain = {domain}\n\
             servers = [{server}]\n\
             \n\
             [mysql]\n\
             host = {host}\n\
             \n\
             [redis]\n\
             url = {redis}\n\
             \n\
             [registry]\n\
             address = {pull}\n\
             push_address = {push}\n\
             insecure = true\n\
             \n\
             [uic]\n\
             url = {uic}\n\
             public_url = {uic_public}\n\
             \n\
             [dash]\n\
             public_url = {dash_public}\n\
             \n\
             [builder]\n\
             url = {builder}\n",
            cluster = quoted(&self.cluster),
            domain = quoted(&self.domain),
            server = quoted(server::url(self.address)?.as_str()),
            host = quoted(&self.address.to_string()),
            redis = quoted(&format!("redis://{}", SocketAddr::new(self.address, 6379))),
            pull = quoted(&pull.to_string()),
            push = quoted(&push.to_string()),
            uic = quoted(http(self.address, 1984)?.as_str()),
            uic_public = quoted(self.uic_url.as_str()),
            dash_public = quoted(self.dash_url.as_str()),
            builder = quoted(http(self.address, 1986)?.as_str()),
        ))
    }

    /// The links to apps that the dashboard shows.
    fn dash_settings(&self) -> String {
        let url = format!("http://{}{}", self.domain, self.router_port());
        format!("{HEAD}apps_url = {}\n", toml::Value::from(url))
    }

    /// The routers' port as it stands in a URL.
    fn router_port(&self) -> String {
        self.router_url.as_ref().and_then(Url::port).map(|port| format!(":{port}")).unwrap_or_default()
    }

    fn programs(&self) -> Box<dyn Step> {
        let mut wanted: Vec<Program> = vec![
            ("MariaDB or MySQL", &["mariadbd", "mysqld"], "mariadb-server"),
            ("Redis", &["redis-server"], "redis-server"),
            ("the Docker registry", &["docker-registry"], "docker-registry"),
            ("htpasswd", &["htpasswd"], "apache2-utils"),
            ("dinp-server", &["dinp-server"], "dinp-server"),
            ("dinp-dash", &["dinp-dash"], "dinp-dash"),
            ("dinp-uic", &["dinp-uic"], "dinp-uic"),
            ("dinp-builder", &["dinp-builder"], "dinp-builder"),
            ("dinp-hm", &["dinp-hm"], "dinp-hm"),
        ];
        wanted.extend(docker::programs());
        Box::new(Programs { wanted })
    }

    /// Databases, registry, Docker.
    fn foundation(&self) -> Steps {
        let mut steps: Steps = vec![self.programs()];
        let passwords =
            ["mysql-migrate".to_owned()].into_iter().chain(mysql::daemons().map(|name| format!("mysql-{name}")));
        steps.extend(passwords.map(|id| CredentialFile::step(id, Kind::Password)));
        steps.extend(["redis-server", "redis-router"].map(|id| CredentialFile::step(id, Kind::Password)));
        steps.extend([registry::PUSH, registry::PULL].map(|(user, id)| CredentialFile::step(id, Kind::Account(user))));
        steps.push(Box::new(tickets::TicketKeys));
        steps.extend(mysql::server_steps(self.address));
        steps.extend(redis::steps(self.address));
        let [pull, push] = self.registries();
        steps.extend(registry::steps(pull, push));
        steps.extend(docker::steps(vec![pull.to_string(), push.to_string()]));
        steps.extend(mysql::data_steps(self.address));
        steps
    }

    /// The daemons, their credentials and settings.
    fn daemons(&self) -> Result<Steps, SetupError> {
        let mut steps: Steps = Vec::new();
        for (role, ..) in DAEMONS {
            steps.push(Box::new(services::Service {
                address: self.address,
                id: format!("service-{role}"),
                name: format!("{role}-{}", self.name),
                role,
            }));
        }
        steps.push(File::step(SETTINGS, self.settings()?, Access::CONFIG));
        steps.push(File::step(DASH_SETTINGS, self.dash_settings(), Access::CONFIG));
        steps.push(File::step(server::SETTINGS, server::settings(&server::url(self.address)?), Access::CONFIG));
        steps.push(Unit::step("dinp.target", [] as [PathBuf; 0]));
        for (role, unit, _) in DAEMONS {
            let mut reads = vec![PathBuf::from(SETTINGS)];
            match role {
                Role::Dash => reads.push(DASH_SETTINGS.into()),
                Role::Server => reads.push(server::SETTINGS.into()),
                _ => {}
            }
            let ids: &[&str] = match role {
                Role::Server => &server::CREDENTIALS,
                Role::Dash => &["mysql-dash", "registry-pull"],
                Role::Uic => &["mysql-uic"],
                Role::Builder => &["mysql-builder", "registry-push"],
                Role::Hm | Role::Router => &[],
            };
            reads.extend(ids.iter().map(|id| credential_path(id)));
            reads.push(credential_path(&format!("service-{role}")));
            if role == Role::Builder {
                steps.push(Unit::step("dinp-builder.socket", [] as [PathBuf; 0]));
                steps.push(Unit::on_demand(unit, reads));
                steps.push(Unit::step("dinp-builder-upkeep.timer", [] as [PathBuf; 0]));
            } else {
                steps.push(Unit::step(unit, reads));
            }
        }
        Ok(steps)
    }

    /// What a person wants to know at the end.
    pub fn tell(&self, login: Option<Secret>) {
        println!();
        println!("dashboard  {}", self.dash_url);
        if let Some(password) = login {
            println!("login      {}, password {} (shown this once)", self.admin, password.expose());
        }
        println!("apps       http://<app>.{}{}/", self.domain, self.router_port());
    }
}

/// Sets the machine up; returns the first login's password if it was made here.
pub async fn run(plan: &Plan, runner: &mut Runner, single: bool) -> Result<Option<Secret>, SetupError> {
    runner.run(plan.foundation()).await?;
    runner.run(plan.daemons()?).await?;
    if single {
        // The bundles need the database, which is there by now unless this is only a check.
        match bundle::own_node(&plan.name, plan.check).await {
            Ok(bundle) => runner.run(node_steps(&bundle)?).await?,
            Err(_) if plan.check => runner.later("this machine as a node"),
            Err(error) => return Err(error),
        }
        match bundle::own_router(&plan.name, plan.address, plan.check).await {
            Ok(bundle) => runner.run(router_steps(&bundle)?).await?,
            Err(_) if plan.check => runner.later("this machine as a router"),
            Err(error) => return Err(error),
        }
    }
    runner.run(DAEMONS.iter().map(|(_, unit, port)| Ready::step(unit, *port)).collect()).await?;
    let made = Arc::new(Mutex::new(None));
    let administrator = Administrator {
        address: plan.address,
        name: plan.admin.clone(),
        password: plan.admin_password.clone(),
        made: Arc::clone(&made),
    };
    runner.run(vec![Box::new(administrator)]).await?;
    Ok(made.lock().unwrap_or_else(PoisonError::into_inner).take())
}

fn http(address: IpAddr, port: u16) -> Result<Url, SetupError> {
    let text = format!("http://{}", SocketAddr::new(address, port));
    Url::parse(&text).map_err(|error| SetupError::Refused(format!("{text} is not a URL: {error}")))
}

/// Somebody who can sign in and let others in.
struct Administrator {
    address: IpAddr,
    name: String,
    password: Option<Secret>,
    made: Arc<Mutex<Option<Secret>>>,
}

impl Step for Administrator {
    fn name(&self) -> String {
        "first administrator".into()
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            let there = mysql::has_administrator(self.address).await?;
            Ok(if there { State::Ok } else { State::due(self.name.clone()) })
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async {
            let password = self.password.clone().unwrap_or_else(|| Secret::new(random_hex(10)));
            run_program("dinp-uic", &["create-admin", &self.name, "--password-file", "-"], Some(&password)).await?;
            if self.password.is_none() {
                *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(password);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> ControlArgs {
        ControlArgs {
            name: Some("control".into()),
            address: Some("127.0.0.1".parse().unwrap()),
            cluster: "dinp".into(),
            domain: "apps.localhost".into(),
            dash_url: None,
            uic_url: Some("http://127.0.0.1:8084".parse().unwrap()),
            router_url: None,
            admin: "admin".into(),
            admin_password_file: None,
            check: true,
        }
    }

    #[test]
    fn settings_are_what_daemons_read() {
        let plan = Plan::new(&args()).unwrap();
        let config: ClusterConfig = toml::from_str(&plan.settings().unwrap()).unwrap();
        assert_eq!(config.mysql.host, "127.0.0.1");
        assert_eq!(config.registry.address, "127.0.0.1:5000");
        assert_eq!(config.registry.push_address(), "127.0.0.1:5001");
        assert_eq!(config.uic.public_url.as_str(), "http://127.0.0.1:8084/");
        assert_eq!(config.dash.public_url.as_str(), "http://127.0.0.1:1985/");
        assert_eq!(config.redis.url.as_str(), "redis://127.0.0.1:6379");
    }

    #[test]
    fn links_to_apps_have_the_port_of_the_routers() {
        let mut args = args();
        assert!(Plan::new(&args).unwrap().dash_settings().ends_with("apps_url = \"http://apps.localhost\"\n"));
        args.router_url = Some("http://127.0.0.1:8080".parse().unwrap());
        assert!(Plan::new(&args).unwrap().dash_settings().ends_with("apps_url = \"http://apps.localhost:8080\"\n"));
    }

    #[test]
    fn options_that_daemons_would_refuse_are_refused_first() {
        let refused = |change: fn(&mut ControlArgs)| {
            let mut args = args();
            change(&mut args);
            Plan::new(&args).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(refused(|args| args.domain = "Apps_x".into()).contains("domain"));
        assert!(refused(|args| args.name = Some("No Name".into())).contains("node name"));
        assert!(refused(|args| args.address = Some("192.0.2.1".parse().unwrap())).contains("192.0.2.1"));
    }
}
