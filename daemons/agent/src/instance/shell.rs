//! A shell waits for what it runs.
//!
//! A stop signals the whole process group. Of `sh -c "cd x && app"` the shell would end of it at once, and the
//! container with it, with the app killed in the middle of its work. A shell with a trap waits until the program that
//! runs has ended in its own time, begins no further one, and ends with its exit code.

use bollard::models::{ContainerCreateBody, ImageConfig};

/// Comes before the line. A trap that the line sets itself takes its place.
const TRAP: &str = "trap 'exit $?' TERM; ";

/// Shells whose trap runs once the program in the foreground has ended.
const SHELLS: [&str; 4] = ["ash", "bash", "dash", "sh"];

/// Puts the trap into the command of a container, if that is a line for a shell, whoever wrote it: the app's release
/// or its image.
pub fn let_wait(body: &mut ContainerCreateBody, image: &ImageConfig) {
    let cmd = body.cmd.take().or_else(|| image.cmd.clone());
    body.entrypoint = image.entrypoint.as_deref().and_then(trapped);
    body.cmd = if body.entrypoint.is_some() { cmd } else { cmd.map(|cmd| trapped(&cmd).unwrap_or(cmd)) };
}

/// `sh -c LINE ...` with the trap in its line; none if it is something else.
fn trapped(command: &[String]) -> Option<Vec<String>> {
    let [program, option, line, ..] = command else { return None };
    let name = program.rsplit('/').next().unwrap_or_default();
    // Also `-ec` and `-lc`; in `--rc` and the like a shell sees no line.
    let takes_line = option.starts_with('-') && !option.starts_with("--") && option.ends_with('c');
    if !SHELLS.contains(&name) || !takes_line {
        return None;
    }
    let mut trapped = command.to_vec();
    trapped[2] = format!("{TRAP}{line}");
    Some(trapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<Vec<String>> {
        Some(text.split('|').map(str::to_owned).collect())
    }

    /// Entrypoint and command of a container.
    fn made(ordered: Option<&str>, entrypoint: Option<&str>, cmd: Option<&str>) -> (Option<String>, Option<String>) {
        let mut body = ContainerCreateBody { cmd: ordered.and_then(words), ..ContainerCreateBody::default() };
        let image =
            ImageConfig { entrypoint: entrypoint.and_then(words), cmd: cmd.and_then(words), ..ImageConfig::default() };
        let_wait(&mut body, &image);
        let text = |words: Option<Vec<String>>| words.map(|words| words.join("|"));
        (text(body.entrypoint), text(body.cmd))
    }

    #[test]
    fn lines_of_a_shell_get_the_trap_wherever_they_stand() {
        let line = |shell: &str| Some(format!("{shell}|trap 'exit $?' TERM; cd x && app"));
        assert_eq!(made(Some("sh|-c|cd x && app"), None, Some("/other")), (None, line("sh|-c")));
        assert_eq!(made(None, None, Some("/bin/bash|-ec|cd x && app")), (None, line("/bin/bash|-ec")));
        assert_eq!(made(None, Some("/bin/sh|-c|cd x && app"), Some("a")), (line("/bin/sh|-c"), Some("a".into())));
        let (entrypoint, cmd) = made(None, Some("/entrypoint"), Some("sh|-c|cd x && app"));
        assert_eq!((entrypoint, cmd), (None, line("sh|-c")), "the image's own entrypoint stays");
    }

    #[test]
    fn what_is_no_line_of_a_shell_stays_as_it_is() {
        for command in ["/app|-c|file", "sh|/app.sh", "sh|-x|-c|app", "bash|--rc|file", "sh|-c", "sh"] {
            assert_eq!(made(Some(command), None, None), (None, Some(command.into())));
            assert_eq!(made(None, Some(command), None), (None, None));
        }
        assert_eq!(made(None, None, None), (None, None));
    }
}
