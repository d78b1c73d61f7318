//! The samples that the cluster was brought up with.

use dinp_integration::testbed::{Cluster, Scenario};
use serde::Deserialize;

#[derive(Deserialize)]
struct App {
    name: String,
    urls: Vec<String>,
}

#[tokio::test]
async fn every_sample_answers_through_the_router() -> Scenario {
    let cluster = Cluster::shared().await?;
    let apps: Vec<App> = cluster.cli().list(&["app", "ls"]).await?;
    assert!(!apps.is_empty(), "no sample was deployed");
    for app in apps {
        let answer = cluster.router().get("/", &format!("{}.apps.localhost", app.name)).await?;
        assert_eq!(answer.status, 200, "{}: {}", app.name, answer.body);
        let port = cluster.published(80)?;
        assert!(
            app.urls.iter().any(|url| url.contains(&format!(":{port}"))),
            "no link of {} opens in a browser of this machine: {:?}",
            app.name,
            app.urls
        );
    }
    Ok(())
}
