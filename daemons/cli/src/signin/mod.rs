//! Signing in: authorization code with PKCE against uic, as OAuth 2.0 for native applications does it.
//!
//! The code comes back either to a browser's loopback address ([`browser`]) or, on a machine without one, to this
//! program, which fills in uic's login form by itself ([`password`]).

pub mod browser;
mod form;
pub mod password;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dinp_common::api::uic::TokenReply;
use dinp_common::client::{ClientError, check};
use rand::TryRngCore;
use reqwest::redirect::Policy;
use sha2::{Digest, Sha256};
use url::Url;

use crate::error::CliError;
use crate::trust::Trust;

const CLIENT: &str = "cli";

/// What one sign-in draws at random and is checked by.
pub struct Attempt {
    /// Where uic is.
    pub uic: Url,
    /// Where the code is to come.
    pub redirect_uri: String,
    state: String,
    verifier: String,
}

impl Attempt {
    /// A new one.
    pub fn new(uic: Url, redirect_uri: String) -> Result<Self, CliError> {
        Ok(Self { uic, redirect_uri, state: random()?, verifier: random()? })
    }

    /// What a browser is to open.
    pub fn authorize_url(&self) -> Result<Url, CliError> {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.as_bytes()));
        let mut url = endpoint(&self.uic, "/oauth/authorize")?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", CLIENT)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("state", &self.state)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        Ok(url)
    }

    /// The code in a redirect to us.
    pub fn code(&self, url: &Url) -> Result<String, CliError> {
        let value = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        if value("state").as_deref() != Some(&self.state) {
            return Err(not_signed_in("the answer belongs to another sign-in"));
        }
        if let Some(error) = value("error") {
            let detail = value("error_description").unwrap_or(error);
            return Err(not_signed_in(format!("sign-in was refused: {detail}")));
        }
        value("code").ok_or_else(|| not_signed_in("the answer holds no code"))
    }

    /// Trades the code for an access token.
    pub async fn exchange(&self, http: &reqwest::Client, code: &str) -> Result<TokenReply, CliError> {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect_uri),
            ("client_id", CLIENT),
            ("code_verifier", &self.verifier),
        ];
        let request = http.post(endpoint(&self.uic, "/oauth/token")?).form(&form);
        let response = send(&self.uic, request).await?;
        let response = check(response).await.map_err(|source| failed(&self.uic, source))?;
        let bytes = response.bytes().await.map_err(|error| unreachable(&self.uic, error))?;
        serde_json::from_slice(&bytes)
            .map_err(|source| failed(&self.uic, ClientError::Decode { url: self.uic.clone(), source }))
    }
}

/// Ends the session that a token belongs to.
pub async fn revoke(uic: &Url, token: &str, trust: &Trust) -> Result<(), CliError> {
    let request = http_client(uic, trust)?.post(endpoint(uic, "/oauth/revoke")?).form(&[("token", token)]);
    let response = send(uic, request).await?;
    check(response).await.map(drop).map_err(|source| failed(uic, source))
}

/// A client of uic that keeps cookies and follows no redirect by itself.
pub fn http_client(uic: &Url, trust: &Trust) -> Result<reqwest::Client, CliError> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("dinp/", env!("CARGO_PKG_VERSION")))
        .cookie_store(true)
        .redirect(Policy::none())
        .no_proxy()
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(30));
    trust.client(builder, uic)
}

fn endpoint(uic: &Url, path: &str) -> Result<Url, CliError> {
    let text = format!("{}{path}", uic.as_str().trim_end_matches('/'));
    Url::parse(&text).map_err(|error| CliError::Other(format!("{text} is not a URL: {error}")))
}

async fn send(uic: &Url, request: reqwest::RequestBuilder) -> Result<reqwest::Response, CliError> {
    request.send().await.map_err(|error| unreachable(uic, error))
}

fn unreachable(uic: &Url, error: reqwest::Error) -> CliError {
    failed(uic, ClientError::Transport { url: uic.clone(), source: error.without_url() })
}

fn failed(uic: &Url, source: ClientError) -> CliError {
    CliError::Server { server: uic.clone(), source: Box::new(source) }
}

fn not_signed_in(message: impl Into<String>) -> CliError {
    CliError::SignedOut { message: message.into(), hint: "try `dinp login` again".into() }
}

fn random() -> Result<String, CliError> {
    let mut bytes = [0_u8; 32];
    rand::rngs::OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| CliError::Other(format!("cannot draw random numbers: {error}")))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_this_attempt_is_taken() {
        let uic = Url::parse("http://uic.example:1984/").unwrap();
        let attempt = Attempt::new(uic, "http://127.0.0.1:7/callback".into()).unwrap();
        let url = attempt.authorize_url().unwrap();
        assert!(url.as_str().starts_with("http://uic.example:1984/oauth/authorize?response_type=code&client_id=cli&"));
        let back = |query: &str| attempt.code(&Url::parse(&format!("http://127.0.0.1:7/callback?{query}")).unwrap());
        assert_eq!(back(&format!("code=abc&state={}", attempt.state)).unwrap(), "abc");
        assert!(back("code=abc&state=other").is_err());
        assert!(back("code=abc").is_err());
        let said = |query: &str| back(query).unwrap_err().to_string();
        let refusal = format!("error=access_denied&error_description=no&state={}", attempt.state);
        assert!(said(&refusal).contains("refused: no"));
        assert!(said("error=access_denied&error_description=no").contains("another sign-in"));
    }
}
