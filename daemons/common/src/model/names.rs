//! Names: of apps, nodes, domains, environment variables, runtimes and instances.

use super::InvalidValue;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

const LABEL_RULE: &str =
    "it must be a DNS label: 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end";

fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// What all types have in common that are texts with a rule.
macro_rules! text_type {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = InvalidValue;

            fn try_from(text: String) -> Result<Self, InvalidValue> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

/// A name; copies share one text.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr, $rule:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        text_type!($name);

        impl FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidValue::new($what, text, $rule))
                }
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
/// Identity of one instance for all its life: 16 hexadecimal digits. Never used twice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct InstanceId([u8; 16]);

text_type!(InstanceId);

impl InstanceId {
    /// The instance id with these 64 bits; the caller draws them at random.
    pub fn from_bits(bits: u64) -> Self {
        let digit = |place: usize| b"0123456789abcdef"[(bits >> (60 - 4 * place) & 15) as usize];
        Self(std::array::from_fn(digit))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The first eight digits: what people see, and the end of the container's name.
    pub fn short(&self) -> &str {
        &self.as_str()[..8]
    }
}

impl FromStr for InstanceId {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let digits = <[u8; 16]>::try_from(text.as_bytes()).ok();
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let digits = digits.filter(|digits| digits.iter().all(is_digit));
        let rule = "it must be 16 lower-case hexadecimal digits";
        digits.map(Self).ok_or_else(|| InvalidValue::new("instance id", text, rule))
    }
}

// As of its text, by which maps find it.
impl Hash for InstanceId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InstanceId").field(&self.as_str()).finish()
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
        assert_eq!("deadbeef00000001".parse(), Ok(id.clone()));
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"deadbeef00000001\"");
        for bad in ["DEADBEEF00000001", "deadbeef0000001", "deadbeef000000011", "deadbeef0000000g", ""] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad:?}");
        }
        assert!(std::collections::HashSet::from([id]).contains("deadbeef00000001"));
    }

    #[test]
    fn serde_checks_too() {
        assert!(serde_json::from_str::<AppName>("\"No\"").is_err());
    }
}
