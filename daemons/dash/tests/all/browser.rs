//! A browser without a face: keeps cookies per server, follows redirects, fills in forms.

use crate::stage::{PASSWORD, Stage};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use std::collections::BTreeMap;
use std::sync::Mutex;
use url::Url;

pub struct Browser {
    http: Client,
    cookies: Mutex<BTreeMap<(String, String), String>>,
}

pub struct Answer {
    pub status: u16,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    /// The value of the first hidden field of this name.
    pub fn hidden(&self, name: &str) -> String {
        let start = format!("name=\"{name}\" value=\"");
        let at = self.body.find(&start).unwrap_or_else(|| panic!("no field {name} in {}", self.body)) + start.len();
        let text = &self.body[at..];
        text[..text.find('"').unwrap()].replace("&#38;", "&").replace("&amp;", "&")
    }
}

impl Browser {
    pub fn new() -> Self {
        let http = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { http, cookies: Mutex::default() }
    }

    fn cookie_line(&self, url: &Url) -> String {
        let authority = url.authority().to_owned();
        let cookies = self.cookies.lock().unwrap();
        let pairs = cookies.iter().filter(|((host, _), _)| *host == authority);
        pairs.map(|((_, name), value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    fn keep(&self, url: &Url, headers: &HeaderMap) {
        for value in headers.get_all("set-cookie") {
            let value = value.to_str().unwrap();
            assert!(value.contains("HttpOnly") && value.contains("SameSite=Lax"), "{value}");
            let (name, rest) = value.split_once('=').unwrap();
            let key = (url.authority().to_owned(), name.to_owned());
            let mut cookies = self.cookies.lock().unwrap();
            if rest.contains("Max-Age=0") {
                cookies.remove(&key);
            } else {
                cookies.insert(key, rest.split(';').next().unwrap().to_owned());
            }
        }
    }

    /// Sends a request and follows where it leads.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let mut request = request.build().unwrap();
        for _ in 0..10 {
            let url = request.url().clone();
            let line = self.cookie_line(&url);
            request.headers_mut().insert("cookie", line.parse().unwrap());
            let response = self.http.execute(request).await.unwrap();
            self.keep(&url, response.headers());
            let status = response.status();
            let headers = response.headers().clone();
            match headers.get("location") {
                Some(location) if status.is_redirection() => {
                    let next = url.join(location.to_str().unwrap()).unwrap();
                    request = self.http.get(next).build().unwrap();
                }
                _ => return Answer { status: status.as_u16(), url, headers, body: response.text().await.unwrap() },
            }
        }
        panic!("it leads in a circle");
    }

    pub async fn get(&self, stage: &Stage, path: &str) -> Answer {
        self.send(self.http.get(format!("{}{path}", stage.url))).await
    }

    pub fn request(&self, stage: &Stage, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", stage.url))
    }

    /// Sends a form with the token of this session.
    pub async fn post(&self, stage: &Stage, path: &str, fields: &[(&str, &str)]) -> Answer {
        let csrf = self.csrf(stage).await;
        let mut form = vec![("csrf", csrf.as_str())];
        form.extend_from_slice(fields);
        self.send(self.request(stage, Method::POST, path).form(&form)).await
    }

    pub async fn csrf(&self, stage: &Stage) -> String {
        self.get(stage, "/apps").await.hidden("csrf")
    }

    /// Opens a page without a sign-on, signs in on the way, and returns where that leads.
    pub async fn sign_in(&self, stage: &Stage, name: &str, path: &str) -> Answer {
        let page = self.get(stage, path).await;
        assert_eq!(page.url.authority(), Url::parse(&stage.uic_url).unwrap().authority(), "the sign-in page");
        let (csrf, next) = (page.hidden("csrf"), page.hidden("next"));
        let form = [("csrf", csrf.as_str()), ("next", &next), ("username", name), ("password", PASSWORD)];
        self.send(self.http.post(format!("{}/login", stage.uic_url)).form(&form)).await
    }

    /// A browser that has this access token already.
    pub fn with_token(stage: &Stage, token: &str) -> Self {
        let browser = Self::new();
        let authority = Url::parse(&stage.url).unwrap().authority().to_owned();
        browser.cookies.lock().unwrap().insert((authority, "dinp_dash".to_owned()), token.to_owned());
        browser
    }
}
