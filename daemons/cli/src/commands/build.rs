//! `dinp build`: packages to images, their records and logs.

use std::io::{Write, stderr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use dinp_common::api::builder::{BuildView, RuntimeView};
use dinp_common::api::people::UploadCreate;
use dinp_common::model::{AppName, RuntimeName};
use http::Method;
use indicatif::ProgressBar;

use super::rebase::{self, Rebase};
use crate::api::{Api, with_query};
use crate::error::CliError;
use crate::follow;
use crate::output::{Output, age, dash, size, time};
use crate::package::{Package, Source};

const EXAMPLES: &str = "\
Examples:
  dinp build ./app.tar.gz --app hello --runtime python
  dinp build ls --app hello
  dinp build log 12 -f
  dinp app deploy hello --build 12";

/// Arguments of `dinp build`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Build {
    /// What to do
    #[command(subcommand)]
    command: Option<BuildCommand>,
    /// Directory, http or https address, or package: .tar.gz, .tar.zst, .tar.xz, .tar.bz2, .tar, .zip, .war, .jar or one static executable
    #[arg(required = true)]
    package: Option<PathBuf>,
    /// The app that it is for
    #[arg(long, short = 'a', value_name = "NAME", required = true)]
    app: Option<AppName>,
    /// How to build it
    #[command(flatten)]
    upload: Upload,
    /// What there is to say of this version, in one line
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
    /// Do not wait for the end of the build
    #[arg(long)]
    no_wait: bool,
}

/// How a package is to be built.
#[derive(Args, Clone, Debug)]
pub struct Upload {
    /// How to make an image [default: what the package is for]
    #[arg(long, short = 'r', value_name = "RUNTIME")]
    runtime: Option<RuntimeName>,
    /// Suite of the base image, such as trixie [default: that of the app's last build]
    #[arg(long, value_name = "SUITE")]
    suite: Option<String>,
    /// What to call this version of the package [default: a time stamp]
    #[arg(long = "package-version", value_name = "TEXT")]
    version: Option<String>,
}

#[derive(Debug, Subcommand)]
enum BuildCommand {
    /// Builds, newest first
    Ls {
        /// Of this app only
        #[arg(long, short = 'a', value_name = "NAME")]
        app: Option<AppName>,
    },
    /// One build
    Show {
        /// Number of the build
        id: u64,
    },
    /// Log of a build
    Log {
        /// Number of the build
        id: u64,
        /// Go on until the build ends, and end with its verdict
        #[arg(long, short = 'f')]
        follow: bool,
    },
    /// End a build
    Cancel {
        /// Number of the build
        id: u64,
    },
    /// Put apps on their base images as those are now, and deploy them one after another
    #[command(after_help = rebase::EXAMPLES)]
    Rebase(Rebase),
    /// What packages can be built into images
    Runtimes,
}

/// Runs `dinp build`.
pub async fn run(args: &Build, api: &Api, out: &Output) -> Result<(), CliError> {
    match (&args.command, &args.package, &args.app) {
        (Some(command), ..) => manage(command, api, out).await,
        (None, Some(path), Some(app)) => {
            let package = Package::open(path, out)?;
            let build = if args.no_wait {
                send(app, &package, &args.upload, &args.note, api, out).await?
            } else {
                self::package(app, &package, &args.upload, &args.note, api, out).await?
            };
            let image = build.image.as_deref().unwrap_or_default();
            let next = if image.is_empty() { format!("is {}", build.status.as_str()) } else { format!("made {image}") };
            out.show(&build, || out.line(format!("build {} of {app} {next}", build.id)))
        }
        _ => Err(CliError::usage("a package and --app are needed", "see `dinp build --help`")),
    }
}

async fn manage(command: &BuildCommand, api: &Api, out: &Output) -> Result<(), CliError> {
    match command {
        BuildCommand::Ls { app } => {
            let app = app.as_ref().map(AppName::as_str);
            let builds = api.list::<BuildView>(&with_query("/v1/builds", &[("app", app)])).await?;
            out.show(&builds, || table(&builds.items, out))
        }
        BuildCommand::Show { id } => {
            let build: BuildView = api.get(&format!("/v1/builds/{id}")).await?;
            out.show(&build, || show(&build, out))
        }
        BuildCommand::Log { id, follow: false } => {
            follow::log(api, *id, false, &mut 0, &mut |bytes: &[u8]| out.raw(bytes)).await
        }
        BuildCommand::Log { id, follow: true } => {
            let build = follow::build(api, out, *id, |bytes| out.raw(bytes)).await?;
            follow::built(&build)
        }
        BuildCommand::Cancel { id } => {
            let build: BuildView = api.post(&format!("/v1/builds/{id}/cancel"), &()).await?;
            out.done(&build, &format!("build {id} of {} is being cancelled", build.app))
        }
        BuildCommand::Rebase(wish) => rebase::run(wish, api, out).await,
        BuildCommand::Runtimes => {
            let runtimes = api.list::<RuntimeView>("/v1/runtimes").await?;
            out.show(&runtimes, || {
                let row = |runtime: &RuntimeView| {
                    let holds = upstream(runtime.holds.as_deref().unwrap_or_default());
                    vec![runtime.name.to_string(), holds, runtime.description.clone()]
                };
                out.table(
                    &["RUNTIME", "ON", "TAKES"],
                    runtimes.items.iter().map(row).collect(),
                    "no builder has a runtime",
                )
            })
        }
    }
}

/// A list of packages with the versions of their makers: without what the distribution adds before and after.
fn upstream(holds: &str) -> String {
    let short = |package: &str| {
        let Some((name, version)) = package.split_once(' ') else { return package.to_owned() };
        let version = version.split_once(':').map_or(version, |(_, version)| version);
        format!("{name} {}", version.rsplit_once('-').map_or(version, |(version, _)| version))
    };
    holds.split(", ").map(short).collect::<Vec<_>>().join(", ")
}

/// Uploads a package, shows the log on standard error, and returns the build once it has succeeded.
pub async fn package(
    app: &AppName,
    package: &Package,
    upload: &Upload,
    note: &str,
    api: &Api,
    out: &Output,
) -> Result<BuildView, CliError> {
    let build = send(app, package, upload, note, api, out).await?;
    out.note(format!("build {} of {} with runtime {}", build.id, app, build.runtime));
    let show = |bytes: &[u8]| {
        if !out.is_quiet() {
            // The log can be read again later; a closed standard error must not end the build's wait.
            stderr().write_all(bytes).ok();
        }
        Ok(())
    };
    let build = follow::build(api, out, build.id, show).await?;
    follow::built(&build)?;
    Ok(build)
}

async fn send(
    app: &AppName,
    package: &Package,
    upload: &Upload,
    note: &str,
    api: &Api,
    out: &Output,
) -> Result<BuildView, CliError> {
    let version = upload.version.clone();
    let runtime = upload.runtime.as_ref().map(ToString::to_string);
    match package.source() {
        Source::File(file, bytes) => {
            let file =
                file.try_clone().map_err(|error| CliError::file("read package", package.name().as_ref(), error))?;
            let asked = UploadCreate {
                app: app.clone(),
                version,
                runtime,
                suite: upload.suite.clone(),
                package: package.name().to_owned(),
                note: note.to_owned(),
                bytes: *bytes,
                sha256: None,
            };
            crate::upload::file(file, *bytes, asked, api, out).await
        }
        Source::Address(url) => {
            let path = with_query(
                "/v1/builds",
                &[
                    ("app", Some(app.as_str())),
                    ("version", version.as_deref()),
                    ("runtime", runtime.as_deref()),
                    ("suite", upload.suite.as_deref()),
                    ("package", Some(package.name())),
                    ("note", Some(note).filter(|note| !note.is_empty())),
                    ("url", Some(url.as_str())),
                ],
            );
            let spinner = ProgressBar::with_draw_target(None, out.draw_target());
            spinner.set_message(format!("the builder fetches {}", package.name()));
            spinner.enable_steady_tick(Duration::from_millis(200));
            let answer = api.send(api.request(Method::POST, &path)?).await;
            spinner.finish_and_clear();
            let bytes = answer?.bytes().await.map_err(|error| api.broken(error))?;
            serde_json::from_slice(&bytes).map_err(|error| api.garbled(error))
        }
    }
}

fn table(builds: &[BuildView], out: &Output) -> Result<(), CliError> {
    let row = |build: &BuildView| {
        vec![
            build.id.to_string(),
            build.app.to_string(),
            build.runtime.clone(),
            build.version.clone(),
            build.status.as_str().to_owned(),
            dash(&build.package_name),
            build.created_by.clone(),
            age(build.started_at),
        ]
    };
    let headers = ["BUILD", "APP", "RUNTIME", "VERSION", "STATUS", "PACKAGE", "BY", "AGE"];
    out.table(&headers, builds.iter().map(row).collect(), "no builds yet: `dinp build PACKAGE --app NAME` makes one")
}

fn show(build: &BuildView, out: &Output) -> Result<(), CliError> {
    let bytes = build.package_bytes.map(|bytes| format!(" ({})", size(bytes))).unwrap_or_default();
    out.pairs(vec![
        ("build", build.id.to_string()),
        ("app", build.app.to_string()),
        ("version", build.version.clone()),
        ("runtime", build.runtime.clone()),
        ("status", build.status.as_str().to_owned()),
        ("stage", build.stage.clone()),
        ("reason", build.reason.clone()),
        ("note", build.note.clone()),
        ("package", format!("{}{bytes}", build.package_name)),
        ("sha256", build.package_sha256.clone().unwrap_or_default()),
        ("source", build.source.clone()),
        ("base", build.base.clone()),
        ("image", build.image.clone().unwrap_or_default()),
        ("by", build.created_by.clone()),
        ("builder", build.builder.clone()),
        ("attempt", if build.attempt > 1 { build.attempt.to_string() } else { String::new() }),
        ("took", took(build)),
        ("started", time(build.started_at)),
        ("finished", build.finished_at.map(time).unwrap_or_default()),
    ])
}

/// How long each stage took, as far as it has ended.
fn took(build: &BuildView) -> String {
    let times = build.times().into_iter().map(|(stage, time)| format!("{stage} {:.1} s", time.as_secs_f64()));
    times.collect::<Vec<_>>().join(", ")
}
