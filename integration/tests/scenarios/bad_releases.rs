//! A bad release never takes a good one down, by the plain command of the README.

use std::time::Instant;

use dinp_integration::testbed::{App, Cluster, Error, Result, Scenario, secs};
use futures_util::future::try_join_all;

/// It listens, and ends three seconds later.
const ENDS_AFTER_LISTENING: &str = "\
import os, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'broken\\n')
def end():
    time.sleep(3)
    print('the queue is not there', flush=True)
    os._exit(3)
threading.Thread(target=end, daemon=True).start()
ThreadingHTTPServer(('', int(os.environ['PORT'])), Page).serve_forever()
";

/// It answers, but not well.
const ANSWERS_500: &str = "\
def app(environ, start_response):
    if environ['PATH_INFO'] == '/health':
        start_response('500 Internal Server Error', [('Content-Type', 'text/plain')])
        return [b'no connection to the database\\n']
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'broken\\n']
";

/// A release with a fault, and what the verdict on it must say.
struct Fault {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
    options: &'static [&'static str],
    says: &'static [&'static str],
}

const FAULTS: [Fault; 3] = [
    Fault {
        name: "import",
        files: &[("app.py", "import no_such_module\n")],
        options: &[],
        says: &["failed 3 times", "No module named 'no_such_module'"],
    },
    Fault {
        name: "later",
        files: &[("server.py", ENDS_AFTER_LISTENING), ("Procfile", "web: python3 server.py\n")],
        options: &[],
        says: &["failed 3 times", "the queue is not there"],
    },
    Fault {
        name: "health",
        files: &[("app.py", ANSWERS_500)],
        options: &["--health", "/health"],
        says: &["GET /health answered 500", "no connection to the database"],
    },
];

/// Deploys the faulty release over the healthy app, and returns what the command said at its end.
async fn verdict(cluster: &Cluster, app: &App<'_>, fault: &Fault) -> Result<String> {
    let mut package = cluster.package("hello-python").await?;
    for (name, content) in fault.files {
        package = package.with_file(name, content)?;
    }
    let package = package.packed().await?;
    let mut args = vec!["deploy", &*package, "--app", &app.name, "--runtime", "python"];
    args.extend(fault.options);
    match cluster.dinp(&args).await {
        Err(Error::Command { status, output, .. }) if status.contains('4') => Ok(output),
        outcome => Err(Error::other(format!("{}: exit code 4 was expected: {outcome:?}", fault.name))),
    }
}

/// A good release of an app of its own, and this one over it.
async fn takes_nothing_down(cluster: &Cluster, count: u32, fault: &Fault) -> Result<()> {
    let app = cluster.app(&format!("{}{count}", fault.name)).instances(count).deploy().await?;
    let before = app.settles_at(count as usize, secs(60)).await?;
    let (release, started) = (app.release().await?, app.started().await?);

    let load = app.steady().rate(100).start();
    let began = Instant::now();
    let said = verdict(cluster, &app, fault).await?;
    let took = began.elapsed();
    let report = load.stop().await?;
    println!("{} over {count}: verdict after {:.1} s, {} requests", fault.name, took.as_secs_f32(), report.requests);
    report.none_failed()?;
    assert_eq!(report.answers().keys().copied().collect::<Vec<_>>(), ["v1"], "{:?}", report.answers());
    assert!(took < secs(30), "{}: {took:?}", fault.name);
    for words in fault.says {
        assert!(said.contains(words), "{}: nothing of {words:?} in\n{said}", fault.name);
    }

    assert_eq!(app.release().await?, release, "the old release is in force");
    let after = app.settles_at(count as usize, secs(60)).await?;
    let ids = |all: &[dinp_integration::testbed::Instance]| all.iter().map(|one| one.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&after), ids(&before));
    assert_eq!(app.started().await?, started, "and nothing of it was started again");
    app.remove().await
}

/// A first release that is bad.
async fn leaves_nothing(cluster: &Cluster, fault: &Fault) -> Result<()> {
    let app = cluster.app(&format!("first-{}", fault.name));
    let said = verdict(cluster, &app, fault).await?;
    for words in fault.says {
        assert!(said.contains(words), "{}: nothing of {words:?} in\n{said}", fault.name);
    }
    assert!(!said.contains("what ran before runs"), "nothing ran before:\n{said}");
    app.settles_at(0, secs(60)).await?;
    // What it wrote can still be read.
    let logs = cluster.dinp(&["logs", &app.name]).await?;
    assert!(!logs.is_empty());
    app.remove().await
}

/// The apps know nothing of each other, so all faults come at the same time.
#[tokio::test]
async fn a_bad_release_over_one_good_instance_costs_no_request() -> Scenario {
    let cluster = Cluster::shared().await?;
    try_join_all(FAULTS.iter().map(|fault| takes_nothing_down(&cluster, 1, fault))).await?;
    Ok(())
}

#[tokio::test]
async fn a_bad_release_over_three_good_instances_costs_no_request() -> Scenario {
    let cluster = Cluster::shared().await?;
    try_join_all(FAULTS.iter().map(|fault| takes_nothing_down(&cluster, 3, fault))).await?;
    Ok(())
}

#[tokio::test]
async fn a_first_release_that_is_bad_leaves_nothing_and_says_why() -> Scenario {
    let cluster = Cluster::shared().await?;
    try_join_all(FAULTS.iter().map(|fault| leaves_nothing(&cluster, fault))).await?;
    Ok(())
}
