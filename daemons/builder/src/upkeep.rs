//! Images that nobody needs any more: deleted by `dinp-builder upkeep`, which a timer runs, and by people one at a time.
//!
//! An image goes only where all of this is so: a builder has pushed it, and it still says so itself; no release names its
//! digest; no other tag points to it; and, for what goes by itself, it is old, and the leader knows all instances that run and
//! would destroy something now. Bases, and what a company's own pipeline has pushed, are on no list.

use crate::config::BuilderConfig;
use crate::direct::Base;
use crate::problems;
use crate::registry::{Registry, RegistryError};
use crate::service::Service;
use clap::{Arg, ArgAction, ArgMatches, Command};
use dinp_common::api::builder::{ImageDelete, ImageView};
use dinp_common::api::control::UpkeepView;
use dinp_common::auth::Credential;
use dinp_common::client::{ApiClient, ClientError};
use dinp_common::config::Loaded;
use dinp_common::credentials::CredentialError;
use dinp_common::error::ErrorChain;
use dinp_common::model::{IMAGE_APP_LABEL, ImageRef};
use dinp_common::problem::Problem;
use dinp_common::store::{self, StoreError, image};
use mysql_async::Conn;
use std::io::{Write, stdout};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(10);
/// Images of one round: the next one goes on.
const MOST: u32 = 1000;

/// Why a round ends early.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// A credential is missing or malformed.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The database does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No leader answers, so nobody knows what runs.
    #[error("ask the leader what runs")]
    Leader(#[source] ClientError),
}

/// Why an image stays, as a sentence.
#[derive(Debug, thiserror::Error)]
enum Kept {
    /// It is not labelled as builders label.
    #[error("it does not say that a builder has made it for app {0}")]
    NotOurs(String),
    /// Somebody has given it another name.
    #[error("the tag {0} points to it, too")]
    Tagged(String),
    /// The registry does not do it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Its deletion could not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The subcommand.
pub fn command() -> Command {
    let check = Arg::new("check").long("check").action(ArgAction::SetTrue).help("Only say what would be deleted");
    Command::new("upkeep").about("Delete images that no release has named for a while (image_keep_days)").arg(check)
}

/// Runs it, and says on standard output what it did.
pub async fn run(matches: ArgMatches, loaded: Loaded<BuilderConfig>) -> Result<(), UpkeepError> {
    let cluster = &loaded.cluster;
    let credential = Credential::read("service-builder")?;
    let agent = concat!("dinp-builder/", env!("CARGO_PKG_VERSION"));
    let leader = ApiClient::of_servers(cluster.servers.clone(), Some(credential), agent);
    let mysql = &cluster.mysql;
    let password = mysql.password_for("builder")?;
    let pool = store::pool(&mysql.host, mysql.port, &mysql.database, &mysql.user_for("builder"), &password);
    let registry = Registry::new(&cluster.registry, cluster.registry.account("registry-push")?);
    let round = Round { leader, registry, days: loaded.daemon.image_keep_days, only_check: matches.get_flag("check") };
    let mut conn = store::connect(&pool, DEADLINE).await?;
    let outcome = round.run(&mut conn, |line| {
        // Whoever stopped reading has seen enough.
        writeln!(stdout(), "{line}").ok();
    });
    outcome.await
}

struct Round {
    leader: ApiClient,
    registry: Registry,
    days: u32,
    only_check: bool,
}

impl Round {
    async fn run(&self, conn: &mut Conn, say: impl Fn(String)) -> Result<(), UpkeepError> {
        if let Some(reason) = self.waits_for(conn).await? {
            say(format!("nothing is deleted: {reason}"));
            return Ok(());
        }
        let (mut gone, mut stay) = (0, 0);
        for image in image::unnamed(conn, self.days, MOST).await? {
            let name = format!("{}:{}@{}", image.repository, image.version, image.digest);
            if self.only_check {
                say(format!("{name} would be deleted"));
                continue;
            }
            let why = format!("its image was deleted: no release has named it for {} days", self.days);
            match delete(&self.registry, conn, &image, &why).await {
                Ok(()) => {
                    gone += 1;
                    say(format!("{name} is deleted"));
                }
                Err(kept) => {
                    stay += 1;
                    say(format!("{name} stays: {}", ErrorChain(&kept)));
                }
            }
        }
        if !self.only_check {
            say(format!("{gone} images are deleted, {stay} stay"));
        }
        Ok(())
    }

    /// Why nothing may be deleted now.
    async fn waits_for(&self, conn: &mut Conn) -> Result<Option<String>, UpkeepError> {
        if self.days == 0 {
            return Ok(Some("image_keep_days is 0".into()));
        }
        let view: UpkeepView = self.leader.get("/v1/upkeep", DEADLINE).await.map_err(UpkeepError::Leader)?;
        if view.waits_for.is_some() {
            return Ok(view.waits_for);
        }
        // A database that was restored knows less than what runs.
        let unknown = image::unknown_releases(conn, &view.releases).await?;
        Ok(unknown.first().map(|release| format!("instances run of release {release}, which no row knows")))
    }
}

/// Deletes the image of a version for a person, unless a release names it.
pub async fn delete_version(service: &Service, asked: &ImageDelete) -> Result<(), Problem> {
    let mut conn = service.connect().await.map_err(problems::store)?;
    let app = asked.app.as_str();
    let images = image::list(&mut conn, app, asked.app_created_at).await.map_err(problems::store)?;
    let Some(found) = images.into_iter().find(|image| image.version == asked.version) else {
        return Err(Problem::not_found(format!("there is no image of version \"{}\" of app {app}", asked.version)));
    };
    if found.is_named {
        let detail = format!("a release names the image of version \"{}\", and could be gone back to", found.version);
        return Err(Problem::conflict("image-in-use", detail));
    }
    let why = format!("its image was deleted by {}", asked.user);
    let deleted = delete(&service.registry, &mut conn, &found, &why).await;
    deleted.map_err(|kept| Problem::conflict("image-stays", ErrorChain(&kept).to_string()))?;
    tracing::info!(app, version = found.version, digest = found.digest, user = asked.user, "image deleted");
    Ok(())
}

/// Deletes an image that no release names.
async fn delete(registry: &Registry, conn: &mut Conn, image: &ImageView, why: &str) -> Result<(), Kept> {
    if registry.pushed(&image.repository, &image.digest).await?.is_some() {
        check_labels(registry, image).await?;
        for tag in registry.tags(&image.repository).await? {
            let is_it = registry.pushed(&image.repository, &tag).await?.as_deref() == Some(image.digest.as_str());
            if is_it && tag != image.version {
                return Err(Kept::Tagged(tag));
            }
        }
        registry.delete(&image.repository, &image.digest).await?;
    }
    Ok(image::deleted(conn, image, why).await?)
}

async fn check_labels(registry: &Registry, image: &ImageView) -> Result<(), Kept> {
    let not_ours = || Kept::NotOurs(image.app.clone());
    let name = format!("{}/{}@{}", registry.address(), image.repository, image.digest);
    let reference: ImageRef = name.parse().map_err(|_| not_ours())?;
    let config = Base::fetch(registry, &reference).await.map_err(|_| not_ours())?.config;
    let label = config.get("config").and_then(|config| config.get("Labels")?.get(IMAGE_APP_LABEL)?.as_str());
    if label == Some(image.app.as_str()) { Ok(()) } else { Err(not_ours()) }
}
