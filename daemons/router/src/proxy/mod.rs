//! One request from a client's connection to an instance and back.

mod balance;
mod body;
mod forward;
mod headers;
mod host;
mod pages;
mod pool;
mod retry;
mod tunnel;
mod wire;

pub(crate) use body::ResponseBody;
use pool::Pool;
pub(crate) use tunnel::Tunnel;

use crate::config::Limits;
use crate::gate::Control;
use crate::table::{Hosts, Slice};
use crate::totals::Totals;
use body::{Lease, RequestBody};
use forward::{Answer, Request as Outgoing};
use http::header::HOST;
use http::uri::{PathAndQuery, Uri};
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use pages::Refusal;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// What the requests of one worker share.
pub(crate) struct Proxy {
    pub(crate) limits: Rc<Limits>,
    pub(crate) totals: Arc<Totals>,
    hosts: RefCell<Hosts>,
    pool: Rc<Pool>,
    /// Cancelled when there is a table.
    pub(crate) has_table: CancellationToken,
}

impl Proxy {
    pub(crate) fn new(limits: Rc<Limits>, totals: Arc<Totals>) -> Rc<Self> {
        let pool = Rc::new(Pool::new(limits.clone()));
        Rc::new(Self { limits, totals, hosts: RefCell::default(), pool, has_table: CancellationToken::new() })
    }

    /// Puts a part of a change of the table into force.
    pub(crate) fn apply(&self, slice: &Slice) {
        slice.apply(&mut self.hosts.borrow_mut());
        for instance in &slice.gone {
            self.pool.close(instance);
        }
    }

    /// Closes connections to instances that have been idle for long.
    pub(crate) fn sweep(&self) {
        self.pool.sweep(Instant::now());
    }
}

/// One client's connection.
pub(crate) struct Session {
    proxy: Rc<Proxy>,
    control: Control,
    client: IpAddr,
    trusted: bool,
    requests: Cell<u64>,
    tunnel: RefCell<Option<Tunnel>>,
}

impl Session {
    pub(crate) fn new(proxy: Rc<Proxy>, control: Control, client: IpAddr) -> Self {
        let client = client.to_canonical();
        let trusted = proxy.limits.trusts(client);
        Self { proxy, control, client, trusted, requests: Cell::new(0), tunnel: RefCell::new(None) }
    }

    /// The tunnel that the connection has become.
    pub(crate) fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.borrow_mut().take()
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let number = self.requests.get() + 1;
        self.requests.set(number);
        let (busy, fault) = self.control.begin(number);
        if let Some(fault) = fault {
            return self.refuse(Refusal::Fault(fault)).page(busy);
        }
        let upgrade = self.control.wants_upgrade(number);
        let (parts, body) = request.into_parts();
        let body = Some(body).filter(|body| !body.is_end_stream());
        let mut headers = parts.headers;
        let id = headers::request_id(&headers, rand::random);
        let host = headers.get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let host = host::key(host).into_owned();
        headers::to_app(&mut headers, self.client, self.trusted, body.is_some(), upgrade, &id);
        let replayable = retry::is_replayable(&parts.method, body.is_some());
        let outgoing = Outgoing { method: parts.method, uri: origin_form(&parts.uri), headers, body, replayable };
        let answer = forward::forward(&self.proxy, &host, outgoing, &self.control).await;
        let Answer { response, mut lease } = match answer {
            Ok(answer) => answer,
            Err(refusal) => {
                self.decide(upgrade, false);
                let mut page = self.refuse(refusal).page(busy);
                page.headers_mut().insert(headers::X_REQUEST_ID, id);
                return page;
            }
        };
        let upgraded = upgrade && response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let (mut parts, body) = response.into_parts();
        headers::to_client(&mut parts.headers, upgraded, &id);
        parts.version = http::Version::HTTP_11;
        self.decide(upgrade, upgraded);
        if upgraded {
            *self.tunnel.borrow_mut() = Tunnel::new(&mut lease, self.proxy.limits.body);
        }
        Response::from_parts(parts, ResponseBody::app(body, lease, self.proxy.limits.body, busy))
    }

    /// Lets go of what follows a request for an upgrade that did not come about.
    fn decide(&self, asked: bool, upgraded: bool) {
        if asked && !upgraded {
            self.control.no_upgrade();
        }
    }

    fn refuse(&self, refusal: Refusal) -> Refusal {
        self.proxy.totals.refused(refusal.code());
        refusal
    }
}

/// The target without scheme and authority: the app is its origin.
fn origin_form(uri: &Uri) -> Uri {
    if uri.scheme().is_none() {
        return uri.clone();
    }
    let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    Uri::from(path)
}
