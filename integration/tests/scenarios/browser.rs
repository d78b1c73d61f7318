//! The pages, in a browser of people: with scripts and without, wide and narrow, light and dark.

use std::time::Duration;

use dinp_integration::testbed::layout::ADMIN;
use dinp_integration::testbed::{App, Browser, Cluster, Error, Look, Result, Scenario, Scripts, secs};
use serde::Deserialize;

/// What a person puts up with before an app serves.
const DEPLOYED: Duration = secs(60);
/// The same before a package is an image.
const BUILT: Duration = secs(120);

/// Every way in which each page is looked at.
const LOOKS: [Look; 4] = [
    Look { width: 1280, dark: false },
    Look { width: 1280, dark: true },
    Look { width: 390, dark: true },
    Look { width: 390, dark: false },
];

#[tokio::test]
async fn a_newcomer_comes_from_the_printed_address_to_an_app_that_answers() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("newcomer");
    let browser = Browser::start(Scripts::On).await?;

    browser.opens(&cluster.dashboard()?).await?;
    sign_in(&browser, "a wrong guess").await?;
    browser.sees("The name or the password is wrong.").await?;
    browser.sees_in_field("Name", ADMIN).await?;
    browser.fills_in("Password", &cluster.admin_password()?).await?;
    browser.clicks("Sign in").await?;
    browser.sees_in_row("hello", "serving").await?;
    browser.sees_in_row("hello", "2 of 2").await?;

    create(&browser, &app, 2).await?;
    upload(&cluster, &browser, &app).await?;
    let lengths = browser.growth_of_logs().await?;
    assert!(!lengths.is_empty(), "the log of the build did not grow: {lengths:?}");

    browser.clicks("Deploy this build").await?;
    browser.sees_within("2 of 2 instances serve", DEPLOYED).await?;
    browser.sees("gets requests").await?;
    // The sign-in that was refused.
    assert_no_errors(&browser, &["the server responded with a status of 422"]).await?;

    browser.clicks(&address(&cluster, &app)?).await?;
    browser.sees("Hello from").await?;
    browser.goes_back().await?;
    // What an app lacks, such as an icon, is not the dashboard's fault.
    browser.errors().await?;

    browser.fills_in("Instances", "3").await?;
    browser.clicks("Set the number of instances").await?;
    browser.sees("The new number of instances has been saved.").await?;
    browser.sees_within("3 of 3 instances serve", DEPLOYED).await?;

    delete(&browser, &app).await?;
    browser.clicks("Sign out").await?;
    browser.sees("You are signed out").await?;
    browser.goes_back().await?;
    browser.sees("Password").await?;
    browser.opens(&cluster.dashboard()?).await?;
    browser.sees("Password").await?;
    assert_no_errors(&browser, &[]).await
}

#[tokio::test]
async fn an_upload_that_is_refused_keeps_its_file() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("refused");
    let browser = Browser::start(Scripts::On).await?;
    browser.opens(&cluster.dashboard()?).await?;
    sign_in(&browser, &cluster.admin_password()?).await?;
    create(&browser, &app, 1).await?;

    let package = cluster.package("tree-binary").await?.with_ballast("ballast", 3_000_000)?.packed().await?;
    browser.clicks("Upload a package").await?;
    browser.fills_in("Version", "-1").await?;
    browser.attaches("Package", &package).await?;
    browser.clicks("Upload and build").await?;
    browser.sees("it must be 1 to 64 letters, digits, dots").await?;
    // Without its file the form would not be sent.
    browser.fills_in("Version", "first").await?;
    browser.clicks("Upload and build").await?;
    browser.sees_within("succeeded", BUILT).await?;
    browser.sees("first").await?;
    assert_no_errors(&browser, &["the server responded with a status of 422"]).await
}

#[tokio::test]
async fn without_scripts_forms_and_reloads_do_the_same() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("plain");
    let browser = Browser::start(Scripts::Off).await?;

    browser.opens(&cluster.dashboard()?).await?;
    sign_in(&browser, &cluster.admin_password()?).await?;
    browser.sees_in_row("hello", "serving").await?;

    create(&browser, &app, 1).await?;
    upload(&cluster, &browser, &app).await?;
    assert!(browser.growth_of_logs().await?.is_empty(), "the page runs scripts");

    // Pages that show something under way load themselves again.
    browser.clicks("Deploy this build").await?;
    browser.sees_within("1 of 1 instances serve", DEPLOYED).await?;
    app.answers("v1").await?;

    browser.fills_in("Instances", "2").await?;
    browser.clicks("Set the number of instances").await?;
    browser.sees("The new number of instances has been saved.").await?;
    browser.reloads_until("2 of 2 instances serve", DEPLOYED).await?;

    delete(&browser, &app).await?;
    browser.clicks("Sign out").await?;
    browser.sees("You are signed out").await?;
    assert_no_errors(&browser, &[]).await
}

#[tokio::test]
async fn no_page_scrolls_sideways_or_logs_an_error_wide_or_narrow_light_or_dark() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("pages").instances(2).deploy().await?;
    app.roll_to("v2").await?;
    let name = app.name.as_str();
    cluster.dinp(&["app", "env", name, "set", "THE_ADDRESS_OF_THE_DATABASE_THAT_THE_SHOP_WRITES_TO=x"]).await?;
    let domain = "a-rather-long-name-of-a-shop.in-a-department.of-a-company.example.org";
    cluster.dinp(&["app", "domain", name, "add", domain]).await?;
    let dashboard = cluster.dashboard()?;
    let browser = Browser::start(Scripts::On).await?;

    browser.opens(&dashboard).await?;
    let mut found = looked_at(&browser, "the sign-in page").await?;
    sign_in(&browser, &cluster.admin_password()?).await?;
    browser.sees_in_row(name, "serving").await?;
    for page in pages(&cluster, &app).await? {
        browser.opens(&format!("{dashboard}{page}")).await?;
        browser.sees("Sign out").await?;
        found.extend(looked_at(&browser, &page).await?);
    }
    browser.clicks(ADMIN).await?;
    browser.sees("Change the password").await?;
    found.extend(looked_at(&browser, "the account").await?);
    browser.opens(&format!("{dashboard}/signed-out")).await?;
    found.extend(looked_at(&browser, "/signed-out").await?);
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

/// Types name and password into the sign-in page that one was led to.
async fn sign_in(browser: &Browser, password: &str) -> Result<()> {
    browser.fills_in("Name", ADMIN).await?;
    browser.fills_in("Password", password).await?;
    browser.clicks("Sign in").await
}

/// From the list of apps to an app that has nothing to run yet.
async fn create(browser: &Browser, app: &App<'_>, instances: u32) -> Result<()> {
    browser.clicks("New app").await?;
    browser.fills_in("Name", &app.name).await?;
    browser.fills_in("Instances", &instances.to_string()).await?;
    browser.clicks("Create the app").await?;
    browser.sees("The app has been created.").await
}

/// From there to the page of a build that has succeeded.
async fn upload(cluster: &Cluster, browser: &Browser, app: &App<'_>) -> Result<()> {
    // What no build has seen before takes its time, in which the log is seen to grow.
    let package = cluster.package("hello-python").await?.with_ballast("ballast", 3_000_000)?.packed().await?;
    browser.clicks("Upload a package").await?;
    browser.chooses("Runtime", "python").await?;
    browser.attaches("Package", &package).await?;
    browser.clicks("Upload and build").await?;
    browser.sees(&format!("App {}", app.name)).await?;
    browser.sees_within("succeeded", BUILT).await
}

/// From a page of the app to the list without it.
async fn delete(browser: &Browser, app: &App<'_>) -> Result<()> {
    browser.clicks("Delete").await?;
    browser.fills_in(&format!("Type {} to confirm", app.name), &app.name).await?;
    browser.clicks(&format!("Delete {} for good", app.name)).await?;
    browser.sees("The app has been deleted.").await?;
    browser.sees_no(&app.name).await
}

/// The app's link in the dashboard: it leads a browser of this machine to the app.
fn address(cluster: &Cluster, app: &App<'_>) -> Result<String> {
    Ok(format!("http://{}:{}/", app.domain(), cluster.published(80)?))
}

/// Every page of the dashboard that has an address of its own.
async fn pages(cluster: &Cluster, app: &App<'_>) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Build {
        id: u64,
    }
    let builds: Vec<Build> = cluster.cli().list(&["build", "ls", "--app", &app.name]).await?;
    let build = builds.first().ok_or_else(|| Error::other("the app was built and has no build"))?;
    let general = ["/apps", "/apps/new", "/builds", "/nodes", "/people"].map(str::to_owned);
    let tabs = ["", "/deploy", "/upload", "/history", "/env", "/domains", "/logs", "/events", "/delete"];
    let of_app = tabs.map(|tab| format!("/apps/{}{tab}", app.name));
    Ok(general.into_iter().chain(of_app).chain([format!("/builds/{}", build.id)]).collect())
}

/// What is wrong with the open page, in whichever way one looks at it.
async fn looked_at(browser: &Browser, page: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut grounds = Vec::new();
    for look in LOOKS {
        browser.looks(look).await?;
        grounds.push(browser.ground().await?);
        let wider = browser.wider_than_the_window().await?;
        if !wider.is_empty() {
            found.push(format!("{page} scrolls sideways at {} px:\n  {}", look.width, wider.join("\n  ")));
        }
    }
    if grounds[0] == grounds[1] {
        found.push(format!("{page} is no darker for who prefers dark pages: {}", grounds[0]));
    }
    found.extend(browser.errors().await?.into_iter().map(|error| format!("{page} logs on the console: {error}")));
    Ok(found)
}

/// No error was logged on the console but for those that hold one of these texts.
async fn assert_no_errors(browser: &Browser, but: &[&str]) -> Scenario {
    let mut errors = browser.errors().await?;
    errors.retain(|error| !but.iter().any(|text| error.contains(text)));
    assert!(errors.is_empty(), "on the browser's console:\n{}", errors.join("\n"));
    Ok(())
}
