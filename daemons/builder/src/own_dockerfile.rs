//! A package's own Dockerfile: what of it the Engine may be asked to do.
//!
//! The Engine pulls what FROM names with the builder's account at the registry, and loads what ADD names from this host's
//! network, whatever network the build has. So images are those that the operator lists, and all else comes from the package.
//! Lines are read as the Engine reads them ("Dockerfile reference"). Its versions differ in where a line goes on (a comment in
//! between, two backslashes), so each line that could be an instruction is judged as one, and what only some would read is refused.

use dinp_common::model::ImageRef;
use std::collections::HashSet;

/// The variable that stands for the registry of the cluster in FROM.
pub const REGISTRY_ARG: &str = "DINP_REGISTRY";

const KNOWN: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Most lines of an instruction: each of them is judged with all that follow it.
const MOST_LINES: usize = 500;

/// What it may name.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// The registry of the cluster.
    pub registry: String,
    /// Images, each with `*` at its end for any end.
    pub from: Vec<String>,
}

/// Whether a Dockerfile asks for nothing that is not allowed; the error is a sentence.
pub fn check(text: &str, allowed: &Allowed) -> Result<(), String> {
    let at = |index: usize| move |problem: String| format!("line {} of the Dockerfile: {problem}", index + 1);
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        is_plain(line).map_err(at(index))?;
    }
    let mut file = File { allowed, stages: HashSet::new(), current: None, finished: 0, is_begun: false };
    let mut goes_on = 0;
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| is_content(line)) {
        let [whole, cut] = [true, false].map(|goes_over_comments| joined(&lines[index..], goes_over_comments));
        if goes_on == MOST_LINES {
            return Err(at(index)(format!("its instruction goes on over more than {MOST_LINES} lines")));
        } else if goes_on > 0 {
            // No instruction to this reader, but it may be one to another: it is judged, and nothing follows from it.
            file.asked(&whole).map_err(at(index))?;
        } else {
            file.instruction(&whole).map_err(at(index))?;
        }
        if cut != whole {
            file.asked(&cut).map_err(at(index))?;
        }
        goes_on = if line.trim().ends_with('\\') { goes_on + 1 } else { 0 };
    }
    if file.is_begun { Ok(()) } else { Err("the Dockerfile has no FROM".into()) }
}

struct File<'a> {
    allowed: &'a Allowed,
    /// Names of the stages that have ended, in lower case: the Engine knows no others.
    stages: HashSet<String>,
    /// The name of the present one.
    current: Option<String>,
    /// How many have ended.
    finished: u32,
    is_begun: bool,
}

impl File<'_> {
    fn instruction(&mut self, line: &str) -> Result<(), String> {
        let (word, rest) = parts(line);
        if !self.is_begun && !matches!(word.as_str(), "FROM" | "ARG") {
            return Err("the first instruction must be FROM, or ARG before it".into());
        }
        if !KNOWN.contains(&word.as_str()) {
            return Err(format!("the instruction {word} is not known here"));
        }
        if word != "FROM" {
            return self.asked(line);
        }
        self.stages.extend(self.current.take());
        self.finished += u32::from(self.is_begun);
        self.is_begun = true;
        self.current = self.stage(rest)?;
        Ok(())
    }

    /// Whether what a line asks for as an instruction is allowed.
    fn asked(&self, line: &str) -> Result<(), String> {
        let (word, rest) = parts(line);
        if matches!(word.as_str(), "RUN" | "COPY" | "ADD") && rest.contains("<<") {
            return Err("a document within (<<) is not known here".into());
        }
        // The Engine takes some of these lines apart by bytes, and then a part of a character may be a blank.
        if matches!(word.as_str(), "FROM" | "COPY" | "ADD" | "ONBUILD") && !rest.is_ascii() {
            return Err(format!("{word} may be followed by characters of ASCII alone"));
        }
        match word.as_str() {
            "FROM" => self.stage(rest).map(drop),
            "COPY" => self.copied(rest),
            // It takes quotes and backslashes out before it sees whether that is an address, as https://a/b and a@b:c are.
            "ADD" if rest.contains(['$', '\\', '"', '\'']) || names(rest).any(|name| name.contains(':')) => {
                Err("ADD takes files of the package alone, by their plain names".into())
            }
            "ADD" => self.copied(rest),
            "RUN" if rest.starts_with("--") => Err("options of RUN are not known here".into()),
            // Nor does the Engine know these, and a chain of them would be as deep as the file is long.
            "ONBUILD" if matches!(parts(rest).0.as_str(), "ONBUILD" | "FROM") => {
                Err("ONBUILD may not be followed by ONBUILD or FROM".into())
            }
            "ONBUILD" => self.asked(rest),
            _ => Ok(()),
        }
    }

    /// The name of a stage that may begin so.
    fn stage(&self, rest: &str) -> Result<Option<String>, String> {
        for option in options(rest) {
            plain_option(option)?;
        }
        let words: Vec<&str> = rest.split_whitespace().filter(|word| !word.starts_with("--")).collect();
        let (image, name) = match words[..] {
            [image] => (image, None),
            [image, word, name] if word.eq_ignore_ascii_case("AS") => (image, Some(name)),
            _ => return Err("FROM is followed by an image, and by AS and a name where the stage has one".into()),
        };
        let is_stage = self.stages.contains(&image.to_ascii_lowercase());
        if image != "scratch" && !is_stage {
            self.image(image)?;
        }
        let is_name = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        match name {
            Some(name) if !is_name(&name) => Err(format!("{name} is no name of a stage")),
            name => Ok(name.map(str::to_ascii_lowercase)),
        }
    }

    fn image(&self, named: &str) -> Result<(), String> {
        let Allowed { registry, from } = self.allowed;
        let image = named.replace(&format!("${{{REGISTRY_ARG}}}"), registry);
        let image = image.replace(&format!("${REGISTRY_ARG}/"), &format!("{registry}/"));
        if image.contains('$') {
            return Err(format!("of variables FROM may hold ${{{REGISTRY_ARG}}} alone"));
        }
        let is_allowed = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => image.starts_with(start),
            None => image == *pattern,
        };
        if image.parse::<ImageRef>().is_err() || !from.iter().any(is_allowed) {
            let allowed = from.join(", ").replace(registry, &format!("${{{REGISTRY_ARG}}}"));
            return Err(format!("FROM may not name {named} here, but {allowed}, scratch and earlier stages"));
        }
        Ok(())
    }

    fn copied(&self, rest: &str) -> Result<(), String> {
        for option in options(rest) {
            plain_option(option)?;
            let Some(stage) = option.strip_prefix("--from=") else { continue };
            let is_number = stage.parse::<u32>().is_ok_and(|number| number < self.finished);
            if !is_number && !self.stages.contains(&stage.to_ascii_lowercase()) {
                return Err(format!("--from may name an earlier stage alone, and {stage} is none"));
            }
        }
        Ok(())
    }
}

/// An instruction in capitals, and what follows it.
fn parts(line: &str) -> (String, &str) {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (word.to_ascii_uppercase(), rest.trim())
}

fn options(rest: &str) -> impl Iterator<Item = &str> {
    rest.split_whitespace().take_while(|word| word.starts_with("--"))
}

/// What follows the options.
fn names(rest: &str) -> impl Iterator<Item = &str> {
    rest.split_whitespace().skip_while(|word| word.starts_with("--"))
}

/// The Engine takes quotes and backslashes out of options before it looks at them.
fn plain_option(option: &str) -> Result<(), String> {
    match option.contains(['\\', '"', '\'']) {
        true => Err(format!("the option {option} holds a quote or a backslash")),
        false => Ok(()),
    }
}

/// Whether all of the Engine's versions read a line, by itself, in the same way.
fn is_plain(line: &str) -> Result<(), String> {
    if line.chars().any(|sign| sign != ' ' && sign != '\t' && (sign.is_whitespace() || sign.is_control())) {
        return Err("it holds white space other than blanks and tabs, or a control character".into());
    }
    let line = line.trim();
    if line.starts_with('#') {
        let directive = line.trim_start_matches('#').split_once('=');
        return match directive.is_some_and(|(name, _)| name.trim().eq_ignore_ascii_case("escape")) {
            true => Err("another sign than \\ at the end of lines is not allowed".into()),
            false => Ok(()),
        };
    }
    if line.ends_with("\\\\") { Err("two backslashes at its end can mean two things".into()) } else { Ok(()) }
}

/// Whether a line is more than a comment or nothing.
fn is_content(line: &&&str) -> bool {
    !line.trim().is_empty() && !line.trim().starts_with('#')
}

/// The first of these lines, with those that it goes on in, over comments and empty lines or up to the first of them; their first
/// blanks are a part of it.
fn joined(lines: &[&str], goes_over_comments: bool) -> String {
    let mut whole = String::new();
    let lines = lines.iter().take_while(|line| goes_over_comments || is_content(line));
    for line in lines.filter(is_content).take(MOST_LINES) {
        match line.trim_end().strip_suffix('\\') {
            Some(part) => whole += part,
            None => {
                whole += line;
                break;
            }
        }
    }
    whole.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn checked(text: &str) -> Result<(), String> {
        let from = vec!["r:5000/dinp/*".into(), "docker.io/library/debian:12".into()];
        check(text, &Allowed { registry: "r:5000".into(), from })
    }

    #[test]
    fn what_a_package_may_ask_for() {
        for text in [
            "FROM r:5000/dinp/base-binary:bookworm\nCOPY . /app/\nRUN make\n",
            "# ours\nARG DINP_REGISTRY\nFROM ${DINP_REGISTRY}/dinp/base-python:bookworm AS Build\nRUN a && \\\n  # why\n\n b\n\
             from $DINP_REGISTRY/dinp/base-binary:bookworm\ncopy --chown=1000:1000 --from=build /x /x\n",
            "FROM docker.io/library/debian:12\nADD x.tar /x\nCMD [\"sh\", \"-c\", \"echo $HOME\"]",
            "FROM scratch\nFROM scratch\nCOPY --from=0 a a\nLABEL note=\"ADD http://x ä\"",
        ] {
            assert_eq!(checked(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn nothing_of_others_and_nothing_from_the_network() {
        for (text, problem) in [
            ("", "the Dockerfile has no FROM"),
            ("RUN id\nFROM scratch", "line 1 of the Dockerfile: the first instruction must be FROM"),
            ("FROM r:5000/ann/shop:1", "FROM may not name r:5000/ann/shop:1 here, but ${DINP_REGISTRY}/dinp/*, "),
            ("FROM debian:12", "FROM may not name debian:12"),
            ("FROM docker.io/library/debian:12.1", "FROM may not name"),
            ("ARG A=r:5000/ann/shop\nFROM $A", "of variables FROM may hold ${DINP_REGISTRY} alone"),
            ("FROM $DINP_REGISTRYX/dinp/a", "of variables FROM may hold"),
            ("FROM scratch\nFROM \\\n  r:5000/ann/shop:1", "line 2 of the Dockerfile: FROM may not name"),
            ("FROM scratch\nCOPY --from=r:5000/ann/shop:1 / /", "--from may name an earlier stage alone"),
            ("FROM scratch\nCOPY --chown=1 --from=$X / /", "--from may name an earlier stage alone"),
            ("FROM scratch\nONBUILD COPY --from=r:5000/ann/shop / /", "--from may name an earlier stage alone"),
            ("FROM scratch\nADD http://169.254.169.254/latest /x", "ADD takes files of the package alone"),
            ("FROM scratch\nENV U=http:\nADD [\"$U//x\", \"/x\"]", "ADD takes files of the package alone"),
            ("FROM scratch\nADD ht\\\ntp://x /x", "line 2 of the Dockerfile: ADD takes files of the package alone"),
            ("# escape=`\nFROM scratch", "line 1 of the Dockerfile: another sign than \\"),
            ("FROM scratch\nRUN <<EOF\nFROM x\nEOF", "line 2 of the Dockerfile: a document within"),
            ("FROM scratch\nRUN --mount=type=bind,from=x id", "options of RUN are not known here"),
            ("FROM a b", "FROM is followed by an image"),
            ("FROM scratch\nRUN a \\\u{a0}\nFROM r:5000/ann/shop:1", "line 2 of the Dockerfile: it holds white space"),
            ("FROM scratch\nRUN a \\\\\nFROM r:5000/ann/shop:1", "line 2 of the Dockerfile: two backslashes"),
            ("FROM scratch\nRUN a \\\n  # b\nFROM r:5000/ann/shop:1", "line 4 of the Dockerfile: FROM may not name"),
            (
                "FROM scratch\nRUN a \\\n  # b\nCOPY \\\n--from=r:5000/ann/shop:1 / /",
                "line 4 of the Dockerfile: --from",
            ),
            ("FROM scratch\nCOPY --fr\"o\"m=r:5000/ann/shop:1 / /", "holds a quote or a backslash"),
            ("FROM scratch\nCOPY --fr\\om=r:5000/ann/shop:1 / /", "holds a quote or a backslash"),
            ("FROM scratch AS r:5000/ann/shop\nFROM r:5000/ann/shop", "is no name of a stage"),
            ("FROM scratch\nFROM\\\n r:5000/ann/shop:1", "line 2 of the Dockerfile: FROM may not name"),
            ("FROM scratch\nCOPY\\\n --from=r:5000/ann/shop:1 / /", "--from may name an earlier stage alone"),
            ("FROM scratch\nCOPY --chown=0:0\\\n --from=r:5000/ann/shop:1 / /", "--from may name an earlier stage"),
            ("FROM scratch\nADD\\\n http://169.254.169.254/latest/ /x", "ADD takes files of the package alone"),
            ("FROM scratch\nADD http:/\\/169.254.169.254/latest/ /x", "ADD takes files of the package alone"),
            ("FROM scratch\nADD \"http:\"//169.254.169.254/latest/ /x", "ADD takes files of the package alone"),
            ("FROM docker.io/library/debian\\\n\n:12", "FROM may not name docker.io/library/debian here"),
            ("FROM scratc\\\n# why\nh", "FROM may not name scratc here"),
            ("FROM scratch\nADD root@10.0.0.1:/x.git /x", "ADD takes files of the package alone"),
            ("FROM scratch\nADD --chown=a:b 10.0.0.1:/x.git /x", "ADD takes files of the package alone"),
            ("FROM scratch\nONBUILD ONBUILD RUN id", "ONBUILD may not be followed by ONBUILD or FROM"),
            ("FROM scratch\nONBUILD FROM scratch", "ONBUILD may not be followed by ONBUILD or FROM"),
            ("FROM scratch\nADD [\"http:\\u002f/169.254.169.254/\", \"/x\"]", "ADD takes files of the package alone"),
            ("FROM scratch\nCOPY --chown=à--from=r:5000/ann/shop:1 / /s", "characters of ASCII alone"),
            ("FROM scratch AS debian\nCOPY --from=debian / /", "and debian is none"),
            ("FROM scratch\nCMD x \\\nFROM scratch AS debian\nFROM debian", "FROM may not name debian"),
            ("FROM scratch\nCOPY --from=0 / /", "and 0 is none"),
            ("FROM scratch\nFROM scratch\nCOPY --from=99999999999999999999 / /", "--from may name an earlier stage"),
            ("FROM scratch\nFETCH x", "the instruction FETCH is not known here"),
            ("\u{feff}FROM scratch", "the first instruction must be FROM"),
        ] {
            let refused = checked(text).unwrap_err();
            assert!(refused.contains(problem), "{text:?}: {refused}");
        }
    }

    #[test]
    fn a_file_of_continued_lines_is_judged_as_quickly_as_any() {
        for line in ["COPY \\\n", "ADD --a\\\n", "RUN \\\n"] {
            let refused = checked(&format!("FROM scratch\n{}", line.repeat((64 << 10) / line.len()))).unwrap_err();
            assert_eq!(refused, "line 502 of the Dockerfile: its instruction goes on over more than 500 lines");
        }
        assert_eq!(checked(&format!("FROM scratch\nRUN a{} \\\n b\n", " \\\n a".repeat(498))), Ok(()));
        // So deep that whoever follows it needs more than a thread's stack.
        assert!(checked(&format!("FROM scratch\n{}RUN id\n", "ONBUILD ".repeat(8000))).is_err());
    }

    proptest! {
        #[test]
        fn an_image_of_others_is_found_however_it_is_written(
            before in "(# [a-z=]{0,9}\n|\n|ARG [A-Z]=[a-z]\n){0,3}",
            from in "[Ff][Rr][Oo][Mm]",
            gap in "( |\t|\\\\\n |\\\\ \n\t|\\\\\n#x\n |\\\\\n\n ){1,4}",
        ) {
            let text = format!("{before}{from}{gap}r:5000/ann/shop:1\nCMD [\"x\"]\n");
            prop_assert!(checked(&text).is_err(), "{}", text);
        }

        #[test]
        fn any_text_is_judged(text in "[#A-Z\\\\ \n$={}:/a-z<@-]{0,200}") {
            prop_assert!(checked(&text).is_err() || text.to_ascii_uppercase().contains("FROM"));
        }
    }
}
