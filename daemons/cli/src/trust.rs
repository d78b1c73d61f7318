//! Whom this program trusts over TLS: the authorities that this machine trusts, and one of the caller's.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::{Client, ClientBuilder};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use url::Url;

use crate::error::{CliError, trimmed};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    ca_file: Option<PathBuf>,
}

impl Trust {
    /// The machine's authorities, and those of a file of certificates (PEM).
    pub fn new(ca_file: Option<PathBuf>) -> Self {
        Self { ca_file }
    }

    /// The file, by a path that holds in any directory.
    pub fn ca_file(&self) -> Result<Option<PathBuf>, CliError> {
        let absolute = |path: &PathBuf| fs::canonicalize(path).map_err(|error| CliError::file("read", path, error));
        self.ca_file.as_ref().map(absolute).transpose()
    }

    /// Makes a client of this server. Nothing is read for one that speaks no TLS.
    pub fn client(&self, builder: ClientBuilder, server: &Url) -> Result<Client, CliError> {
        let builder = match server.scheme() {
            "https" => builder.use_preconfigured_tls(self.config()?),
            _ => builder,
        };
        builder.build().map_err(|error| CliError::Other(format!("cannot make an HTTP client: {error}")))
    }

    fn config(&self) -> Result<ClientConfig, CliError> {
        let mut authorities = RootCertStore::empty();
        // What cannot be read of the machine's list is nobody's fault here: what it signs is refused as unknown.
        authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = &self.ca_file {
            for certificate in certificates(path)? {
                authorities.add(certificate).map_err(|error| unusable(path, &error.to_string()))?;
            }
        }
        if authorities.is_empty() {
            return Err(CliError::refused(
                "this machine knows no authority that certificates of servers could be signed by",
                "install the package ca-certificates, or name your own authority with --ca-file",
            ));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| CliError::Other(format!("cannot speak TLS: {error}")))?;
        Ok(config.with_root_certificates(authorities).with_no_client_auth())
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CliError> {
    let text = fs::read(path).map_err(|error| CliError::file("read", path, error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(unusable(path, "it has no part BEGIN CERTIFICATE")),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(path, &error.to_string())),
    }
}

fn unusable(path: &Path, why: &str) -> CliError {
    CliError::refused(
        format!("{} holds no certificate of an authority: {why}", path.display()),
        "give the authority's own certificate, in PEM",
    )
}

/// Why a call failed that has to do with TLS, in words, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Distrust {
    /// What is wrong with the other side.
    pub why: String,
    /// What to do.
    pub hint: String,
}

impl Distrust {
    /// Of a call to that server that failed; none if TLS is not why.
    pub fn of(error: &reqwest::Error, server: &Url) -> Option<Self> {
        if let Some(error) = cause::<rustls::Error>(error) {
            return Some(Self::told(error, server));
        }
        // Who speaks TLS answers a plain request with a message of TLS.
        let is_no_http = cause::<hyper::Error>(error).is_some_and(hyper::Error::is_parse);
        (is_no_http && server.scheme() == "http").then(|| Self {
            why: "what it speaks is not HTTP".into(),
            hint: format!("if that is TLS, write {}", with_scheme(server, "https")),
        })
    }

    fn told(error: &rustls::Error, server: &Url) -> Self {
        use CertificateError as Bad;
        let host = server.host_str().unwrap_or_default();
        let (why, hint) = match error {
            rustls::Error::InvalidCertificate(bad) => match bad {
                Bad::UnknownIssuer => (
                    "its certificate is signed by an authority that is not known here".into(),
                    "if the authority is your own, name its certificate: --ca-file FILE, or DINP_CA_FILE".into(),
                ),
                Bad::NotValidForName | Bad::NotValidForNameContext { .. } => (
                    format!("its certificate is for another name than {host}"),
                    "call it by the name of its certificate, as `public_url` of dinp.toml says it".into(),
                ),
                Bad::Expired | Bad::ExpiredContext { .. } => {
                    ("its certificate has expired".into(), "renew it at the proxy that speaks TLS there".into())
                }
                Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                    ("its certificate is not valid yet".into(), "is the clock of this machine right?".into())
                }
                other if format!("{other:?}").contains("CaUsedAsEndEntity") => (
                    "its certificate is that of an authority (CA:TRUE) and not of a server".into(),
                    "give the proxy one with CA:FALSE".into(),
                ),
                other => (format!("its certificate is not valid: {other}"), String::new()),
            },
            rustls::Error::InvalidMessage(_) => (
                "it speaks no TLS".into(),
                format!("name the port where TLS is spoken, or write {}", with_scheme(server, "http")),
            ),
            other => (format!("TLS does not come about: {other}"), String::new()),
        };
        Self { why, hint }
    }
}

/// The first error of that kind in a chain of causes.
fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    // An error of input and output holds its cause without naming it as its source.
    let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.downcast_ref().or_else(|| match held {
        Some(held) => cause(held),
        None => cause(error.source()?),
    })
}

fn with_scheme(server: &Url, scheme: &str) -> String {
    let rest = trimmed(server).split_once("://").map_or("", |(_, rest)| rest);
    format!("{scheme}://{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::TestDir;

    #[test]
    fn a_file_without_an_authority_is_refused_by_name() {
        let dir = TestDir::new("trust");
        let server = Url::parse("https://dash.example").unwrap();
        let client = |name: &str| {
            let trust = Trust::new(Some(dir.path().join(name)));
            trust.client(Client::builder(), &server).unwrap_err()
        };
        assert!(client("none.pem").told().contains("none.pem: No such file"), "{}", client("none.pem").told());
        for (name, text) in [
            ("empty.pem", ""),
            ("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
            ("broken.pem", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
            ("short.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
            let error = client(name);
            assert_eq!(error.code(), crate::error::REFUSED, "{name}");
            assert!(error.to_string().contains(&format!("{name} holds no certificate of an authority")), "{error}");
        }
        let plain = Url::parse("http://dash.example").unwrap();
        assert!(Trust::new(Some(dir.path().join("none.pem"))).client(Client::builder(), &plain).is_ok());
    }
}
