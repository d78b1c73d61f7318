//! `dinp image`: what was built of an app and lies in the registry.

use clap::Subcommand;
use dinp_common::api::builder::ImageView;
use dinp_common::model::AppName;

use super::app;
use crate::api::Api;
use crate::error::CliError;
use crate::output::{Output, age};

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum ImageCommand {
    /// The images of an app, newest first
    Ls {
        /// The app
        app: AppName,
    },
    /// Delete the image of a version that no release names
    Rm {
        /// The app
        app: AppName,
        /// The version
        version: String,
    },
}

/// Runs `dinp image`.
pub async fn run(command: &ImageCommand, api: &Api, out: &Output) -> Result<(), CliError> {
    match command {
        ImageCommand::Ls { app } => {
            let images = api.list::<ImageView>(&format!("{}/images", app::path(app))).await?;
            out.show(&images, || table(&images.items, out))
        }
        ImageCommand::Rm { app, version } => {
            api.delete(&format!("{}/images/{version}", app::path(app))).await?;
            let document = serde_json::json!({"app": app, "version": version});
            out.done(&document, &format!("the image of version {version} of {app} is deleted"))
        }
    }
}

fn table(images: &[ImageView], out: &Output) -> Result<(), CliError> {
    let row = |image: &ImageView| {
        let digest = image.digest.trim_start_matches("sha256:");
        vec![
            image.version.clone(),
            digest.get(..12).unwrap_or(digest).to_owned(),
            image.build.to_string(),
            if image.is_named { "yes" } else { "no" }.to_owned(),
            age(image.pushed_at),
        ]
    };
    let headers = ["VERSION", "DIGEST", "BUILD", "RELEASED", "AGE"];
    out.table(&headers, images.iter().map(row).collect(), "no image of it is in the registry")
}
