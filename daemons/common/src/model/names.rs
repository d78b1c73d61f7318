//! Names: of apps, nodes, domains, environment variables, runtimes and instances.

use super::InvalidValue;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

const LABEL_RULE: &str =
    "it must be a DNS label: 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end";

fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr, $rule:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidValue::new($what, text, $rule))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidValue;

            fn try_from(text: String) -> Result<Self, InvalidValue> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// Name of an app: a DNS label, because `<app>.<domain>` is its address.
    AppName, "app name", is_dns_label, LABEL_RULE
);
name_type!(
    /// Name of a node: a DNS label.
    NodeName, "node name", is_dns_label, LABEL_RULE
);
name_type!(
    /// Name of a zone, such as a rack or a room, that nodes stand in: a DNS label.
    ZoneName, "zone", is_dns_label, LABEL_RULE
);
name_type!(
    /// Name of a runtime of the builder: the file name in `/etc/dinp/builder.d` without its ending.
    RuntimeName, "runtime", is_dns_label, LABEL_RULE
);
name_type!(
    /// Name of an environment variable, as POSIX portable names are, in either case.
    EnvName,
    "environment variable",
    |text| {
        (1..=255).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !text.as_bytes()[0].is_ascii_digit()
    },
    "it must be 1 to 255 letters, digits and underscores, and not start with a digit"
);
name_type!(
    /// A host name that an app answers to besides `<app>.<domain>`, in lower case, with at least two labels.
    DomainName,
    "domain",
    |text| {
        text.len() <= 253
            && text.contains('.')
            && text.split('.').all(is_dns_label)
            && !text.split('.').next_back().is_some_and(|top| top.bytes().all(|b| b.is_ascii_digit()))
    },
    "it must be a lower-case host name of at least two labels, such as shop.example.org, without a port"
);
name_type!(
    /// Identity of one instance for all its life: 16 hexadecimal digits. Never used twice.
    InstanceId,
    "instance id",
    |text| text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
    "it must be 16 lower-case hexadecimal digits"
);

impl InstanceId {
    /// The instance id with these 64 bits; the caller draws them at random.
    pub fn from_bits(bits: u64) -> Self {
        Self(format!("{bits:016x}"))
    }

    /// The first eight digits: what people see, and the end of the container's name.
    pub fn short(&self) -> &str {
        &self.0[..8]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_names_are_dns_labels() {
        for good in ["a", "web", "web-1", "0", "x23456789012345678901234567890123456789012345678901234567890123"] {
            assert!(good.parse::<AppName>().is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä", "a b", "a\n", &long] {
            assert!(bad.parse::<AppName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_names_the_value_and_the_rule_and_no_control_characters() {
        let text = "Foo\u{1b}[1m".parse::<AppName>().unwrap_err().to_string();
        assert!(text.starts_with("app name \"Foo[1m\" is not valid: it must be a DNS label"), "{text}");
    }

    #[test]
    fn domains_have_two_labels_and_are_not_addresses() {
        assert!("shop.example.org".parse::<DomainName>().is_ok());
        for bad in ["shop", "10.0.0.1", "a..b", "Shop.example.org", "shop.example.org:80", "*.example.org"] {
            assert!(bad.parse::<DomainName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn environment_names_are_portable() {
        assert!("DATABASE_URL".parse::<EnvName>().is_ok());
        for bad in ["", "1A", "A-B", "A=B", "Ä"] {
            assert!(bad.parse::<EnvName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn instance_ids_have_a_short_form() {
        let id = InstanceId::from_bits(0xdead_beef_0000_0001);
        assert_eq!((id.as_str(), id.short()), ("deadbeef00000001", "deadbeef"));
        assert!("DEADBEEF00000001".parse::<InstanceId>().is_err());
    }

    #[test]
    fn serde_checks_too() {
        assert!(serde_json::from_str::<AppName>("\"No\"").is_err());
    }
}
