//! From a package to the first request, measured.

use std::time::Instant;

use dinp_integration::testbed::{Cluster, Scenario, eventually, secs};

#[tokio::test]
async fn five_megabytes_of_python_answer_soon() -> Scenario {
    let cluster = Cluster::shared().await?;
    let package = cluster.package("hello-python").await?.with_ballast("ballast.bin", 5 << 20)?.packed().await?;
    let router = cluster.router();

    let began = Instant::now();
    let command = ["deploy", &*package, "--app", "t-time", "--runtime", "python"];
    let deploy = cluster.dinp(&command);
    let first_answer = eventually("the first 200", secs(60), async || {
        let answer = router.get("/", "t-time.apps.localhost").await.map_err(|error| error.chain())?;
        if answer.status == 200 { Ok(began.elapsed()) } else { Err(answer.status.to_string()) }
    });
    let (deployed, first_answer) = tokio::join!(deploy, first_answer);
    deployed?;
    let took = first_answer?;
    println!("dinp deploy of a 5 MB Python package to the first 200: {:.1} s (aim 5 s)", took.as_secs_f32());
    assert!(took < secs(30), "{took:?}");
    Ok(())
}
