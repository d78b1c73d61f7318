//! The server's endpoints, by who calls them: [`agent`], [`router`], [`hm`], [`control`] (dash). `/health`, `/ready`,
//! `/metrics` and `GET /v1/leader` ([`leader`]) are everybody's.
//!
//! All but those need a credential, and all but those are answered by the leader alone: another server answers
//! 503 `not-leader` with the leader's URL and epoch. The leader's answers carry its epoch in a header.

mod agent;
mod control;
mod hm;
mod leader;
mod router;

use crate::ended::Ended;
use crate::input::Handle;
use crate::leader::Leadership;
use crate::orders::OrdersHub;
use crate::streams::Streams;
use crate::sync::NodeSecrets;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use dinp_common::api::leader::EPOCH_HEADER;
use dinp_common::auth::{self, CredentialKind, ServiceAuth, hash_matches};
use dinp_common::model::NodeName;
use dinp_common::problem::Problem;
use http::{HeaderMap, HeaderValue};
use mysql_async::Pool;
use std::sync::{Arc, PoisonError};
use tokio::sync::{Notify, watch};
use url::Url;

/// What endpoints need.
#[derive(Clone)]
pub struct Api {
    /// The way to the driver.
    pub driver: Handle,
    /// What this server is.
    pub leadership: watch::Receiver<Leadership>,
    /// Orders in force.
    pub hub: OrdersHub,
    /// Open streams.
    pub streams: Streams,
    /// Instances that are gone and whose output nodes keep.
    pub ended: Ended,
    /// Hashes of the nodes' secrets.
    pub secrets: NodeSecrets,
    /// Checks service credentials.
    pub services: ServiceAuth,
    /// The database, for what operators change.
    pub pool: Pool,
    /// Wakes the poll of desired state.
    pub hint: Arc<Notify>,
    /// URL of this server.
    pub url: Url,
    /// URLs of all servers, for node bundles.
    pub servers: Vec<Url>,
    /// Registry that nodes reach over plain HTTP; empty if it has TLS.
    pub insecure_registry: String,
    /// Ends long polls and streams.
    pub shutdown: tokio_util::sync::CancellationToken,
}

impl Api {
    /// Fails unless this server leads.
    fn leading(&self) -> Result<u64, Problem> {
        let leadership = self.leadership.borrow();
        leadership.epoch().ok_or_else(|| match &*leadership {
            Leadership::Standby { leader: Some(leader) } => {
                Problem::not_leader(Some(&leader.url)).with("epoch", leader.epoch)
            }
            Leadership::Standby { leader: None } => Problem::not_leader(None),
            Leadership::Leading { .. } | Leadership::Holdover { .. } => Problem::not_leader(None),
        })
    }

    /// The node whose credential the request carries.
    fn node(&self, headers: &HeaderMap) -> Result<NodeName, Problem> {
        let credential = auth::bearer(headers)?;
        let refused = || Problem::unauthorized("the node's credential is not known here");
        if credential.kind != CredentialKind::Node {
            return Err(refused());
        }
        let name: NodeName = credential.name.parse().map_err(|_| refused())?;
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        let known = secrets.get(&name).ok_or_else(refused)?;
        if hash_matches(known, &credential.secret_hash()) { Ok(name) } else { Err(refused()) }
    }
}

/// Turns away who is nobody before the body is read: reports are large, and strangers must not fill the memory. What the
/// caller may do is the endpoint's to say.
async fn known(State(api): State<Api>, request: Request, next: Next) -> Result<Response, Problem> {
    let credential = auth::bearer(request.headers())?;
    match credential.kind {
        CredentialKind::Node => api.node(request.headers()).map(drop)?,
        CredentialKind::Service => api.services.verify_credential(&credential).await.map(drop)?,
        CredentialKind::Session => return Err(Problem::unauthorized("people's credentials are for dash")),
    }
    let mut answer = next.run(request).await;
    if let Some(epoch) = api.leadership.borrow().epoch() {
        answer.headers_mut().insert(EPOCH_HEADER, HeaderValue::from(epoch));
    }
    Ok(answer)
}

/// All endpoints of this interface.
pub fn router(api: Api) -> Router {
    Router::new()
        .merge(agent::router())
        .merge(router::router())
        .merge(hm::router())
        .merge(control::router())
        .route_layer(middleware::from_fn_with_state(api.clone(), known))
        .merge(leader::router())
        .with_state(api)
}
