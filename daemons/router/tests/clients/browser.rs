//! Chromium, as Debian has it.

use crate::{KEPT, Program, Said, Scene, finished};

#[tokio::test]
async fn browser() {
    let mut scene = Scene::new().await;
    let counted = scene.counted().await;
    scene.page(&format!("http://{}", counted.address), &["keep-alive"]).await;
    // It opens some before it knows whether it needs them, never more than six to one host.
    let connections = counted.connections();
    assert!(connections <= 6, "{connections} connections for {KEPT} requests");
    let cases = [
        "length",
        "trailers",
        "head",
        "no-content",
        "not-modified",
        "revalidated",
        "early-answer",
        "early-answer-gone",
        "hints",
        "events",
        "websocket",
    ];
    scene.page(&scene.url(), &cases).await;

    let program = chromium(&scene, &["--dump-dom", &scene.unknown()]);
    let Said { out, errors, .. } = finished(&program, &mut program.command()).await;
    assert!(out.contains("<title>404 Not Found</title>") && out.contains("no app answers to this"), "{out}{errors}");
    scene.router.stop().await;
}

impl Scene {
    /// What the page of the app at `url` says of these cases.
    async fn page(&mut self, url: &str, cases: &[&str]) {
        let program = chromium(self, &[&format!("{url}/page.html?cases={}", cases.join(","))]);
        let mut command = program.command();
        // The page says when it is done. Then the browser is ended.
        let verdict = tokio::select! {
            said = finished(&program, &mut command) => panic!("{} has ended: {}{}", program.name, said.out, said.errors),
            verdict = self.verdicts.recv() => verdict.unwrap(),
        };
        let expected: String = cases.iter().map(|case| format!("ok {case}\n")).collect();
        assert_eq!(verdict, expected);
    }
}

/// The browser without a window, with nothing left of another one, and without asking its maker for anything.
fn chromium(scene: &Scene, arguments: &[&str]) -> Program<'static> {
    let profile = profile(scene);
    let quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"];
    let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-proxy-server", &profile]
        .into_iter()
        .chain(quiet)
        .chain(arguments.iter().copied());
    Program {
        name: "chromium",
        package: "chromium",
        arguments: arguments.map(str::to_owned).collect(),
        environment: Vec::new(),
    }
}

/// A profile of its own: a browser that is just being ended holds the one that it had.
fn profile(scene: &Scene) -> String {
    let number = std::fs::read_dir(scene.dir.path()).unwrap().count();
    let path = scene.dir.path().join(format!("profile-{number}"));
    std::fs::create_dir(&path).unwrap();
    format!("--user-data-dir={}", path.display())
}
