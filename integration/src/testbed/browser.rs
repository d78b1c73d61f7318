//! A person's browser: Debian's Chromium without a window, driven over WebDriver.
//!
//! Its words are a person's: the label of a field, the text of a link or button, what the page shows. Each waits for
//! what it names; what does not come in time is told together with the page that is there instead.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::error::CmdError;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::error::{Error, Result};
use super::eventually::eventually;
use super::state::at;

/// How long a page may take to show what a person waits for.
const SOON: Duration = Duration::from_secs(20);

/// How long the programs may take to start on a machine that has much else to do.
const START: Duration = Duration::from_secs(60);

/// How long they may take to end.
const END: Duration = Duration::from_secs(5);

/// Chromium as root, without a window, and without asking its maker for anything.
const ARGUMENTS: [&str; 8] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// Run by every page before its own scripts: notes in the tab how long a log that is followed was after each change.
const NOTE_GROWTH: &str = r#"
    addEventListener("DOMContentLoaded", () => {
        const log = document.querySelector("[data-log-reload]");
        if (!log) return;
        const note = () => {
            const noted = JSON.parse(sessionStorage.growth ?? "[]");
            sessionStorage.growth = JSON.stringify([...noted, log.textContent.length]);
        };
        new MutationObserver(note).observe(log, { childList: true });
    });"#;

/// What is wider than the window, as a person would find it in the page's source.
const WIDER: &str = "
    const page = document.documentElement;
    if (page.scrollWidth <= page.clientWidth) return [];
    const wide = [...document.querySelectorAll('body *')]
        .filter((part) => part.getBoundingClientRect().right > page.clientWidth + 0.5)
        .map((part) => `<${part.tagName.toLowerCase()} class='${part.className}'> ${part.textContent.trim().slice(0, 40)}`);
    return [`${page.scrollWidth} of ${page.clientWidth} px`, ...wide.slice(0, 8)];";

/// Whether pages may run scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scripts {
    /// As browsers come.
    On,
    /// Switched off by whoever set the browser up.
    Off,
}

/// How a person looks at a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Width of the page's window in pixels of CSS.
    pub width: u32,
    /// Whether dark pages are preferred.
    pub dark: bool,
}

/// A browser with a profile of its own. It ends with its processes when it is dropped.
#[derive(Debug)]
pub struct Browser {
    client: Client,
    // Held for its end, which comes after the client's.
    _processes: Processes,
}

/// chromedriver and what it starts, which keep their files in a home of their own and can be told by it.
#[derive(Debug)]
struct Processes {
    // Held so that it is waited for when it has ended.
    _driver: Child,
    home: PathBuf,
}

/// A command of chromedriver that WebDriver does not have.
#[derive(Debug)]
struct Special {
    path: &'static str,
    body: Value,
}

impl Browser {
    /// Starts a browser; nothing is open in it.
    pub async fn start(scripts: Scripts) -> Result<Self> {
        let (processes, port) = Processes::start().await?;
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities(scripts, &processes.home));
        let client = builder
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .map_err(|error| Error::other(format!("Chromium does not start: {error}")))?;
        let browser = Self { client, _processes: processes };
        browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": NOTE_GROWTH })).await?;
        Ok(browser)
    }

    /// Opens an address, as typed.
    pub async fn opens(&self, address: &str) -> Result<()> {
        self.told(&format!("{address} opens"), self.client.goto(address).await).await
    }

    /// Goes back to the page before.
    pub async fn goes_back(&self) -> Result<()> {
        self.told("the page before opens", self.client.back().await).await
    }

    /// Waits until the page shows a text, however it is wrapped.
    pub async fn sees(&self, text: &str) -> Result<()> {
        self.sees_within(text, SOON).await
    }

    /// The same, with another patience.
    pub async fn sees_within(&self, text: &str, within: Duration) -> Result<()> {
        self.until(&format!("the page shows {text:?}"), within, async || Ok(self.text().await?.contains(text))).await
    }

    /// Loads the page again until it shows a text.
    pub async fn reloads_until(&self, text: &str, within: Duration) -> Result<()> {
        self.until(&format!("the page shows {text:?} after reloading"), within, async || {
            self.client.refresh().await?;
            Ok(self.text().await?.contains(text))
        })
        .await
    }

    /// Waits until a text is gone from the page.
    pub async fn sees_no(&self, text: &str) -> Result<()> {
        self.until(&format!("the page does not show {text:?}"), SOON, async || Ok(!self.text().await?.contains(text)))
            .await
    }

    /// Waits until the row of a table that links to this name shows a text.
    pub async fn sees_in_row(&self, name: &str, text: &str) -> Result<()> {
        let row = format!("//tr[.//a[normalize-space()=\"{name}\"]]");
        self.until(&format!("the row of {name} shows {text:?}"), SOON, async || {
            Ok(self.client.find(Locator::XPath(&row)).await?.text().await?.contains(text))
        })
        .await
    }

    /// Waits until the field with this label holds a text.
    pub async fn sees_in_field(&self, label: &str, text: &str) -> Result<()> {
        self.until(&format!("the field {label:?} holds {text:?}"), SOON, async || {
            Ok(self.field(label).await?.prop("value").await?.as_deref() == Some(text))
        })
        .await
    }

    /// Clicks a link or button with exactly this text.
    pub async fn clicks(&self, text: &str) -> Result<()> {
        let path = format!("(//a|//button)[normalize-space()=\"{text}\"]");
        self.until(&format!("{text:?} can be clicked"), SOON, async || {
            self.client.find(Locator::XPath(&path)).await?.click().await.map(|()| true)
        })
        .await
    }

    /// Types a text into the field with this label, instead of what is in it.
    pub async fn fills_in(&self, label: &str, text: &str) -> Result<()> {
        self.until(&format!("the field {label:?} can be filled in"), SOON, async || {
            let field = self.field(label).await?;
            field.clear().await?;
            field.send_keys(text).await.map(|()| true)
        })
        .await
    }

    /// Chooses from the list with this label.
    pub async fn chooses(&self, label: &str, option: &str) -> Result<()> {
        self.until(&format!("{option:?} can be chosen as {label:?}"), SOON, async || {
            self.field(label).await?.select_by_label(option).await.map(|()| true)
        })
        .await
    }

    /// Chooses a file of this machine for the field with this label.
    pub async fn attaches(&self, label: &str, file: &str) -> Result<()> {
        self.until(&format!("{file} can be chosen as {label:?}"), SOON, async || {
            self.field(label).await?.send_keys(file).await.map(|()| true)
        })
        .await
    }

    /// Shows pages in another width or colour scheme, the open one too.
    pub async fn looks(&self, look: Look) -> Result<()> {
        let scheme = if look.dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", media).await?;
        let narrow = look.width < 600;
        let size = json!({ "width": look.width, "height": 900, "deviceScaleFactor": 1, "mobile": narrow });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await
    }

    /// What of the open page cannot be seen without scrolling sideways.
    pub async fn wider_than_the_window(&self) -> Result<Vec<String>> {
        let found = self.told("the page's width is found out", self.client.execute(WIDER, Vec::new()).await).await?;
        read("widths", found)
    }

    /// Colour of the open page's ground.
    pub async fn ground(&self) -> Result<String> {
        let script = "return getComputedStyle(document.body).backgroundColor";
        let found = self.told("the page's colour is found out", self.client.execute(script, Vec::new()).await).await?;
        read("a colour", found)
    }

    /// How long the logs of builds were each time that one grew, on all pages of one site so far.
    pub async fn growth_of_logs(&self) -> Result<Vec<usize>> {
        let script = "return JSON.parse(sessionStorage.growth ?? '[]')";
        let found = self.told("what grew is found out", self.client.execute(script, Vec::new()).await).await?;
        read("lengths", found)
    }

    /// The errors on the console since they were last asked for: of scripts, of what did not load, of what the page's
    /// own policy forbids.
    pub async fn errors(&self) -> Result<Vec<String>> {
        let command = Special { path: "se/log", body: json!({ "type": "browser" }) };
        let found = self.told("the console is read", self.client.issue_cmd(command).await).await?;
        let entries: Vec<Value> = read("the console", found)?;
        let errors = entries.iter().filter(|entry| entry["level"] == "SEVERE");
        Ok(errors.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// All that a person reads on the page, with single spaces between words.
    async fn text(&self) -> Result<String, CmdError> {
        let text = self.client.find(Locator::Css("body")).await?.text().await?;
        Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    async fn field(&self, label: &str) -> Result<Element, CmdError> {
        let path =
            format!("//*[@id=//label[starts-with(normalize-space(),\"{label}\")]/@for] | //*[@aria-label=\"{label}\"]");
        self.client.find(Locator::XPath(&path)).await
    }

    /// Tries until it is true. What a page takes away while it is looked at is looked for again.
    async fn until(
        &self,
        what: &str,
        within: Duration,
        mut look: impl AsyncFnMut() -> Result<bool, CmdError>,
    ) -> Result<()> {
        eventually(what, within, async || match look().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.page().await),
            Err(error) => Err(format!("{error}\n{}", self.page().await)),
        })
        .await
    }

    /// An outcome that tells of the page if it is none.
    async fn told<T>(&self, what: &str, outcome: Result<T, CmdError>) -> Result<T> {
        match outcome {
            Ok(value) => Ok(value),
            Err(error) => Err(Error::other(format!("not so: {what}: {error}\n{}", self.page().await))),
        }
    }

    /// Address, title and text of the open page.
    async fn page(&self) -> String {
        let page = async {
            let address = self.client.current_url().await?;
            let title = self.client.title().await?;
            let text = self.client.find(Locator::Css("body")).await?.text().await?;
            Ok::<_, CmdError>(format!("----- {address} ({title}) -----\n{text}\n-----"))
        };
        page.await.unwrap_or_else(|error| format!("(no page: {error})"))
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Result<()> {
        let body = json!({ "cmd": command, "params": parameters });
        let outcome = self.client.issue_cmd(Special { path: "goog/cdp/execute", body }).await;
        self.told(command, outcome).await.map(drop)
    }
}

/// What a browser is asked to be.
fn capabilities(scripts: Scripts, home: &Path) -> Capabilities {
    let profile = format!("--user-data-dir={}", home.join("profile").display());
    let arguments: Vec<&str> = ARGUMENTS.into_iter().chain([profile.as_str()]).collect();
    // Settings of content are 1 (allow) and 2 (block).
    let javascript = match scripts {
        Scripts::On => 1,
        Scripts::Off => 2,
    };
    let options = json!({
        "args": arguments,
        "prefs": { "profile.managed_default_content_settings.javascript": javascript },
    });
    Capabilities::from_iter([
        ("browserName".to_owned(), json!("chrome")),
        ("goog:chromeOptions".to_owned(), options),
        ("goog:loggingPrefs".to_owned(), json!({ "browser": "ALL" })),
    ])
}

fn read<T: serde::de::DeserializeOwned>(what: &str, found: Value) -> Result<T> {
    let text = found.to_string();
    serde_json::from_value(found).map_err(|source| Error::Json { what: what.to_owned(), text, source })
}

impl WebDriverCompatibleCommand for Special {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

impl Processes {
    /// Starts chromedriver, which takes a free port; it starts the browser when it is asked to.
    async fn start() -> Result<(Self, u16)> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let home = std::env::temp_dir().join(format!("dinp-browser-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&home).map_err(at("make", &home))?;
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", &home)
            .env("TMPDIR", &home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::Spawn { program: "chromedriver".to_owned(), source })?;
        let output = driver.stdout.take();
        let processes = Self { _driver: driver, home };
        let output = output.ok_or_else(|| Error::other("chromedriver has no output"))?;
        let port = tokio::time::timeout(START, port_in(BufReader::new(output))).await.ok().flatten();
        Ok((processes, port.ok_or_else(|| Error::other("chromedriver does not say which port it took"))?))
    }
}

/// The port that chromedriver says it listens on.
async fn port_in(output: impl tokio::io::AsyncBufRead + Unpin) -> Option<u16> {
    let mut lines = output.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            return port.trim_end_matches('.').parse().ok();
        }
    }
    None
}

impl Drop for Processes {
    fn drop(&mut self) {
        // The scenario's own runtime may be going down: a thread of its own waits.
        match std::thread::scope(|scope| scope.spawn(|| end(&self.home)).join()) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("the browser leaves something behind: {}", error.chain()),
            Err(_) => eprintln!("the browser could not be ended"),
        }
    }
}

/// Ends all that lives in a home, each by its id, and removes the home. A browser outlives a driver that is killed, and
/// its helpers write there until they notice that it is gone.
fn end(home: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Spawn { program: "a runtime".to_owned(), source })?;
    runtime.block_on(eventually("the browser's processes have ended", END, async || {
        let left = living_in(home);
        for process in &left {
            // It may have ended in the meantime.
            kill(*process, Signal::SIGKILL).ok();
        }
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    }))?;
    std::fs::remove_dir_all(home).map_err(at("remove", home))
}

/// The processes that have this as their home.
fn living_in(home: &Path) -> Vec<Pid> {
    let home = format!("HOME={}", home.display());
    let lives_there = |process: &Path| {
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|setting| setting == home.as_bytes())
    };
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let id = entry.file_name().to_str()?.parse().ok()?;
            lives_there(&entry.path()).then(|| Pid::from_raw(id))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_another_home_is_left_alone() {
        let home = std::env::temp_dir().join(format!("dinp-browser-test-{}", std::process::id()));
        let mut child =
            Command::new("sleep").arg("60").env("HOME", &home).kill_on_drop(true).spawn().expect("sleep starts");
        let id = Pid::from_raw(child.id().expect("it runs").cast_signed());
        // A program that has just been started shows its environment a moment later.
        let found = eventually("it lives there, alone", END, async || {
            let found = living_in(&home);
            if found == [id] { Ok(()) } else { Err(format!("{found:?}")) }
        });
        found.await.expect("it is found");
        child.kill().await.expect("it is our child");
        assert_eq!(living_in(&home), []);
    }

    #[tokio::test]
    async fn the_port_is_the_one_that_was_taken_and_not_the_one_asked_for() {
        let said = "Starting ChromeDriver 156.0 on port 0\nOnly local connections are allowed.\n\
                    ChromeDriver was started successfully on port 33023.\n";
        assert_eq!(port_in(said.as_bytes()).await, Some(33023));
        assert_eq!(port_in("Starting ChromeDriver 156.0 on port 0\n".as_bytes()).await, None);
    }
}
