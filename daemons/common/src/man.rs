//! Manual pages: what clap knows of a command line, so that a page and `--help` never differ, and what it cannot know.
//!
//! A daemon prints its page (`dinp-server man`), the command line writes all of its pages (`dinp man DIR`);
//! `scripts/build-packages` puts them into the packages.

use std::io::{self, Write};

use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// The daemons that a page refers to.
const DAEMONS: [&str; 7] = ["agent", "builder", "dash", "hm", "router", "server", "uic"];

/// What the page of a daemon says that no option does.
#[derive(Clone, Copy, Debug)]
pub struct Manual {
    /// What it is, in a line.
    pub about: &'static str,
    /// What it does, and what becomes of apps while it is stopped.
    pub description: &'static str,
    /// Its unit file: the page names the credentials that systemd hands over.
    pub unit: &'static str,
}

/// The page of the daemon `name` (`server`), as roff.
pub fn daemon(name: &str, command: &Command, manual: &Manual) -> io::Result<String> {
    let mut root = command.clone().disable_help_subcommand(true);
    root.build();
    let mut page = Page::begin(root.clone(), "8")?;
    page.add(Man::render_options_section)?;
    page.section("COMMANDS", |roff| commands(roff, &root));
    page.section("FILES", |roff| files(roff, name, manual.unit));
    page.section("SIGNALS", signals);
    page.section("ENVIRONMENT", environment);
    page.section("EXIT STATUS", exit_status);
    page.section("SEE ALSO", |roff| {
        let others = DAEMONS.iter().filter(|other| **other != name).map(|other| format!("dinp-{other}(8)"));
        references(roff, ["dinp(1)".to_owned()].into_iter().chain(others).chain(["systemctl(1)".to_owned()]));
        paragraph(roff, "/usr/share/doc/dinp-common/README.md: what the packages bring, keep and take away.");
    });
    Ok(page.finish())
}

/// The pages of a command and of all its subcommands that help shows: file name (`dinp-app-ls.1`) and roff.
pub fn commands_of(command: Command) -> io::Result<Vec<(String, String)>> {
    let mut root = command.disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    add_pages(&mut pages, &root, &mut Vec::new())?;
    Ok(pages)
}

fn add_pages(pages: &mut Vec<(String, String)>, command: &Command, above: &mut Vec<String>) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    pages.push((format!("{name}.1"), command_page(command, above)?));
    above.push(format!("{name}(1)"));
    for sub in shown(command) {
        add_pages(pages, sub, above)?;
    }
    above.pop();
    Ok(())
}

fn command_page(command: &Command, above: &[String]) -> io::Result<String> {
    let mut page = Page::begin(command.clone(), "1")?;
    let after = command.get_after_long_help().or_else(|| command.get_after_help());
    let after = after.map(ToString::to_string).unwrap_or_default();
    let blocks = after.split("\n\n").filter(|block| !block.is_empty());
    let (lists, remarks): (Vec<_>, Vec<_>) = blocks.partition(|block| is_list(block));
    for remark in remarks {
        page.roff(|roff| paragraph(roff, remark));
    }
    page.add(Man::render_options_section)?;
    if shown(command).next().is_some() {
        page.add(Man::render_subcommands_section)?;
    }
    for list in lists {
        let (title, lines) = list.split_once(":\n").unwrap_or((list, ""));
        page.section(heading(title).as_str(), |roff| verbatim(roff, lines));
    }
    page.section("SEE ALSO", |roff| match above.first() {
        Some(root) => {
            references(roff, above.iter().cloned());
            paragraph(roff, &format!("Environment variables and exit codes are those of {root}."));
        }
        None => references(roff, DAEMONS.iter().map(|daemon| format!("dinp-{daemon}(8)"))),
    });
    Ok(page.finish())
}

/// Whether a block of the text after the options is a title and lines of which each stands for itself.
fn is_list(block: &str) -> bool {
    block.split_once(":\n").is_some_and(|(title, lines)| !title.contains('\n') && lines.starts_with(' '))
}

/// The title of such a block as manual pages have it.
fn heading(title: &str) -> String {
    match title {
        "Exit codes" => "EXIT STATUS".to_owned(),
        other => other.to_uppercase(),
    }
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set())
}

/// A page in the making: the parts that clap_mangen makes, and ours between them.
struct Page {
    man: Man,
    text: String,
}

impl Page {
    /// With all that comes before the options.
    fn begin(command: Command, section: &str) -> io::Result<Self> {
        let command = command.subcommand_value_name("command").subcommand_help_heading("COMMANDS");
        let source = concat!("dinp ", env!("CARGO_PKG_VERSION"));
        // No date, so that the same program has the same page; in quotes, for otherwise the next word would be taken.
        let man = Man::new(command).section(section).date("\"\"").source(source).manual("DINP manual");
        let mut page = Self { man, text: preamble() };
        page.add(Man::render_title)?;
        page.add(Man::render_name_section)?;
        page.add(Man::render_synopsis_section)?;
        page.add(Man::render_description_section)?;
        Ok(page)
    }

    /// A part as clap_mangen makes it: without the preamble, which each of them begins with.
    fn add(&mut self, render: impl FnOnce(&Man, &mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut part = Vec::new();
        render(&self.man, &mut part)?;
        let part = String::from_utf8(part).map_err(io::Error::other)?;
        self.text.push_str(part.strip_prefix(&preamble()).unwrap_or(&part));
        Ok(())
    }

    /// A section of our own.
    fn section(&mut self, title: &str, fill: impl FnOnce(&mut Roff)) {
        self.roff(|roff| {
            roff.control("SH", [title]);
            fill(roff);
        });
    }

    fn roff(&mut self, fill: impl FnOnce(&mut Roff)) {
        let mut roff = Roff::new();
        fill(&mut roff);
        let part = roff.render();
        self.text.push_str(part.strip_prefix(&preamble()).unwrap_or(&part));
    }

    fn finish(self) -> String {
        // To roff these three are typographic signs; people are to copy what they see.
        self.text.replace('`', r"\(ga").replace('~', r"\(ti").replace('^', r"\(ha")
    }
}

/// What roff begins each document with: how an apostrophe is made.
fn preamble() -> String {
    Roff::new().render()
}

fn paragraph(roff: &mut Roff, text: &str) {
    roff.control("PP", []);
    roff.text([roman(text)]);
}

/// Text that stands as it is, such as lines to type; their common indentation becomes the page's.
fn verbatim(roff: &mut Roff, lines: &str) {
    roff.control("nf", []);
    for line in lines.lines() {
        roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    roff.control("fi", []);
}

fn entry(roff: &mut Roff, term: impl Into<Vec<Inline>>, text: &str) {
    roff.control("TP", []);
    roff.text(term);
    roff.text([roman(text)]);
}

fn references(roff: &mut Roff, pages: impl Iterator<Item = String>) {
    roff.text([roman(pages.collect::<Vec<_>>().join(", "))]);
}

/// The subcommands of a daemon, with what each takes: they have no pages of their own.
fn commands(roff: &mut Roff, command: &Command) {
    entry(roff, [roman("(none)")], "Run the daemon.");
    leaves(roff, command, "");
}

fn leaves(roff: &mut Roff, command: &Command, above: &str) {
    for sub in shown(command) {
        let name = format!("{above}{}", sub.get_name());
        if sub.has_subcommands() {
            leaves(roff, sub, &format!("{name} "));
            continue;
        }
        let about = sub.get_long_about().or_else(|| sub.get_about());
        entry(roff, [bold(name)], &about.map(ToString::to_string).unwrap_or_default());
        for argument in sub.get_arguments().filter(|argument| is_own(argument)) {
            let help = argument.get_long_help().or_else(|| argument.get_help());
            roff.control("RS", []);
            entry(roff, [bold(argument.to_string())], &help.map(ToString::to_string).unwrap_or_default());
            roff.control("RE", []);
        }
    }
}

/// Neither for all commands nor made by clap.
fn is_own(argument: &Arg) -> bool {
    !argument.is_hide_set() && !argument.is_global_set() && !["help", "version"].contains(&argument.get_id().as_str())
}

fn files(roff: &mut Roff, name: &str, unit: &str) {
    let both = |file: &str| [italic(format!("/etc/dinp/{file}.toml")), roman(", "), italic(drop_ins(file))];
    entry(roff, both("dinp"), "What all daemons of a cluster share.");
    entry(
        roff,
        both(name),
        "Settings of this daemon, and those of dinp.toml that differ for it. Each key stands in the file at its \
         default. Later files win, drop-ins last; packaged files are not edited.",
    );
    for id in settings(unit, "LoadCredential").filter_map(|credential| credential.split(':').next()) {
        entry(roff, [italic(format!("/etc/dinp/credentials/{id}"))], credential(id));
    }
    paragraph(
        roff,
        "Credentials belong to root. systemd hands them over when the daemon starts, and skips a start without them; \
         after a change restart the daemon.",
    );
    for state in settings(unit, "StateDirectory") {
        let text = "Its state directory, which apt purge removes.";
        entry(roff, [italic(format!("/var/lib/{state}"))], text);
    }
    let text = format!("The unit; what differs goes into `systemctl edit dinp-{name}`.");
    entry(roff, [italic(format!("/usr/lib/systemd/system/dinp-{name}.service"))], &text);
    for socket in settings(unit, "Wants").filter(|wanted| wanted.ends_with(".socket")) {
        let text = "Its address, which systemd listens on and hands over.";
        entry(roff, [italic(format!("/usr/lib/systemd/system/{socket}"))], text);
    }
}

fn drop_ins(file: &str) -> String {
    format!("/etc/dinp/{file}.toml.d/*.toml")
}

/// What a credential is for, by its id.
fn credential(id: &str) -> &'static str {
    match id.split('-').next() {
        Some("mysql") => "Password of its account in MySQL.",
        Some("redis") => "Password of its account in Redis.",
        Some("registry") => "Account in the registry, as user:password.",
        Some("service") => "By what the other daemons know it.",
        Some("env") => "Key to the apps' environment: without it the values in the database cannot be read.",
        Some("ticket") => {
            "Keys of instances' tickets, which all servers share: the newest first, `<key id>:<64 digits>` a line."
        }
        Some("node") => "The node's bundle, as `dinp node add` or `dinp setup node-bundle` printed it.",
        _ => "A secret.",
    }
}

/// All values of a directive of a unit.
fn settings<'a>(unit: &'a str, directive: &'a str) -> impl Iterator<Item = &'a str> {
    unit.lines().filter_map(move |line| line.strip_prefix(directive)?.strip_prefix('='))
}

fn signals(roff: &mut Roff) {
    entry(
        roff,
        [bold("SIGTERM"), roman(", "), bold("SIGINT")],
        "Finish what is under way, up to a deadline, and exit.",
    );
    entry(roff, [bold("SIGINT"), roman(" again")], "Exit at once, with status 1.");
    entry(
        roff,
        [bold("SIGHUP")],
        "No setting can be changed without a restart so far: the daemon goes on as it is, and its log and \
         `systemctl status` say so.",
    );
}

fn environment(roff: &mut Roff) {
    let level = "Level of log lines (error, warn, info, debug, trace) or a filter such as info,dinp_server=debug, \
                 instead of `level` in the section [log] of the configuration.";
    entry(roff, [bold(crate::logging::LEVEL_VARIABLE)], level);
    entry(roff, [bold("DINP_CONFIG_DIR")], "As --config-dir.");
    entry(roff, [bold("CREDENTIALS_DIRECTORY")], "Where credentials are read; set by systemd.");
}

fn exit_status(roff: &mut Roff) {
    use crate::daemon::{EXIT_CONFIG, EXIT_FAILURE, EXIT_USAGE};
    let mut code = |code: u8, text| entry(roff, [bold(code.to_string())], text);
    code(0, "It has stopped in order, or done what was asked for.");
    code(EXIT_FAILURE, "It failed in a way that has no code of its own; the last log line says how.");
    code(EXIT_USAGE, "The command line is wrong.");
    code(EXIT_CONFIG, "The configuration or a credential cannot be used.");
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::NoConfig;
    use crate::daemon::Daemon;

    /// Of a daemon that is none.
    pub(crate) const MANUAL: Manual = Manual {
        about: "Users, teams and sign-on",
        description: "Signs people in.\n\nWhile it is stopped nobody can; `apps' go on.",
        unit: "[Unit]\nWants=dinp-uic.socket\n[Service]\nStateDirectory=dinp/uic\n\
               LoadCredential=mysql-uic:/etc/dinp/credentials/mysql-uic\n",
    };

    fn daemon_page() -> String {
        let file = Arg::new("file").long("password-file").value_name("FILE").help("Where the password is");
        let create = Command::new("create-admin").about("Create an administrator").arg(file);
        let daemon = Daemon::<NoConfig>::new("uic", MANUAL)
            .subcommand(create, |_, _| async { Ok::<(), io::Error>(()) })
            .subcommand(Command::new("secret").hide(true), |_, _| async { Ok::<(), io::Error>(()) });
        daemon.page().unwrap()
    }

    #[test]
    fn a_daemons_page_has_its_sections() {
        let page = daemon_page();
        let sections: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
        let wanted =
            "NAME SYNOPSIS DESCRIPTION OPTIONS COMMANDS FILES SIGNALS ENVIRONMENT \"EXIT STATUS\" \"SEE ALSO\"";
        assert_eq!(sections.join(" "), wanted);
        assert!(page.contains(".TH dinp-uic 8 "));
        assert!(page.contains(r"dinp\-uic \- Users, teams and sign\-on"));
    }

    #[test]
    fn a_daemons_page_names_commands_and_options() {
        let page = daemon_page();
        for text in
            [r"\-\-config\-dir", r"check\-config", "config show", r"create\-admin", r"\-\-password\-file <FILE>"]
        {
            assert!(page.contains(text), "{text} is missing in:\n{page}");
        }
        for text in ["secret", r"dinp\-uic\-", r"\fBman\fR", r"\fBhelp\fR"] {
            assert!(!page.contains(text), "{text} is in:\n{page}");
        }
    }

    #[test]
    fn a_daemons_page_names_what_the_unit_says() {
        let page = daemon_page();
        for text in [r"credentials/mysql\-uic", "/var/lib/dinp/uic", r"dinp\-uic.socket", "/etc/dinp/uic.toml.d/*.toml"]
        {
            assert!(page.contains(text), "{text} is missing in:\n{page}");
        }
        assert!(page.contains(r"\(gaapps\*(Aq go on."), "signs are copied as they are:\n{page}");
    }

    #[test]
    fn every_credential_of_the_units_is_explained() {
        for daemon in DAEMONS {
            let path = format!("{}/../../systemd/dinp-{daemon}.service", env!("CARGO_MANIFEST_DIR"));
            let unit = std::fs::read_to_string(path).unwrap();
            assert_eq!(settings(&unit, "StateDirectory").collect::<Vec<_>>(), [format!("dinp/{daemon}")]);
            let ids: Vec<&str> =
                settings(&unit, "LoadCredential").filter_map(|credential| credential.split(':').next()).collect();
            assert!(!ids.is_empty(), "{daemon} has no credential");
            for id in ids {
                assert_ne!(credential(id), credential("unheard-of"), "{id} of dinp-{daemon}.service");
                assert!(unit.contains(&format!("ConditionPathExists=/etc/dinp/credentials/{id}\n")), "{id}");
            }
        }
    }

    #[test]
    fn pages_of_commands() {
        let list = Command::new("ls").about("The apps").arg(Arg::new("all").long("all").help("All of them"));
        let after = "Examples:\n  prog ls     all\n    more\n\nA remark: with\na colon.";
        let root = Command::new("prog").about("A program").after_help(after).subcommand(list);
        let pages = commands_of(root.subcommand(Command::new("man").hide(true))).unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["prog.1", "prog-ls.1"]);
        let (root, list) = (&pages[0].1, &pages[1].1);
        assert!(root.contains(".SH EXAMPLES\n.nf\nprog ls     all\n  more\n.fi\n"), "{root}");
        assert!(root.contains("A program\n.PP\nA remark: with\na colon.\n.SH OPTIONS"), "{root}");
        assert!(root.contains(r"prog\-ls(1)"), "{root}");
        assert!(list.contains(r"\-\-all") && list.contains(".SH \"SEE ALSO\"\nprog(1)\n"), "{list}");
    }
}
