//! Calls to dash, with errors that know whom they were about.

use std::time::Duration;

use dinp_common::api::Page;
use dinp_common::auth::Credential;
use dinp_common::client::{ApiClient, ClientError, check};
use http::Method;
use reqwest::{RequestBuilder, Response};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use url::Url;
use url::form_urlencoded::Serializer;

use crate::error::CliError;
use crate::trust::Trust;

/// Longest wait for an answer that is not a stream. A deployment asks the registry for its image first.
const TIMEOUT: Duration = Duration::from_secs(60);
/// People's machines may be far away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most entries of a page.
const PAGE: &str = "1000";

/// dash, as a person's program sees it.
#[derive(Clone, Debug)]
pub struct Api {
    client: ApiClient,
    server: Url,
}

/// A list comes as a page; a short one may come bare.
#[derive(Deserialize)]
#[serde(untagged)]
enum List<T> {
    Page(Page<T>),
    Bare(Vec<T>),
}

impl Api {
    /// dash at this address; without a credential only its `/v1/meta` answers.
    pub fn new(server: Url, credential: Option<Credential>, trust: &Trust) -> Result<Self, CliError> {
        let http = ApiClient::http(concat!("dinp/", env!("CARGO_PKG_VERSION"))).connect_timeout(CONNECT_TIMEOUT);
        let client = ApiClient::over(trust.client(http, &server)?, vec![server.clone()], credential);
        Ok(Self { client, server })
    }

    /// Its address.
    pub fn server(&self) -> &Url {
        &self.server
    }

    /// `GET`.
    pub async fn get<R: DeserializeOwned>(&self, path: &str) -> Result<R, CliError> {
        self.client.get(path, TIMEOUT).await.map_err(|error| self.failed(error))
    }

    /// `GET`; nothing where the thing does not exist.
    pub async fn find<R: DeserializeOwned>(&self, path: &str) -> Result<Option<R>, CliError> {
        match self.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All entries of a list, page by page.
    pub async fn list<R: DeserializeOwned>(&self, path: &str) -> Result<Page<R>, CliError> {
        let (path, given) = path.split_once('?').unwrap_or((path, ""));
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut query = Serializer::new(given.to_owned());
            query.append_pair("limit", PAGE);
            if let Some(after) = &after {
                query.append_pair("after", after);
            }
            match self.get(&format!("{path}?{}", query.finish())).await? {
                List::Bare(all) => return Ok(Page { items: all, next: None }),
                List::Page(page) => {
                    items.extend(page.items);
                    // A page that leads to itself must not keep us for ever.
                    if page.next.is_none() || page.next == after {
                        return Ok(Page { items, next: None });
                    }
                    after = page.next;
                }
            }
        }
    }

    /// `POST`.
    pub async fn post<B: Serialize + ?Sized, R: DeserializeOwned>(&self, path: &str, body: &B) -> Result<R, CliError> {
        self.client.post(path, body, TIMEOUT).await.map_err(|error| self.failed(error))
    }

    /// `PUT`.
    pub async fn put<B: Serialize + ?Sized, R: DeserializeOwned>(&self, path: &str, body: &B) -> Result<R, CliError> {
        self.client.put(path, body, TIMEOUT).await.map_err(|error| self.failed(error))
    }

    /// `PATCH`.
    pub async fn patch<B: Serialize + ?Sized, R: DeserializeOwned>(&self, path: &str, body: &B) -> Result<R, CliError> {
        self.client.patch(path, body, TIMEOUT).await.map_err(|error| self.failed(error))
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<(), CliError> {
        self.client.delete::<IgnoredAny>(path, TIMEOUT).await.map(drop).map_err(|error| self.failed(error))
    }

    /// A request without time limit, for streams.
    pub fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, CliError> {
        self.client.request(method, path).map_err(|error| self.failed(error))
    }

    /// Sends such a request; the answer's body is the caller's.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let response = request.send().await.map_err(|error| self.broken(error))?;
        check(response).await.map_err(|error| self.failed(error))
    }

    /// A stream that broke.
    pub fn broken(&self, source: reqwest::Error) -> CliError {
        let url = source.url().cloned().unwrap_or_else(|| self.server.clone());
        self.failed(ClientError::Transport { url, source: source.without_url() })
    }

    /// A stream that holds something else than it should.
    pub fn garbled(&self, source: serde_json::Error) -> CliError {
        self.failed(ClientError::Decode { url: self.server.clone(), source })
    }

    fn failed(&self, source: ClientError) -> CliError {
        CliError::Server { server: self.server.clone(), source: Box::new(source) }
    }
}

/// A path with a query; values are escaped, absent ones left out.
pub fn with_query(path: &str, pairs: &[(&str, Option<&str>)]) -> String {
    let mut query = Serializer::new(String::new());
    for (name, value) in pairs {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}
