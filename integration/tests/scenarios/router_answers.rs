//! What the router says where no application can answer.

use dinp_integration::testbed::{Cluster, Scenario, eventually, secs};

#[tokio::test]
async fn an_unknown_host_is_404() -> Scenario {
    let cluster = Cluster::shared().await?;
    let answer = cluster.router().get("/", "nobody.apps.localhost").await?;
    assert_eq!(answer.status, 404, "{}", answer.body);
    assert!(answer.body.len() < 1000, "a short plain page, not {}", answer.body);
    Ok(())
}

#[tokio::test]
async fn an_app_scaled_to_nothing_is_503_and_not_404() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("zero").instances(1).deploy().await?;
    app.scale(0).await?;
    app.settles_at(0, secs(60)).await?;
    eventually("503 is answered", secs(10), async || {
        let answer = app.get("/").await.map_err(|error| error.chain())?;
        if answer.status == 503 { Ok(()) } else { Err(format!("{}: {}", answer.status, answer.body)) }
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_header_of_a_quarter_megabyte_is_431() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("header").instances(1).deploy().await?;
    let value = "x".repeat(256 * 1024);
    let answer = cluster.router().get_with("/version", &app.domain(), "x-long", &value).await?;
    assert_eq!(answer.status, 431, "{}", answer.body);
    // The next request of the same client is served.
    app.answers("v1").await?;
    Ok(())
}
