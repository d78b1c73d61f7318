//! Bad input gets a clear sentence that names the thing, and leaves nothing half done.

use dinp_integration::testbed::{Cluster, Scenario, eventually, secs};

/// Runs `dinp`, expects a refusal, and that its text holds all of these words.
async fn refused(cluster: &Cluster, args: &[&str], words: &[&str]) {
    match cluster.dinp(args).await {
        Ok(output) => panic!("`dinp {}` was accepted:\n{output}", args.join(" ")),
        Err(error) => {
            let text = error.chain();
            // The command itself is part of the text of the error.
            let said = text.split_once('\n').map_or("", |(_, said)| said).to_lowercase();
            for word in words {
                assert!(
                    said.contains(&word.to_lowercase()),
                    "`dinp {}` does not speak of {word}:\n{said}",
                    args.join(" ")
                );
            }
        }
    }
}

#[tokio::test]
async fn names_counts_and_memory_out_of_their_rules_are_refused() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("input").instances(1).deploy().await?;
    let image = app.sample_image().await?;
    let name = app.name.as_str();

    refused(&cluster, &["app", "create", "Not_A_Label"], &["Not_A_Label"]).await;
    refused(&cluster, &["app", "create", name], &[name]).await;
    refused(&cluster, &["app", "scale", name, "100000"], &["instance count"]).await;
    refused(&cluster, &["app", "deploy", name, "--image", &image, "--memory", "1"], &["memory"]).await;
    refused(&cluster, &["app", "deploy", name, "--image", &image, "--memory", "99999"], &["memory"]).await;
    refused(&cluster, &["app", "show", "t-no-such-app"], &["t-no-such-app"]).await;

    app.settles_at(1, secs(10)).await?;
    app.answers("v1").await?;
    Ok(())
}

#[tokio::test]
async fn an_image_that_the_registry_does_not_have_is_refused() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("image").instances(1).deploy().await?;
    let image = app.sample_image().await?;
    let registry = image.split('/').next().unwrap_or_default();
    let missing = format!("{registry}/nobody/nothing:1");
    let release = app.release().await?;

    refused(&cluster, &["app", "deploy", &app.name, "--image", &missing], &["nobody/nothing"]).await;
    assert_eq!(app.release().await?, release);
    Ok(())
}

#[tokio::test]
async fn what_is_no_archive_or_leaves_it_or_has_no_runtime_is_refused() -> Scenario {
    let cluster = Cluster::shared().await?;
    let good = cluster.package("web-binary").await?.packed().await?;
    cluster.dinp(&["app", "create", "t-input"]).await?;
    let text = good.beside("notes.tar.gz", "these are notes and no archive")?;
    refused(&cluster, &["build", &text, "--app", "t-input", "--runtime", "binary"], &["archive"]).await;
    refused(&cluster, &["build", &good, "--app", "t-input", "--runtime", "cobol"], &["cobol"]).await;

    let leaves = good.beside("leaves.tar.gz", archive_that_leaves())?;
    refused(&cluster, &["build", &leaves, "--app", "t-input", "--runtime", "binary"], &["../"]).await;
    Ok(())
}

/// A tar with one file at `../../etc/passwd-of-us`.
fn archive_that_leaves() -> Vec<u8> {
    let mut header = [0_u8; 512];
    let mut field = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    field(0, "../../etc/passwd-of-us");
    field(100, "0000644\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, "00000000000\0");
    field(136, "00000000000\0");
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.resize(512 * 3, 0);
    archive
}

#[tokio::test]
async fn a_domain_that_another_app_holds_is_refused() -> Scenario {
    let cluster = Cluster::shared().await?;
    let one = cluster.app("domain1").instances(1).deploy().await?;
    let other = cluster.app("domain2").instances(1).deploy().await?;
    let domain = "shop.example.org";
    cluster.dinp(&["app", "domain", &one.name, "add", domain]).await?;
    eventually("the domain is served", secs(10), async || {
        let answer = cluster.router().get("/version", domain).await.map_err(|error| error.chain())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.status.to_string()) }
    })
    .await?;
    refused(&cluster, &["app", "domain", &other.name, "add", domain], &[domain]).await;
    Ok(())
}

#[tokio::test]
async fn an_unknown_key_names_its_file_and_the_nearest_key_and_stops_no_daemon() -> Scenario {
    let cluster = Cluster::shared().await?;
    let control = cluster.host("control");
    control.exec("mkdir -p /etc/dinp/server.toml.d").await?;
    control.write("/etc/dinp/server.toml.d/wrong.toml", "listenn = \"[::]:1980\"\n").await?;
    let check = control.exec("dinp-server check-config 2>&1; echo \"exit $?\"").await;
    let active = control.exec("systemctl is-active dinp-server").await;
    control.exec("rm /etc/dinp/server.toml.d/wrong.toml").await?;

    let text = match check {
        Ok(text) => text,
        Err(error) => error.chain(),
    };
    assert!(text.contains("wrong.toml") && text.contains("listenn") && text.contains("listen"), "{text}");
    assert_eq!(active?.trim(), "active");
    Ok(())
}

#[tokio::test]
async fn a_database_that_is_away_shows_in_the_status_and_is_no_crash_loop() -> Scenario {
    let cluster = Cluster::shared().await?;
    let control = cluster.host("control");
    control.exec("systemctl stop mariadb && systemctl restart dinp-server").await?;
    let seen = eventually("the unit says what it waits for", secs(20), async || {
        let text = control
            .exec("systemctl show dinp-server -p ActiveState,StatusText,NRestarts")
            .await
            .map_err(|error| error.chain())?;
        let lower = text.to_lowercase();
        let told = lower.contains("mysql") || lower.contains("database");
        if told && lower.contains("activestate=active") && lower.contains("nrestarts=0") { Ok(()) } else { Err(text) }
    })
    .await;
    control.exec("systemctl start mariadb").await?;
    seen?;
    cluster.cli().nodes_ready(&["node1", "node2"], secs(60)).await?;
    Ok(())
}
