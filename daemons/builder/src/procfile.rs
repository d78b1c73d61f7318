//! A Procfile: which of its lines is run.

/// The types of process that a Procfile names.
#[derive(Debug, PartialEq, Eq)]
pub struct Procfile {
    /// Whether one of them is `web`, with a command.
    pub has_web: bool,
    /// The others, in their order.
    pub others: Vec<String>,
}

impl Procfile {
    /// Reads lines such as `web: gunicorn app:app`; what is none is passed over, as other platforms do.
    pub fn parse(text: &str) -> Self {
        let mut procfile = Self { has_web: false, others: Vec::new() };
        for line in text.lines() {
            let Some((name, command)) = line.split_once(':') else { continue };
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            if name.is_empty() || !name.bytes().all(is_name) || command.trim().is_empty() {
                continue;
            }
            match name {
                "web" => procfile.has_web = true,
                _ => procfile.others.push(name.to_owned()),
            }
        }
        procfile
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_processes() {
        let text = "# ours\r\nrelease: python migrate.py\r\nweb: cd x && A=b python m.py\r\nworker: celery\r\n\r\n";
        let expected = Procfile { has_web: true, others: vec!["release".into(), "worker".into()] };
        assert_eq!(Procfile::parse(text), expected);
        for none in ["", "web:", "web:   \n", " web: x", "# web: x", "web x"] {
            assert!(!Procfile::parse(none).has_web, "{none:?}");
        }
    }
}
